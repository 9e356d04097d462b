"""Programs with absl flags: they parse, check and call the package."""
