"""Logistic reaction: an ordinary differential equation at every x on which plain PINNs fail.

u_t = ρ u (1 - u),  ρ = 5,  t in [0, 1],  x in [0, 2π]
u(0, x) = h(x) = exp(-(x - π)² / 2(π/4)²),  u periodic in x
u = h e^ρt / (h e^ρt + 1 - h)
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._conditions import periodic, value
from modsync_jax.sampling import box

WIDTH = np.pi / 4


def residual(u: Field, x: Array, rate: float | Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[2]`, (t, x)."""
    values, u_t = partials(u, x, "", "t")
    return {"pde": u_t - rate * values * (1 - values)}


def reference(points: np.ndarray, rate: float | Array) -> np.ndarray:
    """Returns the solution `[N, 1]` in float64 at points `[N, 2]`, (t, x)."""
    t, x = np.asarray(points, np.float64).T
    start = np.exp(-((x - np.pi) ** 2) / (2 * WIDTH**2))
    grown = start * np.exp(rate * t)
    return (grown / (grown + 1 - start))[:, None]


def problem(rate: float | Array = 5.0) -> Problem:
    """Returns the problem, with as many points as its source, which does not redraw them."""
    rate = coefficient("rate", rate)
    return Problem(
        name="reaction",
        domain=box(t=(0, 1), x=(0, 2 * np.pi)),
        residual=partial(residual, rate=rate),
        conditions={
            "initial": value("t=0", lambda x: jnp.exp(-((x[1] - jnp.pi) ** 2) / (2 * WIDTH**2))),
            "periodic": periodic("x=0", order=0),
        },
        points={"residual": 1000, "initial": 256, "periodic": 100},
        reference=partial(reference, rate=rate),
        coefficients={"rate": rate},
        source="Krishnapriyan et al. 2021",
    )
