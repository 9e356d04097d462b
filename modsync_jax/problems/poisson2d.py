"""Poisson's equation on a square, the first problem of every textbook.

Δu = f on [0, 1]²,  u = 0 on the boundary
u = sin(πx) sin(πy)
"""

import jax.numpy as jnp
from jax import Array

from modsync_jax.calculus import Field, laplacian
from modsync_jax.problems._base import Problem
from modsync_jax.problems._conditions import value
from modsync_jax.problems._manufactured import manufactured
from modsync_jax.sampling import box


def operator(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's left side at a point `[2]`, (x, y)."""
    return {"pde": laplacian(u, x)}


def exact(x: Array) -> Array:
    """Returns the solution `[1]` at a point `[2]`, (x, y)."""
    return jnp.sin(jnp.pi * x[:1]) * jnp.sin(jnp.pi * x[1:])


def problem() -> Problem:
    """Returns the problem."""
    edges = {"left": "x=0", "right": "x=1", "bottom": "y=0", "top": "y=1"}
    return manufactured(
        operator,
        exact,
        name="poisson2d",
        domain=box(x=(0, 1), y=(0, 1)),
        conditions={name: value(face, 0.0) for name, face in edges.items()},
        points={"residual": 1280} | dict.fromkeys(edges, 128),
        source="textbook model; points as in helmholtz2d",
    )
