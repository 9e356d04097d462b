"""Hamilton-Jacobi-Bellman equation of a controlled diffusion in many dimensions.

u_t + Δu - |∇u|² = 0,  t in [0, 1],  x in [0, 1]^d
u(1, x) = ln((1 + |x|²)/2),  u given on the boundary
u = -ln E[2 / (1 + |x + √2 W|²)],  W a Brownian motion after the time 1 - t

The expectation is 2 ∫ exp(-s - s|x|²/q) q^(-d/2) ds over s > 0, q = 1 + 4(1 - t)s: 1/y is the
integral of exp(-sy), and squared lengths of Gaussian vectors have this Laplace transform.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._cube import on_cube

# s = exp(y): the trapezoidal rule for analytic functions that decay on both sides converges
# geometrically. With this step it is converged to rounding for d up to 1000.
_STEP = 0.125
_LOGS = np.arange(-40.0, 5.0, _STEP)


def exact(x: Array) -> Array:
    """Returns the solution `[1]` at a point `[1 + d]`, (t, x1, ..., xd)."""
    s = jnp.asarray(np.exp(_LOGS), x.dtype)
    spread = 4 * jnp.maximum(1 - x[0], 0) * s
    logs = jnp.asarray(_LOGS, x.dtype) - s * (1 + jnp.sum(x[1:] ** 2) / (1 + spread))
    logs = logs - (len(x) - 1) / 2 * jnp.log1p(spread)
    return -jax.nn.logsumexp(logs, keepdims=True) - math.log(2 * _STEP)


def residual(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[1 + d]`, (t, x1, ..., xd)."""
    names = u.coordinates[1:]
    diffusion = dict.fromkeys((2 * name for name in names), 1.0)
    change, *slopes = partials(u, x, {"t": 1.0} | diffusion, *names)
    return {"pde": change - jnp.sum(jnp.stack(slopes) ** 2, axis=0)}


def problem(dimension: int = 10) -> Problem:
    """Returns the problem in d dimensions; errors as in `on_cube`."""
    return on_cube(
        dimension,
        (0, 1),
        exact,
        given={"end": "t=1"},
        name="hamilton_jacobi_bellman",
        residual=residual,
        source="E, Han & Jentzen 2017; domain as Wang, Li, He & Wang 2022",
    )
