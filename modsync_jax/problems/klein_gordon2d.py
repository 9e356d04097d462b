"""Klein-Gordon equation with a cubic nonlinearity and a manufactured solution.

u_tt - u_xx + u³ = f,  t in [0, 1],  x in [0, 1]
u(0, x) = x,  u_t(0, x) = 0,  u(t, 0) and u(t, 1) given
u = x cos(5πt) + (xt)³
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._conditions import derivative, value
from modsync_jax.sampling import box

FREQUENCY = 5 * np.pi


def residual(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[2]`, (t, x)."""
    values, wave = partials(u, x, "", {"tt": 1.0, "xx": -1.0})
    return {"pde": wave + values**3 - _source(*x)}


def _source(t: Array, x: Array) -> Array:
    u = x * jnp.cos(FREQUENCY * t) + (x * t) ** 3
    u_tt = -(FREQUENCY**2) * x * jnp.cos(FREQUENCY * t) + 6 * x**3 * t
    u_xx = 6 * x * t**3
    return u_tt - u_xx + u**3


def reference(points: np.ndarray) -> np.ndarray:
    """Returns the solution `[N, 1]` in float64 at points `[N, 2]`, (t, x)."""
    t, x = np.asarray(points, np.float64).T
    return (x * np.cos(FREQUENCY * t) + (x * t) ** 3)[:, None]


def problem() -> Problem:
    """Returns the problem, with the points of the published DCGD runs (Hwang & Lim 2024)."""
    conditions = {
        "initial": value("t=0", lambda x: x[1]),
        "initial_velocity": derivative("t=0", "t", 0.0),
        "left": value("x=0", 0.0),
        "right": value("x=1", lambda x: jnp.cos(FREQUENCY * x[0]) + x[0] ** 3),
    }
    return Problem(
        name="klein_gordon2d",
        domain=box(t=(0, 1), x=(0, 1)),
        residual=residual,
        conditions=conditions,
        points=dict.fromkeys(["residual", *conditions], 128),
        reference=reference,
        standardize=True,
        source="Wang, Teng & Perdikaris 2021; settings of Hwang & Lim 2024 (DCGD)",
    )
