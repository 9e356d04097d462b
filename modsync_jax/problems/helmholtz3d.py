"""Helmholtz equation in three dimensions, with a manufactured solution.

Δu + k² u = f on [-1, 1]³,  u given on the boundary, where it is 0
u = sin(a₁πx) sin(a₂πy) sin(a₃πz),  k = 1,  (a₁, a₂, a₃) = (4, 4, 3)
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._conditions import value
from modsync_jax.problems._manufactured import manufactured
from modsync_jax.sampling import box


def operator(u: Field, x: Array, wave_number: float | Array) -> dict[str, Array]:
    """Returns the equation's left side at a point `[3]`, (x, y, z)."""
    return {"pde": partials(u, x, {"xx": 1.0, "yy": 1.0, "zz": 1.0, "": wave_number**2})[0]}


def exact(x: Array, a1: float | Array, a2: float | Array, a3: float | Array) -> Array:
    """Returns the solution `[1]` at a point `[3]`, (x, y, z)."""
    sin_x, sin_y, sin_z = (jnp.sin(a * np.pi * x[i : i + 1]) for i, a in enumerate((a1, a2, a3)))
    return sin_x * sin_y * sin_z


def problem(
    wave_number: float | Array = 1.0,
    a1: float | Array = 4.0,
    a2: float | Array = 4.0,
    a3: float | Array = 3.0,
) -> Problem:
    """Returns the problem, with as many points as in two dimensions."""
    wave_number = coefficient("wave_number", wave_number)
    a1, a2, a3 = coefficient("a1", a1), coefficient("a2", a2), coefficient("a3", a3)
    solution = partial(exact, a1=a1, a2=a2, a3=a3)
    faces = {"left": "x=-1", "right": "x=1", "front": "y=-1", "back": "y=1"}
    faces |= {"bottom": "z=-1", "top": "z=1"}
    return manufactured(
        partial(operator, wave_number=wave_number),
        solution,
        name="helmholtz3d",
        domain=box(x=(-1, 1), y=(-1, 1), z=(-1, 1)),
        conditions={name: value(face, solution) for name, face in faces.items()},
        points={"residual": 1280} | dict.fromkeys(faces, 128),
        coefficients={"wave_number": wave_number, "a1": a1, "a2": a2, "a3": a3},
        standardize=True,
        source="Kong, Park, Kim & Lee 2026 (ModSync); points as in helmholtz2d",
    )
