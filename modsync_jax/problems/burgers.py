"""Viscous Burgers equation, with a shock at x = 0 as thin as the viscosity.

u_t + u u_x = ν u_xx,  ν = 0.01/π,  t in [0, 1],  x in [-1, 1]
u(0, x) = -sin(πx),  u(t, -1) = u(t, 1) = 0
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

# Converged to rounding for viscosities from 0.001 to 0.1, to 1e-8 at 1; 100 nodes are too few.
NODES = 200


def residual(u: Field, x: Array, viscosity: float | Array) -> dict[str, Array]:
    """Returns the equation's residual at a point `[2]`, (t, x)."""
    values, u_x, linear = partials(u, x, "", "x", {"t": 1.0, "xx": -viscosity})
    return {"pde": linear + values * u_x}


def reference(points: np.ndarray, viscosity: float | Array) -> np.ndarray:
    """Returns the solution `[N, 1]` in float64 at points `[N, 2]`, (t, x).

    The Cole-Hopf transformation gives a quotient of two integrals against a heat kernel (Basdevant
    et al. 1986). They are computed by Gauss-Hermite quadrature in z, with y = x - 2 z √(νt):

        u(t, x) = -∫ sin(πy) F(y) exp(-z²) dz / ∫ F(y) exp(-z²) dz,   F(y) = exp(-cos(πy) / 2πν)
    """
    # In chunks, because the quadrature needs [N, NODES].
    chunks = np.array_split(np.asarray(points, np.float64), 1 + len(points) // 4096)
    return np.concatenate([_cole_hopf(chunk, viscosity) for chunk in chunks])


def _cole_hopf(points: np.ndarray, viscosity: float | Array) -> np.ndarray:
    nodes, weights = np.polynomial.hermite.hermgauss(NODES)
    t, x = points[:, :1], points[:, 1:]
    y = x - 2 * np.sqrt(viscosity * t) * nodes
    exponents = np.log(weights) - np.cos(np.pi * y) / (2 * np.pi * viscosity)
    kernel = np.exp(exponents - np.max(exponents, axis=1, keepdims=True))
    kernel /= np.sum(kernel, axis=1, keepdims=True)
    return -np.sum(np.sin(np.pi * y) * kernel, axis=1, keepdims=True)


def problem(viscosity: float | Array = 0.01 / np.pi) -> Problem:
    """Returns the problem, with the points of the published DCGD runs (Hwang & Lim 2024).

    Raises:
      ValueError: a viscosity outside [0.001, 1].
    """
    viscosity = coefficient("viscosity", viscosity, 0.001, 1)
    return Problem(
        name="burgers",
        domain=box(t=(0, 1), x=(-1, 1)),
        residual=partial(residual, viscosity=viscosity),
        conditions={
            "initial": value("t=0", lambda x: -jnp.sin(jnp.pi * x[1])),
            "left": value("x=-1", 0.0),
            "right": value("x=1", 0.0),
        },
        points={"residual": 1280, "initial": 42, "left": 42, "right": 42},
        reference=partial(reference, viscosity=viscosity),
        coefficients={"viscosity": viscosity},
        sampler="latin-hypercube",
        source="Basdevant et al. 1986; settings of Hwang & Lim 2024 (DCGD)",
    )
