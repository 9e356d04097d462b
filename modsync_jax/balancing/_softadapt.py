"""SoftAdapt: loss weights by the losses' rates of change."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax.balancing import _base
from modsync_jax.balancing._base import Given


def softadapt(
    objectives: _base.Names,
    *,
    beta: float | Array = 0.1,
    loss_weighted: bool = False,
    normalized: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Gives more weight to losses that rise, or fall least: `λ = softmax(beta s)`.

    `s_k = L_k(t) - L_k(t-1)`; weights sum to 1 and start at 1 / K.

    Args:
      objectives: K, or the objectives' names.
      beta: positive favours the losses that do worst, negative those that do best.
      loss_weighted: multiplies the exponentials by the losses before they are normalised.
      normalized: divides s by `sum_j |s_j|` first.

    Raises:
      ValueError: when traced, on missing `losses`.

    References:
      Heydari, Thompson and Mehmood, SoftAdapt, arXiv:1912.12355, Eq. 5 and Section 3.
    """

    def rule(now: Given) -> tuple[Array, tuple]:
        losses, old = now.extra["losses"].astype(now.loss_weights.dtype), now.loss_weights
        rates = losses - now.memory
        if normalized:
            rates = _base.quotient(rates, jnp.abs(rates).sum(), jnp.zeros_like(rates))
        new = jax.nn.softmax(beta * rates)
        if loss_weighted:
            new = _base.quotient(new * losses, (new * losses).sum(), old)
        return jnp.where(now.first, old, new).astype(old.dtype), losses

    return _base.from_rule(
        rule,
        objectives,
        needs=("losses",),
        start=lambda ones: (ones / len(ones), jnp.zeros_like(ones)),
    )
