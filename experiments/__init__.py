"""Programs with absl flags: they parse and check flags and call the package."""
