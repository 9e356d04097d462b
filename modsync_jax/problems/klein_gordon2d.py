"""Klein-Gordon equation with a cubic nonlinearity and a manufactured solution.

u_tt - u_xx + u³ = f,  t in [0, 1],  x in [0, 1]
u(0, x) = x,  u_t(0, x) = 0,  u(t, 0) and u(t, 1) given
u = x cos(Ct) + (xt)³,  C = 5π
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._conditions import derivative, value
from modsync_jax.problems._manufactured import manufactured
from modsync_jax.sampling import box


def operator(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's left side at a point `[2]`, (t, x)."""
    values, wave = partials(u, x, "", {"tt": 1.0, "xx": -1.0})
    return {"pde": wave + values**3}


def exact(x: Array, frequency: float | Array) -> Array:
    """Returns the solution `[1]` at a point `[2]`, (t, x)."""
    t, x = x[:1], x[1:]
    return x * jnp.cos(frequency * t) + (x * t) ** 3


def problem(frequency: float | Array = 5 * np.pi) -> Problem:
    """Returns the problem, with the points of the published DCGD runs (Hwang & Lim 2024)."""
    frequency = coefficient("frequency", frequency)
    solution = partial(exact, frequency=frequency)
    conditions = {
        "initial": value("t=0", lambda x: x[1]),
        "initial_velocity": derivative("t=0", "t", 0.0),
        "left": value("x=0", solution),
        "right": value("x=1", solution),
    }
    return manufactured(
        operator,
        solution,
        name="klein_gordon2d",
        domain=box(t=(0, 1), x=(0, 1)),
        conditions=conditions,
        points=dict.fromkeys(["residual", *conditions], 128),
        coefficients={"frequency": frequency},
        standardize=True,
        source="Wang, Teng & Perdikaris 2021; settings of Hwang & Lim 2024 (DCGD)",
    )
