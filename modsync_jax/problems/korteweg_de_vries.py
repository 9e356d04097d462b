"""Korteweg-de Vries equation: a wave that steepens and breaks up into solitons.

u_t + u u_x + μ u_xxx = 0,  μ = 0.0025,  t in [0, 1],  x in [-1, 1]
u(0, x) = cos(πx),  u, u_x and u_xx periodic in x
"""

from collections.abc import Callable
from functools import lru_cache, partial

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from modsync_jax.calculus import Field, partials
from modsync_jax.problems import _spectral
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._conditions import periodic, value
from modsync_jax.sampling import box


def residual(u: Field, x: Array, dispersion: float | Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[2]`, (t, x)."""
    values, u_x, linear = partials(u, x, "", "x", {"t": 1.0, "xxx": dispersion})
    return {"pde": linear + values * u_x}


def reference(points: np.ndarray, dispersion: float | Array) -> np.ndarray:
    """Returns the solution `[N, 1]` in float64 at points `[N, 2]`, (t, x), by a Fourier method.

    Its error is below 1e-8 for dispersions from 0.0025 to 0.2, and 1e-7 at the smallest and the
    largest dispersion.
    """
    return _solution(np.float64(dispersion))(points)[:, None]


@lru_cache(maxsize=4)
def _solution(dispersion: np.float64) -> Callable[[NDArray], NDArray]:
    return _spectral.evolve(
        initial=lambda x: np.cos(np.pi * x),
        linear=lambda slope: -dispersion * slope**3,
        outer=lambda slope: -slope,
        inner=lambda u: u**2 / 2,
        points=256,
        steps=2000,
    )


def problem(dispersion: float | Array = 0.0025) -> Problem:
    """Returns the problem, with our own choice of points, because the source uses discrete time.

    Raises:
      ValueError: a dispersion outside [0.001, 1].
    """
    dispersion = coefficient("dispersion", dispersion, 0.001, 1)
    return Problem(
        name="korteweg_de_vries",
        domain=box(t=(0, 1), x=(-1, 1)),
        residual=partial(residual, dispersion=dispersion),
        conditions={
            "initial": value("t=0", lambda x: jnp.cos(jnp.pi * x[1])),
            "periodic": periodic("x=1", order=2),
        },
        points={"residual": 1280, "initial": 128, "periodic": 128},
        reference=partial(reference, dispersion=dispersion),
        coefficients={"dispersion": dispersion},
        source="Raissi, Perdikaris & Karniadakis 2019; points of our own",
    )
