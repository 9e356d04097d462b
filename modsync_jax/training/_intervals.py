"""Confidence intervals of the unknown numbers of an inverse problem."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.flatten_util import ravel_pytree

from modsync_jax.problems import Problem, Unknown
from modsync_jax.training import _losses
from modsync_jax.training._config import TrainConfig

PyTree = Any
LARGEST = 5_000  # parameters: a matrix of n² numbers is 200 MB
TIMES = 4  # as many points of the equation and of the conditions as a step has
DAMPING = 1e-10  # of the trace of JᵀJ
QUANTILE = 1.959964  # of the normal distribution, for 95%
LAST = float(np.finfo(np.float64).max)  # the end of an interval without end


def of(
    problem: Problem, network: nn.Module, config: TrainConfig, params: PyTree
) -> dict[str, tuple[float, float]]:
    """Returns the 95% confidence intervals of the unknown numbers, by name.

    Laplace's approximation at the minimum of the weighted sum of squares: the covariance of the
    parameters is `s² A⁻¹`, with the Gauss-Newton matrix `A = JᵀJ + λI` of all residuals r. s² is
    the variance of a measurement's row, from the noise that the data state, or else from the
    misfit, `|r_d|² / (N - tr(J_d A⁻¹ J_dᵀ))`; of several sets of data the largest counts. So the
    equation and the conditions count as no more exact than the data, which makes intervals wide
    rather than narrow, and a coefficient that nothing determines has one without end. The half
    width contains the Gauss-Newton step `|A⁻¹ Jᵀ r|` too: the training is as far from the minimum.

    An interval is that of one minimum, and of a network that can represent the solution. A bounded
    unknown has its interval within the bounds.

    Args:
      problem: the problem.
      network: the network.
      config: the settings, with the weights of the losses.
      params: plain parameters.

    Returns:
      Lower and upper end for each number, `c[0]`, ... of a vector. Nothing, if the problem has no
      measurements or no unknown numbers, or if there are more than `LARGEST` parameters.
    """
    x, unravel = ravel_pytree(params)
    numbers = {name: u for name, u in problem.trained.items() if isinstance(u, Unknown)}
    if not numbers or not problem.measured or x.size > LARGEST:
        return {}
    losses = _losses.build(problem, network, config, lambda points: points)
    counts = {n: TIMES * count for n, count in {**problem.points, **config.points}.items()}
    counts |= {name: len(condition.points) for name, condition in problem.measured.items()}
    batch = problem.sample(jax.random.key(0), counts, config.sampler_name, x.dtype)
    # A weight of exactly zero is cut and does not move; unknowns may be zero, and have no damping.
    marks = {
        name: jax.tree.map(partial(jnp.full_like, fill_value=name == "unknowns"), tree)
        for name, tree in params.items()
    }
    of_unknown = np.asarray(ravel_pytree(marks)[0], bool)
    free = (np.asarray(x) != 0) | of_unknown
    residuals, jacobians = {}, {}
    for term, (r, j) in _rows(losses, params, batch).items():
        residuals[term] = np.asarray(r, np.float64)
        jacobians[term] = np.asarray(j, np.float64)[:, free]
    product = sum(j.T @ j for j in jacobians.values())
    damping = np.where(of_unknown[free], np.finfo(np.float64).eps, DAMPING)
    product += np.diag(damping * np.trace(product))
    inverse = np.linalg.inv(product)
    step = inverse @ sum(j.T @ residuals[term] for term, j in jacobians.items())

    def noise(term: str) -> float:
        """The variance of a row of measurements."""
        if problem.measured[term].noise is not None:
            return float(losses.scale(term, batch)) ** 2
        of_data, rows = residuals[term], jacobians[term]
        left = len(rows) - float(np.sum(rows @ inverse * rows))
        return float(of_data @ of_data) / max(left, 1.0)

    # Rounding may make the diagonal negative where nothing determines a number.
    variances = max(map(noise, problem.measured)) * np.abs(np.diagonal(inverse))
    half = np.zeros(x.size)
    half[free] = QUANTILE * np.sqrt(variances) + np.abs(step)
    around = unravel(jnp.asarray(half, x.dtype))["unknowns"]
    ends: dict[str, tuple[float, float]] = {}
    for name, sought in numbers.items():
        z = params["unknowns"][name]
        two = np.sort([sought.value(z - around[name], ()), sought.value(z + around[name], ())], 0)
        low, high = (sought.labelled(name, end) for end in np.clip(two, -LAST, LAST))
        ends |= {label: (float(low[label]), float(high[label])) for label in low}
    return ends


def _rows(losses: _losses.Losses, params: PyTree, batch: Any) -> dict[str, tuple[Array, Array]]:
    """The residuals of each term and their derivatives by the n parameters, [M] and [M, n]."""

    def rows(params: PyTree) -> dict[str, tuple[Array, Array]]:
        return {term: losses.jacobian(params, {term: batch[term]}) for term in batch}

    return jax.jit(rows)(params)
