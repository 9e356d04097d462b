"""Poisson's equation in one dimension; the frequency of its solution can be chosen.

u'' = f on [0, 1],  u(0) = 0,  u(1) = sin C
u = sin(Cx),  C = 4π

The gradient of the residual's loss grows with the frequency C, and the gradient of the boundary's
loss does not. Wang, Teng & Perdikaris use this model to explain unbalanced gradients.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._conditions import value
from modsync_jax.problems._manufactured import manufactured
from modsync_jax.sampling import box


def operator(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's left side at a point `[1]`."""
    (u_xx,) = partials(u, x, "xx")
    return {"pde": u_xx}


def exact(x: Array, frequency: float | Array) -> Array:
    """Returns the solution `[1]` at a point `[1]`."""
    return jnp.sin(frequency * x)


def problem(frequency: float | Array = 4 * np.pi) -> Problem:
    """Returns the problem."""
    frequency = coefficient("frequency", frequency)
    solution = partial(exact, frequency=frequency)
    return manufactured(
        operator,
        solution,
        name="poisson1d",
        domain=box(x=(0, 1)),
        conditions={"left": value("x=0", 0.0), "right": value("x=1", solution)},
        points={"residual": 128, "left": 1, "right": 1},
        coefficients={"frequency": frequency},
        source="Wang, Teng & Perdikaris 2021; points of our own",
    )
