"""Heat equation in many dimensions.

u_t = α Δu,  α = 1,  t in [0, 1],  x in [0, 1]^d
u(0, x) = |x|²/d,  u given on the boundary
u = |x|²/d + 2αt
"""

from functools import partial

import jax.numpy as jnp
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._cube import on_cube


def exact(x: Array, diffusivity: float | Array) -> Array:
    """Returns the solution `[1]` at a point `[1 + d]`, (t, x1, ..., xd)."""
    return jnp.mean(x[1:] ** 2, keepdims=True) + 2 * diffusivity * x[:1]


def residual(u: Field, x: Array, diffusivity: float | Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[1 + d]`, (t, x1, ..., xd)."""
    diffusion = dict.fromkeys((2 * name for name in u.coordinates[1:]), -diffusivity)
    return {"pde": partials(u, x, {"t": 1.0, **diffusion})[0]}


def problem(dimension: int = 10, diffusivity: float | Array = 1.0) -> Problem:
    """Returns the problem in d dimensions.

    Raises:
      ValueError: a dimension as in `on_cube`, or a negative diffusivity.
    """
    diffusivity = coefficient("diffusivity", diffusivity, 0)
    return on_cube(
        dimension,
        (0, 1),
        partial(exact, diffusivity=diffusivity),
        given={"initial": "t=0"},
        name="heat_nd",
        residual=partial(residual, diffusivity=diffusivity),
        coefficients={"diffusivity": diffusivity},
        source="Beck, Becker, Grohs, Jaafari & Jentzen 2018, its heat equation, over d",
    )
