"""Confidence intervals of the unknown numbers of an inverse problem."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.flatten_util import ravel_pytree

from modsync_jax.problems import Problem, Unknown, labelled
from modsync_jax.training import _losses
from modsync_jax.training._config import TrainConfig

PyTree = Any
LARGEST = 5_000  # parameters: a matrix of n² numbers is 200 MB
TIMES = 4  # as many points of the equation and of the conditions as a step has
DAMPING = 1e-10  # of the trace of JᵀJ
QUANTILE = 1.959964  # of the normal distribution, for 95%


def of(
    problem: Problem, network: nn.Module, config: TrainConfig, params: PyTree
) -> dict[str, tuple[float, float]]:
    """Returns the 95% confidence intervals of the unknown numbers, by name.

    At the minimum of the weighted sum of squares, noise ε of the measurements moves the parameters
    by `A⁻¹ J_dᵀ ε`, with the Gauss-Newton matrix `A = JᵀJ + λI` of all residuals r, and J_d the
    rows of the measurements. This gives the standard deviation of an unknown. The noise is that
    which the data state, or else that of the misfit, `|r_d|² / (N - tr(J_d A⁻¹ J_dᵀ))`. The half
    width contains the Gauss-Newton step `|A⁻¹ Jᵀ r|` too: the training is as far from the minimum.

    So an interval is that of the network and the weights of the losses, for a solution that the
    network can represent. A bounded unknown has its interval within the bounds.

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
    # A weight of exactly zero is cut and does not move; unknowns may be zero.
    stays = {**params, "unknowns": jax.tree.map(jnp.ones_like, params["unknowns"])}
    free = np.flatnonzero(np.asarray(ravel_pytree(stays)[0]))
    residuals, jacobians = {}, {}
    for term, (r, j) in _rows(losses, params, batch).items():
        residuals[term] = np.asarray(r, np.float64)
        jacobians[term] = np.asarray(j, np.float64)[:, free]
    product = sum(j.T @ j for j in jacobians.values())
    product += DAMPING * np.trace(product) * np.eye(len(free))
    step = np.linalg.solve(product, sum(j.T @ residuals[term] for term, j in jacobians.items()))
    weights = {
        term: config.loss_weights.get(name, 1.0)
        for name, terms in problem.objective_terms(config.objectives).items()
        for term in terms
    }
    variance = np.zeros(len(free))
    for term, condition in problem.measured.items():
        of_data, rows = residuals[term], jacobians[term]
        moves = np.linalg.solve(product, rows.T)
        if condition.noise is not None:
            of_one = weights[term] / len(condition.points)
        else:
            left = max(len(rows) - float(np.sum(rows.T * moves)), 1.0)
            of_one = float(of_data @ of_data) / left
        variance += of_one * np.sum(moves**2, axis=1)
    half = QUANTILE * np.sqrt(variance) + np.abs(step)
    places = unravel(jnp.arange(x.size, dtype=x.dtype))["unknowns"]
    ends: dict[str, tuple[float, float]] = {}
    for name, unknown in numbers.items():
        z = np.asarray(params["unknowns"][name], np.float64)
        around = half[np.searchsorted(free, np.asarray(places[name], int))]
        two = np.sort([np.ravel(unknown.value(z + d, ())) for d in (-around, around)], axis=0)
        labels = labelled(name, z)
        ends |= dict(zip(labels, [(float(a), float(b)) for a, b in two.T], strict=True))
    return ends


def _rows(losses: _losses.Losses, params: PyTree, batch: Any) -> dict[str, tuple[Array, Array]]:
    """The residuals of each term and their derivatives by the n parameters, [M] and [M, n]."""

    def rows(params: PyTree) -> dict[str, tuple[Array, Array]]:
        return {term: losses.jacobian(params, {term: batch[term]}) for term in batch}

    return jax.jit(rows)(params)
