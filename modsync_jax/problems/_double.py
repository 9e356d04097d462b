"""References from solutions that are JAX functions."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
from jax import Array


def in_double(exact: Callable[[Array], Array]) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a reference, from points `[N, d]` to values `[N, m]`, computed in float64.

    Args:
      exact: the solution, from a point `[d]` to values `[m]`.
    """
    at_points = jax.jit(jax.vmap(exact))

    def reference(points: np.ndarray) -> np.ndarray:
        with _float64():
            return np.asarray(at_points(jnp.asarray(points, jnp.float64)))

    return reference


def _float64() -> AbstractContextManager:
    """Switches 64-bit types on for this thread alone; JAX has moved the switch."""
    owner = jax if hasattr(jax, "enable_x64") else jax.experimental
    return owner.enable_x64(True)
