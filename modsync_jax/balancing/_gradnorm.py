"""GradNorm: loss weights that make gradient norms follow training rates."""

import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax._ranges import check_range
from modsync_jax.balancing import _base
from modsync_jax.balancing._base import Given


def gradnorm(
    objectives: _base.Names,
    *,
    alpha: float | Array = 1.5,
    optimizer: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Trains the loss weights so that losses that fall slowly get large gradients.

    With norms `n_k`, `G_k = λ_k n_k` and the inverse training rates `r_k = (L_k / L_k(0)) / mean_j
    (L_j / L_j(0))`, the weights descend `sum_k |G_k - mean_j G_j r_k^alpha|`, the second term held
    constant, and are scaled back to the sum K. They are kept above 1e-3. Norms are those of all
    parameters: a PINN has no layer of its own for an objective.

    Args:
      objectives: K, or the objectives' names.
      alpha: how strongly rates are evened out; not negative.
      optimizer: moves the weights; `optax.adam(0.025)` if None.

    Raises:
      ValueError: on a negative alpha and, when traced, on missing `losses`.

    References:
      Chen, Badrinarayanan, Lee and Rabinovich, GradNorm, ICML 2018, Eq. 2 and Algorithm 1.
    """
    check_range("alpha", alpha, 0.0)
    tx = optimizer or optax.adam(0.025)

    def rule(now: Given) -> tuple[Array, tuple]:
        losses, n, old = now.extra["losses"], _base.norms(now.grads), now.loss_weights
        initial, state = now.memory
        initial = jnp.where(now.first, losses, initial).astype(old.dtype)
        rates = _base.quotient(losses, initial, jnp.ones_like(old))
        rates = _base.quotient(rates, rates.mean(), jnp.ones_like(old))
        target = (old * n).mean() * rates**alpha
        slopes = (jnp.sign(old * n - target) * n).astype(old.dtype)
        moves, state = tx.update(slopes, state, old)
        new = jnp.maximum(old + moves, 1e-3)
        return new * (len(new) / new.sum()), (initial, state)

    return _base.from_rule(
        rule,
        objectives,
        needs=("losses",),
        start=lambda ones: (ones, (jnp.zeros_like(ones), tx.init(ones))),
    )
