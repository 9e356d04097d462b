"""Allen-Cahn equation: two phases with sharpening fronts between them.

u_t = ν u_xx + 5u - 5u³,  ν = 1e-4,  t in [0, 1],  x in [-1, 1]
u(0, x) = x² cos(πx),  u and u_x periodic in x

The initial value is periodic, but its slope is not, so the solution starts with a kink at x = ±1.
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

RATE = 5.0


def residual(u: Field, x: Array, diffusivity: float | Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[2]`, (t, x)."""
    values, heat = partials(u, x, "", {"t": 1.0, "xx": -diffusivity})
    return {"pde": heat - RATE * (values - values**3)}


def reference(points: np.ndarray, diffusivity: float | Array) -> np.ndarray:
    """Returns the solution `[N, 1]` in float64 at points `[N, 2]`, (t, x), by a Fourier method.

    Its error is 1e-5 in the relative L2 norm, all of it around the initial kink: 4e-4 at t = 0 and
    x = ±1, and below 1e-6 from t = 0.5 on. Elsewhere the error is below 1e-8 from t = 0.05 on, and
    4e-7 at the smallest and the largest diffusivity.
    """
    return _solution(np.float64(diffusivity))(points)[:, None]


@lru_cache(maxsize=4)
def _solution(diffusivity: np.float64) -> Callable[[NDArray], NDArray]:
    return _spectral.evolve(
        initial=lambda x: x**2 * np.cos(np.pi * x),
        linear=lambda slope: diffusivity * slope**2,
        outer=np.ones_like,
        inner=lambda u: RATE * (u - u**3),
        points=1024,
        steps=400,
    )


def problem(diffusivity: float | Array = 1e-4) -> Problem:
    """Returns the problem, with our own choice of points, because the source uses discrete time.

    Raises:
      ValueError: a diffusivity outside [2e-5, 0.01].
    """
    diffusivity = coefficient("diffusivity", diffusivity, 2e-5, 0.01)
    return Problem(
        name="allen_cahn",
        domain=box(t=(0, 1), x=(-1, 1)),
        residual=partial(residual, diffusivity=diffusivity),
        conditions={
            "initial": value("t=0", lambda x: x[1] ** 2 * jnp.cos(jnp.pi * x[1])),
            "periodic": periodic("x=1"),
        },
        points={"residual": 1280, "initial": 128, "periodic": 128},
        reference=partial(reference, diffusivity=diffusivity),
        coefficients={"diffusivity": diffusivity},
        source="Raissi, Perdikaris & Karniadakis 2019; points of our own",
    )
