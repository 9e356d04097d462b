"""Klein-Gordon equation in two dimensions and time, with a manufactured solution.

u_tt - Δu + u² = f,  t in [0, 10],  (x, y) in [-1, 1]²
u(0, x, y) = x + y,  u_t(0, x, y) = 2xy,  u given on the boundary
u = (x + y) cos(2t) + xy sin(2t)
"""

import jax.numpy as jnp
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._conditions import derivative, value
from modsync_jax.problems._manufactured import manufactured
from modsync_jax.sampling import box


def operator(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's left side at a point `[3]`, (t, x, y)."""
    values, wave = partials(u, x, "", {"tt": 1.0, "xx": -1.0, "yy": -1.0})
    return {"pde": wave + values**2}


def exact(x: Array) -> Array:
    """Returns the solution `[1]` at a point `[3]`, (t, x, y)."""
    t, x, y = x[:1], x[1:2], x[2:]
    return (x + y) * jnp.cos(2 * t) + x * y * jnp.sin(2 * t)


def problem() -> Problem:
    """Returns the problem, with as many points as in one dimension."""
    edges = {"left": "x=-1", "right": "x=1", "bottom": "y=-1", "top": "y=1"}
    conditions = {
        "initial": value("t=0", lambda x: x[1] + x[2]),
        "initial_velocity": derivative("t=0", "t", lambda x: 2 * x[1] * x[2]),
    } | {name: value(face, exact) for name, face in edges.items()}
    return manufactured(
        operator,
        exact,
        name="klein_gordon3d",
        domain=box(t=(0, 10), x=(-1, 1), y=(-1, 1)),
        conditions=conditions,
        points=dict.fromkeys(["residual", *conditions], 128),
        standardize=True,
        source="Kong, Park, Kim & Lee 2026 (ModSync); points as in klein_gordon2d",
    )
