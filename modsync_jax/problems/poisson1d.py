"""Poisson's equation in one dimension, whose solution is as fast as one likes.

u'' = f on [0, 1],  u(0) = 0,  u(1) = sin C
u = sin(Cx)

The gradient of the residual's loss grows with the frequency C, that of the boundary's does not: the
model by which Wang, Teng & Perdikaris explain why gradients become unbalanced. C is an argument:

    fast = poisson1d.problem(frequency=100.0)

in Python, and in a file for the command line, `--problem=my_problem.py:fast`.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems._base import Problem
from modsync_jax.problems._conditions import value
from modsync_jax.problems._manufactured import manufactured
from modsync_jax.sampling import box

FREQUENCY = 4 * np.pi  # two waves


def operator(u: Field, x: Array) -> dict[str, Array]:
    """Returns the equation's left side at a point `[1]`."""
    (u_xx,) = partials(u, x, "xx")
    return {"pde": u_xx}


def problem(frequency: float = FREQUENCY) -> Problem:
    """Returns the problem, at the frequency C of its solution; others than 4π are in its name."""

    def exact(x: Array) -> Array:
        return jnp.sin(frequency * x)

    return manufactured(
        operator,
        exact,
        name="poisson1d" if frequency == FREQUENCY else f"poisson1d_{frequency:.6g}",
        domain=box(x=(0, 1)),
        conditions={"left": value("x=0", 0.0), "right": value("x=1", exact)},
        points={"residual": 128, "left": 1, "right": 1},
        source="Wang, Teng & Perdikaris 2021; points of our own",
    )
