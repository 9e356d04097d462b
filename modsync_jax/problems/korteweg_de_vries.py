"""Korteweg-de Vries equation: a wave that steepens and breaks up into solitons.

u_t + u u_x + μ u_xxx = 0,  μ = 0.0025,  t in [0, 1],  x in [-1, 1]
u(0, x) = cos(πx),  u, u_x and u_xx periodic in x
"""

from collections.abc import Callable
from functools import cache

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from modsync_jax.calculus import Field, partials
from modsync_jax.problems import _spectral
from modsync_jax.problems._base import Problem
from modsync_jax.problems._conditions import periodic, value
from modsync_jax.sampling import box

DISPERSION = 0.0025


def residual(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[2]`, (t, x)."""
    values, u_t, u_x, u_xxx = partials(u, x, "", "t", "x", "xxx")
    return {"pde": u_t + values * u_x + DISPERSION * u_xxx}


def reference(points: np.ndarray) -> np.ndarray:
    """Returns the solution `[N, 1]` in float64 at points `[N, 2]`, (t, x), by a Fourier method.

    Its error is below 1e-8.
    """
    return _solution()(points)[:, None]


@cache
def _solution() -> Callable[[NDArray], NDArray]:
    return _spectral.evolve(
        initial=lambda x: np.cos(np.pi * x),
        linear=lambda slope: -DISPERSION * slope**3,
        outer=lambda slope: -slope,
        inner=lambda u: u**2 / 2,
        points=256,
        steps=2000,
    )


def problem() -> Problem:
    """Returns the problem, with points of our own: the source uses a discrete time."""
    return Problem(
        name="korteweg_de_vries",
        domain=box(t=(0, 1), x=(-1, 1)),
        residual=residual,
        conditions={
            "initial": value("t=0", lambda x: jnp.cos(jnp.pi * x[1])),
            "periodic": periodic("x=1", order=2),
        },
        points={"residual": 1280, "initial": 128, "periodic": 128},
        reference=reference,
        source="Raissi, Perdikaris & Karniadakis 2019; points of our own",
    )
