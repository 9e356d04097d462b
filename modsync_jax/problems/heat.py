"""Heat equation in a rod with cooled ends.

u_t = α u_xx,  α = 0.4,  t in [0, 1],  x in [0, 1]
u(0, x) = sin(πx),  u(t, 0) = u(t, 1) = 0
u = exp(-απ²t) sin(πx)
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._conditions import value
from modsync_jax.sampling import box


def residual(u: Field, x: Array, diffusivity: float | Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[2]`, (t, x)."""
    return {"pde": partials(u, x, {"t": 1.0, "xx": -diffusivity})[0]}


def reference(points: np.ndarray, diffusivity: float | Array) -> np.ndarray:
    """Returns the solution `[N, 1]` in float64 at points `[N, 2]`, (t, x)."""
    t, x = np.asarray(points, np.float64).T
    return (np.exp(-diffusivity * np.pi**2 * t) * np.sin(np.pi * x))[:, None]


def problem(diffusivity: float | Array = 0.4) -> Problem:
    """Returns the problem, with as many points as in its source.

    Raises:
      ValueError: a negative diffusivity.
    """
    diffusivity = coefficient("diffusivity", diffusivity, 0)
    return Problem(
        name="heat",
        domain=box(t=(0, 1), x=(0, 1)),
        residual=partial(residual, diffusivity=diffusivity),
        conditions={
            "initial": value("t=0", lambda x: jnp.sin(jnp.pi * x[1])),
            "left": value("x=0", 0.0),
            "right": value("x=1", 0.0),
        },
        points={"residual": 2540, "initial": 160, "left": 40, "right": 40},
        reference=partial(reference, diffusivity=diffusivity),
        coefficients={"diffusivity": diffusivity},
        source="Lu et al. 2021 (DeepXDE), its example of the heat equation",
    )
