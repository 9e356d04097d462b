"""Fast convection, on which plain PINNs fail: they find the mean instead of the wave.

u_t + β u_x = 0,  β = 30,  t in [0, 1],  x in [0, 2π]
u(0, x) = sin x,  u periodic in x
u = sin(x - βt)
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


def residual(u: Field, x: Array, speed: float | Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[2]`, (t, x)."""
    return {"pde": partials(u, x, {"t": 1.0, "x": speed})[0]}


def reference(points: np.ndarray, speed: float | Array) -> np.ndarray:
    """Returns the solution `[N, 1]` in float64 at points `[N, 2]`, (t, x)."""
    t, x = np.asarray(points, np.float64).T
    return np.sin(x - speed * t)[:, None]


def problem(speed: float | Array = 30.0) -> Problem:
    """Returns the problem, with as many points as its source, which does not redraw them."""
    speed = coefficient("speed", speed)
    return Problem(
        name="convection",
        domain=box(t=(0, 1), x=(0, 2 * np.pi)),
        residual=partial(residual, speed=speed),
        conditions={
            "initial": value("t=0", lambda x: jnp.sin(x[1])),
            "periodic": periodic("x=0", order=0),
        },
        points={"residual": 1000, "initial": 256, "periodic": 100},
        reference=partial(reference, speed=speed),
        coefficients={"speed": speed},
        source="Krishnapriyan et al. 2021",
    )
