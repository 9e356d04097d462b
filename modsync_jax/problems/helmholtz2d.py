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
from modsync_jax.sampling import box

WAVE_NUMBER = 1.0
A1, A2 = 1 * np.pi, 4 * np.pi


def residual(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[2]`, (x, y)."""
    (linear,) = partials(u, x, {"": WAVE_NUMBER**2, "xx": 1.0, "yy": 1.0})
    source = (WAVE_NUMBER**2 - A1**2 - A2**2) * jnp.sin(A1 * x[0]) * jnp.sin(A2 * x[1])
    return {"pde": linear - source}


def reference(points: np.ndarray) -> np.ndarray:
    """Returns the solution `[N, 1]` in float64 at points `[N, 2]`, (x, y)."""
    x, y = np.asarray(points, np.float64).T
    return (np.sin(A1 * x) * np.sin(A2 * y))[:, None]


def problem() -> Problem:
    """Returns the problem, with the points of the published DCGD runs (Hwang & Lim 2024)."""
    edges = {"left": "x=-1", "right": "x=1", "bottom": "y=-1", "top": "y=1"}
    return Problem(
        name="helmholtz2d",
        domain=box(x=(-1, 1), y=(-1, 1)),
        residual=residual,
        conditions={name: value(face, 0.0) for name, face in edges.items()},
        points={"residual": 1280} | dict.fromkeys(edges, 128),
        reference=reference,
        standardize=True,
        source="Wang, Teng & Perdikaris 2021; settings of Hwang & Lim 2024 (DCGD)",
    )
