"""Allen-Cahn equation in many dimensions: a front that travels along the diagonal.

u_t = Δu + u - u³,  t in [0, 1],  x in [-1, 1]^d,  u given at t = 0 and on the boundary
u = (1 + tanh(s/√8 + 3t/4)) / 2,  s = (x_1 + ... + x_d) / √d
"""

import math

import jax.numpy as jnp
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._cube import on_cube


def exact(x: Array) -> Array:
    """Returns the solution `[1]` at a point `[1 + d]`, (t, x1, ..., xd)."""
    along = jnp.sum(x[1:], keepdims=True) / math.sqrt(8 * (len(x) - 1))
    return (1 + jnp.tanh(along + 0.75 * x[:1])) / 2


def residual(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[1 + d]`, (t, x1, ..., xd)."""
    diffusion = dict.fromkeys((2 * name for name in u.coordinates[1:]), -1.0)
    value, change = partials(u, x, "", {"t": 1.0} | diffusion)
    return {"pde": change - value + value**3}


def problem(dimension: int = 10) -> Problem:
    """Returns the problem in d dimensions; errors as in `on_cube`."""
    return on_cube(
        dimension,
        (-1, 1),
        exact,
        given={"initial": "t=0"},
        name="allen_cahn_nd",
        residual=residual,
        source="equation of E, Han & Jentzen 2017; its front that travels",
    )
