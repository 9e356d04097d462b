"""ModSync for JAX."""
