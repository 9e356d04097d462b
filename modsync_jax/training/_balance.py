"""Weights that put the objectives on one scale before the first step.

Second-order phases can't follow weights that change, so these are found once, at random networks.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from modsync_jax.problems import RESIDUAL, Problem, term_of
from modsync_jax.training import _losses, _step
from modsync_jax.training._config import ConfigError, TrainConfig

_NETWORKS = 8  # the ratio of traces differs between random networks by a factor of two or three
_POINTS = 128  # of a term, at most


def factors(problem: Problem, network: nn.Module, config: TrainConfig) -> dict[str, float]:
    """Returns the factors of the objectives' weights that `config.balance` asks for.

    With `w_k = balance · tr K_r / tr K_k`, objective k outweighs the residual in the trace of the
    tangent kernel `balance` times; equations that are objectives count together as the residual. A
    trace is that of `J Jᵀ` over the number of points, with the
    Jacobian J of a term's residuals, summed over the terms of an objective. The ratio is the
    geometric mean over random networks, the same ones for each seed.

    Args:
      problem: the problem; its coefficients must be numbers.
      network: the network.
      config: the settings.

    Returns:
      A factor for each objective but `residual`; none at all if `balance` is 0.

    Raises:
      ConfigError: if no trace tells the scale of an objective, because it is zero or not finite.

    References:
      Wang, Yu & Perdikaris 2022, "When and why PINNs fail to train", who take such weights during
      first-order training.
    """
    if not config.balance:
        return {}
    config = dataclasses.replace(config, method="sum", loss_weights={})
    losses = _losses.build(problem, network, config, lambda points: points)
    points = {**problem.points, **config.points}
    counts = {name: min(n, _POINTS) for name, n in points.items()}
    dtype = jnp.dtype(config.dtype)

    def traces(key: Array) -> Array:
        batch = problem.sample(key, counts, config.sampler_name, dtype)
        run = jax.random.key(jax.random.bits(key))
        return losses.traces(_step.random_params(problem, network, run, dtype), batch, False)

    means = jax.jit(lambda keys: jnp.log(jax.lax.map(traces, keys)).mean(0))
    found = means(jax.random.split(jax.random.key(0), _NETWORKS))
    logs = dict(zip(losses.names, found, strict=True))
    of_equations = [logs.pop(name) for name in losses.names if term_of(name) == RESIDUAL]
    scale = functools.reduce(jnp.logaddexp, of_equations)
    for name, log in logs.items():
        if not jnp.isfinite(scale - log):
            raise ConfigError(
                f"balance={config.balance:g} needs gradients of the residual and of {name!r} at "
                "random networks, but one of them is zero or not finite; set loss_weights by hand "
                "instead"
            )
    return {name: config.balance * float(jnp.exp(scale - log)) for name, log in logs.items()}


def weighed(config: TrainConfig, found: Mapping[str, float]) -> TrainConfig:
    """Returns the configuration with loss weights times `factors`."""
    return config.with_numbers(
        {f"loss_weights.{k}": config.loss_weights.get(k, 1.0) * v for k, v in found.items()}
    )
