"""Heat equation in a rod with cooled ends.

u_t = α u_xx,  α = 0.4,  t in [0, 1],  x in [0, 1]
u(0, x) = sin(πx),  u(t, 0) = u(t, 1) = 0
u = exp(-απ²t) sin(πx)
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._conditions import value
from modsync_jax.sampling import box

DIFFUSIVITY = 0.4


def residual(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[2]`, (t, x)."""
    return {"pde": partials(u, x, {"t": 1.0, "xx": -DIFFUSIVITY})[0]}


def reference(points: np.ndarray) -> np.ndarray:
    """Returns the solution `[N, 1]` in float64 at points `[N, 2]`, (t, x)."""
    t, x = np.asarray(points, np.float64).T
    return (np.exp(-DIFFUSIVITY * np.pi**2 * t) * np.sin(np.pi * x))[:, None]


def problem() -> Problem:
    """Returns the problem, with as many points as in its source."""
    return Problem(
        name="heat",
        domain=box(t=(0, 1), x=(0, 1)),
        residual=residual,
        conditions={
            "initial": value("t=0", lambda x: jnp.sin(jnp.pi * x[1])),
            "left": value("x=0", 0.0),
            "right": value("x=1", 0.0),
        },
        points={"residual": 2540, "initial": 160, "left": 40, "right": 40},
        reference=reference,
        source="Lu et al. 2021 (DeepXDE), its example of the heat equation",
    )
