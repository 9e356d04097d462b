"""Helmholtz equation in two dimensions, with a manufactured solution that is faster in y than in x.

Δu + k² u = f on [-1, 1]²,  u = 0 on the boundary
u = sin(a₁πx) sin(a₂πy),  k = 1,  (a₁, a₂) = (1, 4)
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._conditions import value
from modsync_jax.problems._manufactured import manufactured
from modsync_jax.sampling import box

WAVE_NUMBER = 1.0
A1, A2 = 1 * np.pi, 4 * np.pi


def operator(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's left side at a point `[2]`, (x, y)."""
    return {"pde": partials(u, x, {"xx": 1.0, "yy": 1.0, "": WAVE_NUMBER**2})[0]}


def exact(x: Array) -> Array:
    """Returns the solution `[1]` at a point `[2]`, (x, y)."""
    return jnp.sin(A1 * x[:1]) * jnp.sin(A2 * x[1:])


def problem() -> Problem:
    """Returns the problem, with the points of the published DCGD runs (Hwang & Lim 2024)."""
    edges = {"left": "x=-1", "right": "x=1", "bottom": "y=-1", "top": "y=1"}
    return manufactured(
        operator,
        exact,
        name="helmholtz2d",
        domain=box(x=(-1, 1), y=(-1, 1)),
        conditions={name: value(face, 0.0) for name, face in edges.items()},
        points={"residual": 1280} | dict.fromkeys(edges, 128),
        standardize=True,
        source="Wang, Teng & Perdikaris 2021; settings of Hwang & Lim 2024 (DCGD)",
    )
