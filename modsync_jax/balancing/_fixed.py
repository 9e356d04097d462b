"""Fixed loss weights."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from modsync_jax.balancing import _base


def fixed(weights: ArrayLike) -> optax.GradientTransformationExtraArgs:
    """Multiplies gradient k by `weights[k]`, in the sorted order of the objectives' names.

    Args:
      weights: [K].

    Raises:
      ValueError: when the weights are not one row of numbers.
    """
    given = jnp.asarray(weights)
    if given.ndim != 1:
        raise ValueError(f"weights has shape {given.shape}; give one number for each objective")
    return _base.from_rule(
        lambda now: (now.loss_weights, ()),
        len(given),
        start=lambda ones: (ones * given.astype(ones.dtype), ()),
    )
