"""The error of a solution, estimated without a reference."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from modsync_jax.problems import Problem
from modsync_jax.training._config import TrainConfig
from modsync_jax.training._losses import Losses
from modsync_jax.training._phases import Dense, GaussNewton

PyTree = Any
GROWTH = 1.5  # of the time of a run between two estimates
LARGEST = 5_000  # parameters: three matrices of n² numbers are 600 MB
RELIABILITY = "within a factor of three of the error on 11 of 15 problems"
TIMES = 4  # as many points as a step has
POINTS = 1_000  # at which the change of the solution is measured
DAMPING = 1e-10  # of the trace of JᵀJ


def possible(config: TrainConfig, params: PyTree) -> bool:
    """Whether parameters have an estimate: in float64, in a run that ends with n² numbers."""
    leaves = jax.tree.leaves(params)
    precise = all(leaf.dtype == jnp.float64 for leaf in leaves)
    settings = config.phases[-1].settings
    dense = isinstance(settings, Dense) or (isinstance(settings, GaussNewton) and not settings.cg)
    return dense and precise and sum(leaf.size for leaf in leaves) <= LARGEST


def build(problem: Problem, losses: Losses) -> Callable[[PyTree], Array]:
    """Returns `(plain parameters) -> estimate` of the relative L2 error, [].

    It is the change of the solution by one Gauss-Newton step on fresh points, `|U A⁻¹ Jᵀ r| / |u|`.
    r are the residuals of the equation and of all conditions, J [M, n] and U [points, n] are the
    derivatives of residuals and of the solution by the n parameters, and `A = JᵀJ + λI`. What no
    network of this size can represent, the estimate does not see.

    `benchmarks/estimate.py` compares it with others on 15 problems.

    Args:
      problem: the problem.
      losses: its losses without weights. With weights the worst estimate was 23 times too small,
        without them it is seven times too large.
    """

    def estimate(params: PyTree) -> Array:
        flat, unravel = ravel_pytree(params)
        batch = losses.sample(jax.random.key(0), TIMES, flat.dtype)
        points = problem.sample(jax.random.key(1), {"residual": POINTS}, "uniform", flat.dtype)

        def values(x: Array, flat: Array) -> Array:
            u, unknowns = losses.fields(unravel(flat))
            return problem.observed(u, unknowns, x[None])[0]

        residuals, jacobian = losses.jacobian(params, batch)
        product = jacobian.T @ jacobian
        damping = DAMPING * jnp.trace(product)
        step = jax.scipy.linalg.solve(
            product + damping * jnp.eye(flat.size, dtype=flat.dtype),
            jacobian.T @ residuals,
            assume_a="pos",
        )

        def change(x: Array) -> tuple[Array, Array]:
            return jax.jvp(partial(values, x), (flat,), (step,))

        found, changes = jax.vmap(change)(points["residual"])
        return jnp.linalg.norm(changes) / jnp.linalg.norm(found)

    return estimate
