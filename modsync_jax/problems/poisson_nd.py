"""Poisson's equation in many dimensions, whose solution couples neighbouring coordinates.

Δu = f on [-1, 1]^d,  u given on the boundary
u = mean of sin(φ_i),  φ_i = x_i + cos(x_{i+1}) + x_{i+1} cos(x_i),  i < d

The Hessian is not diagonal, so estimates along random directions are not exact.
"""

import jax.numpy as jnp
from jax import Array

from modsync_jax.calculus import Field, laplacian
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import whole
from modsync_jax.problems._cube import on_cube


def exact(x: Array) -> Array:
    """Returns the solution `[1]` at a point `[d]`."""
    return jnp.mean(jnp.sin(_phases(x)), keepdims=True)


def _phases(x: Array) -> Array:
    a, b = x[:-1], x[1:]
    return a + jnp.cos(b) + b * jnp.cos(a)


def forcing(x: Array) -> Array:
    """Returns the Laplacian of the solution, `[]`, at a point `[d]`."""
    a, b, phase = x[:-1], x[1:], _phases(x)
    slopes = (1 - b * jnp.sin(a)) ** 2 + (jnp.cos(a) - jnp.sin(b)) ** 2
    bends = -b * jnp.cos(a) - jnp.cos(b)
    return jnp.mean(jnp.cos(phase) * bends - jnp.sin(phase) * slopes)


def residual(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[d]`."""
    return {"pde": laplacian(u, x) - forcing(x)}


def problem(dimension: int = 10) -> Problem:
    """Returns the problem in d dimensions.

    Raises:
      ValueError: a dimension that is no whole number from 2 to 1000.
    """
    return on_cube(
        whole("dimension", dimension, 2, 1_000),  # neighbours are needed
        (-1, 1),
        exact,
        name="poisson_nd",
        residual=residual,
        source="Hu, Shukla, Karniadakis & Kawaguchi 2023, its two-body solution, on a cube",
    )
