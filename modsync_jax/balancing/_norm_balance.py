"""Balance of gradient norms."""

import optax
from jax import Array

from modsync_jax._ranges import check_range
from modsync_jax.balancing import _base
from modsync_jax.balancing._base import Given


def norm_balance(
    objectives: _base.Names, *, decay: float | Array = 0.9, every: int = 100
) -> optax.GradientTransformationExtraArgs:
    """Gives all gradients one length, that of their mean.

    `λ_k <- decay λ_k + (1 - decay) mean_j n_j / n_k`, n_k the norm of gradient k; the weight of a
    zero gradient stays. The source has the sum in place of the mean, a factor K.

    Args:
      objectives: K, or the objectives' names.
      decay: share of the old value, in [0, 1].
      every: updates between new values.

    Raises:
      ValueError: on a hyperparameter out of range.

    References:
      Wang, Sankaran, Wang and Perdikaris, An Expert's Guide to Training Physics-informed Neural
      Networks, arXiv:2308.08468, Algorithm 1.
    """
    check_range("decay", decay, 0.0, 1.0)

    def rule(now: Given) -> tuple[Array, tuple]:
        n, old = _base.norms(now.grads), now.loss_weights
        new = decay * old + (1 - decay) * _base.quotient(n.mean(), n, old)
        return new.astype(old.dtype), ()

    return _base.from_rule(rule, objectives, every=every)
