"""Poisson's equation on a square, the first problem of most textbooks.

Δu = f on [0, 1]²,  u given on the boundary, where it is 0
u = sin(Cx) sin(Cy),  C = π
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.calculus import Field, laplacian
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._conditions import value
from modsync_jax.problems._manufactured import manufactured
from modsync_jax.sampling import box


def operator(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's left side at a point `[2]`, (x, y)."""
    return {"pde": laplacian(u, x)}


def exact(x: Array, frequency: float | Array) -> Array:
    """Returns the solution `[1]` at a point `[2]`, (x, y)."""
    return jnp.sin(frequency * x[:1]) * jnp.sin(frequency * x[1:])


def problem(frequency: float | Array = np.pi) -> Problem:
    """Returns the problem."""
    frequency = coefficient("frequency", frequency)
    solution = partial(exact, frequency=frequency)
    edges = {"left": "x=0", "right": "x=1", "bottom": "y=0", "top": "y=1"}
    return manufactured(
        operator,
        solution,
        name="poisson2d",
        domain=box(x=(0, 1), y=(0, 1)),
        conditions={name: value(face, solution) for name, face in edges.items()},
        points={"residual": 1280} | dict.fromkeys(edges, 128),
        coefficients={"frequency": frequency},
        source="textbook model; points as in helmholtz2d",
    )
