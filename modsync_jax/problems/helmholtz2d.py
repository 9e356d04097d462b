"""Helmholtz equation in two dimensions; its manufactured solution oscillates faster in y than in x.

Δu + k² u = f on [-1, 1]²,  u given on the boundary, where it is 0
u = sin(a₁πx) sin(a₂πy),  k = 1,  (a₁, a₂) = (1, 4)
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
    """Returns the equation's left side at a point `[2]`, (x, y)."""
    return {"pde": partials(u, x, {"xx": 1.0, "yy": 1.0, "": wave_number**2})[0]}


def exact(x: Array, a1: float | Array, a2: float | Array) -> Array:
    """Returns the solution `[1]` at a point `[2]`, (x, y)."""
    return jnp.sin(a1 * np.pi * x[:1]) * jnp.sin(a2 * np.pi * x[1:])


def problem(
    wave_number: float | Array = 1.0,
    a1: float | Array = 1.0,
    a2: float | Array = 4.0,
) -> Problem:
    """Returns the problem, with the points of the published DCGD runs (Hwang & Lim 2024)."""
    wave_number = coefficient("wave_number", wave_number)
    a1, a2 = coefficient("a1", a1), coefficient("a2", a2)
    solution = partial(exact, a1=a1, a2=a2)
    edges = {"left": "x=-1", "right": "x=1", "bottom": "y=-1", "top": "y=1"}
    return manufactured(
        partial(operator, wave_number=wave_number),
        solution,
        name="helmholtz2d",
        domain=box(x=(-1, 1), y=(-1, 1)),
        conditions={name: value(face, solution) for name, face in edges.items()},
        points={"residual": 1280} | dict.fromkeys(edges, 128),
        coefficients={"wave_number": wave_number, "a1": a1, "a2": a2},
        standardize=True,
        source="Wang, Teng & Perdikaris 2021; settings of Hwang & Lim 2024 (DCGD)",
    )
