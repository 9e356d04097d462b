"""Klein-Gordon equation in two dimensions and time, with a manufactured solution.

u_tt - Δu + u² = f,  t in [0, 10],  (x, y) in [-1, 1]²
u(0, x, y) = x + y,  u_t(0, x, y) = Cxy,  u given on the boundary
u = (x + y) cos(Ct) + xy sin(Ct),  C = 2
"""

from functools import partial

import jax.numpy as jnp
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._conditions import derivative, value
from modsync_jax.problems._manufactured import manufactured
from modsync_jax.sampling import box


def operator(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's left side at a point `[3]`, (t, x, y)."""
    values, wave = partials(u, x, "", {"tt": 1.0, "xx": -1.0, "yy": -1.0})
    return {"pde": wave + values**2}


def exact(x: Array, frequency: float | Array) -> Array:
    """Returns the solution `[1]` at a point `[3]`, (t, x, y)."""
    t, x, y = x[:1], x[1:2], x[2:]
    return (x + y) * jnp.cos(frequency * t) + x * y * jnp.sin(frequency * t)


def problem(frequency: float | Array = 2.0) -> Problem:
    """Returns the problem, with as many points as in one dimension."""
    frequency = coefficient("frequency", frequency)
    solution = partial(exact, frequency=frequency)
    edges = {"left": "x=-1", "right": "x=1", "bottom": "y=-1", "top": "y=1"}
    conditions = {
        "initial": value("t=0", lambda x: x[1] + x[2]),
        "initial_velocity": derivative("t=0", "t", lambda x: frequency * x[1] * x[2]),
    } | {name: value(face, solution) for name, face in edges.items()}
    return manufactured(
        operator,
        solution,
        name="klein_gordon3d",
        domain=box(t=(0, 10), x=(-1, 1), y=(-1, 1)),
        conditions=conditions,
        points=dict.fromkeys(["residual", *conditions], 128),
        coefficients={"frequency": frequency},
        standardize=True,
        source="Kong, Park, Kim & Lee 2026 (ModSync); points as in klein_gordon2d",
    )
