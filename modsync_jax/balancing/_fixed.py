"""Fixed loss weights."""

from collections.abc import Mapping

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from modsync_jax.balancing import _base


def fixed(weights: Mapping[str, float] | ArrayLike) -> optax.GradientTransformationExtraArgs:
    """Multiplies gradient k by its weight.

    Args:
      weights: a number for each objective by name, or [K] in the sorted order of names.

    Raises:
      ValueError: when the weights are not one row of numbers.
    """
    if isinstance(weights, Mapping):
        given = jnp.array([weights[name] for name in sorted(weights)])
    else:
        given = jnp.asarray(weights)
    if given.ndim != 1:
        raise ValueError(f"weights has shape {given.shape}; give one number for each objective")
    return _base.from_rule(
        lambda now: (now.loss_weights, ()),
        len(given),
        start=lambda ones: (ones * given.astype(ones.dtype), ()),
    )
