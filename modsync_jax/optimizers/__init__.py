"""Room for optimisers."""
