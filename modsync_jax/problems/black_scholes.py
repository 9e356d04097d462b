"""Black-Scholes equation for an option on many assets.

u_t + σ²/2 Σ x_i² u_ii + r (Σ x_i u_i - u) = 0,  σ = 0.4,  r = 0.05,  t in [0, 1],  x in [0, 1]^d
u(1, x) = |x|²/d,  u given on the boundary
u = exp((r + σ²)(1 - t)) |x|²/d
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._cube import on_cube


def exact(x: Array, volatility: float | Array, rate: float | Array) -> Array:
    """Returns the solution `[1]` at a point `[1 + d]`, (t, x1, ..., xd)."""
    growth = jnp.exp((rate + volatility**2) * (1 - x[:1]))
    return growth * jnp.mean(x[1:] ** 2)


def residual(
    u: Field, x: Array, volatility: float | Array, rate: float | Array
) -> dict[str, Array]:
    """Returns the equation's residual at a point `[1 + d]`, (t, x1, ..., xd)."""
    prices = dict(zip(u.coordinates[1:], x[1:], strict=True))
    drift = {name: rate * price for name, price in prices.items()}
    diffusion = {2 * name: volatility**2 / 2 * price**2 for name, price in prices.items()}
    return {"pde": partials(u, x, {"t": 1.0, "": -rate, **drift, **diffusion})[0]}


def problem(
    dimension: int = 10, volatility: float | Array = 0.4, rate: float | Array = 0.05
) -> Problem:
    """Returns the problem in d dimensions.

    Raises:
      ValueError: a dimension as in `on_cube`, or a negative volatility.
    """
    numbers: dict[str, Any] = {
        "volatility": coefficient("volatility", volatility, 0),
        "rate": coefficient("rate", rate),
    }
    return on_cube(
        dimension,
        (0, 1),
        partial(exact, **numbers),
        given={"end": "t=1"},
        name="black_scholes",
        residual=partial(residual, **numbers),
        coefficients=numbers,
        source="Raissi 2018 (arXiv:1804.07010), its Black-Scholes-Barenblatt equation, over d",
    )
