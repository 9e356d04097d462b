"""Helmholtz equation in three dimensions, with a manufactured solution.

Δu + k² u = f on [-1, 1]³,  u = 0 on the boundary
u = sin(a₁πx) sin(a₂πy) sin(a₃πz),  k = 1,  (a₁, a₂, a₃) = (4, 4, 3)
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
A1, A2, A3 = 4 * np.pi, 4 * np.pi, 3 * np.pi


def operator(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's left side at a point `[3]`, (x, y, z)."""
    return {"pde": partials(u, x, {"xx": 1.0, "yy": 1.0, "zz": 1.0, "": WAVE_NUMBER**2})[0]}


def exact(x: Array) -> Array:
    """Returns the solution `[1]` at a point `[3]`, (x, y, z)."""
    return jnp.sin(A1 * x[:1]) * jnp.sin(A2 * x[1:2]) * jnp.sin(A3 * x[2:])


def problem() -> Problem:
    """Returns the problem, with as many points as in two dimensions."""
    faces = {"left": "x=-1", "right": "x=1", "front": "y=-1", "back": "y=1"}
    faces |= {"bottom": "z=-1", "top": "z=1"}
    return manufactured(
        operator,
        exact,
        name="helmholtz3d",
        domain=box(x=(-1, 1), y=(-1, 1), z=(-1, 1)),
        conditions={name: value(face, 0.0) for name, face in faces.items()},
        points={"residual": 1280} | dict.fromkeys(faces, 128),
        standardize=True,
        source="Kong, Park, Kim & Lee 2026 (ModSync); points as in helmholtz2d",
    )
