"""Wave equation on a string, with two modes of different frequencies.

u_tt = c² u_xx,  c = 2,  t in [0, 1],  x in [0, 1]
u(0, x) = sin(πx) + ½ sin(4πx),  u_t(0, x) = 0,  u(t, 0) = u(t, 1) = 0
u = sin(πx) cos(cπt) + ½ sin(4πx) cos(4cπt)
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._conditions import derivative, value
from modsync_jax.sampling import box


def residual(u: Field, x: Array, speed: float | Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[2]`, (t, x)."""
    return {"pde": partials(u, x, {"tt": 1.0, "xx": -(speed**2)})[0]}


def reference(points: np.ndarray, speed: float | Array) -> np.ndarray:
    """Returns the solution `[N, 1]` in float64 at points `[N, 2]`, (t, x)."""
    t, x = np.pi * np.asarray(points, np.float64).T
    slow = np.sin(x) * np.cos(speed * t)
    fast = np.sin(4 * x) * np.cos(4 * speed * t)
    return (slow + fast / 2)[:, None]


def problem(speed: float | Array = 2.0) -> Problem:
    """Returns the problem, with 300 points for each term as in its source."""
    speed = coefficient("speed", speed)
    conditions = {
        "initial": value("t=0", lambda x: jnp.sin(jnp.pi * x[1]) + jnp.sin(4 * jnp.pi * x[1]) / 2),
        "initial_velocity": derivative("t=0", "t", 0.0),
        "left": value("x=0", 0.0),
        "right": value("x=1", 0.0),
    }
    return Problem(
        name="wave",
        domain=box(t=(0, 1), x=(0, 1)),
        residual=partial(residual, speed=speed),
        conditions=conditions,
        points=dict.fromkeys(["residual", *conditions], 300),
        reference=partial(reference, speed=speed),
        coefficients={"speed": speed},
        standardize=True,
        source="Wang, Yu & Perdikaris 2022",
    )
