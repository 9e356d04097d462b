"""Sum and mean of the gradients, as in training on the summed or the mean loss."""

import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax.aggregators import _base


def sum_weights(gramian: Array) -> Array:
    """Weights `w_k = 1`. `gramian` [K, K] -> [K]."""
    return jnp.ones(gramian.shape[0], gramian.dtype)


def mean_weights(gramian: Array) -> Array:
    """Weights `w_k = 1 / K`. `gramian` [K, K] -> [K]."""
    return sum_weights(gramian) / gramian.shape[0]


def sum() -> optax.GradientTransformationExtraArgs:
    """The gradient of the summed losses, `sum_k g_k`. The Gramian is not computed under `jit`."""
    return _base.from_weights(sum_weights)


def mean() -> optax.GradientTransformationExtraArgs:
    """The gradient of the mean loss, `1/K sum_k g_k`. The Gramian is not computed under `jit`."""
    return _base.from_weights(mean_weights)
