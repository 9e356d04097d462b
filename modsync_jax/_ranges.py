"""The check of hyperparameters when a transformation is built."""

import jax
import numpy as np
from jax import Array


def check_range(name: str, value: float | Array, low: float, high: float = float("inf")) -> None:
    """Raises a `ValueError` on a number or array entry outside [low, high]; tracers pass."""
    # NumPy, because this may run while something else is traced.
    if isinstance(value, jax.core.Tracer):
        return
    values = np.asarray(value)
    if not np.all((low <= values) & (values <= high)):
        raise ValueError(f"{name} is {value}; it must be between {low:g} and {high:g}")
