"""MGDA: the multiple-gradient descent algorithm."""

import optax
from jax import Array

from modsync_jax.aggregators import _base, _cosines, _faces


def mgda_weights(gramian: Array) -> Array:
    """Weights of MGDA: not negative, of sum 1, and of the smallest `||sum_k w_k g_k||`.

    The update never conflicts, and it is never longer than the shortest gradient; its error is
    relative to that length. It is zero at Pareto-stationary points, so also where any gradient is
    zero: if one objective does not depend on a group of parameters, the group never moves.

    Args:
      gramian: `[K, K]`, K up to 12; cost and accuracy as in `_faces`.

    Returns:
      `[K]`.

    References:
      Désidéri, Multiple-gradient descent algorithm (MGDA) for multiobjective optimization, Comptes
      Rendus Mathématique 350, 2012.
    """
    c, n = _cosines.cosines(gramian)
    # In units of the shortest gradient, with weights x_k for unit gradients.
    share = _faces.smallest_over(n)
    return share * _faces.nearest_to_origin(c, share)


def mgda(*, groups: _base.Groups = None) -> optax.GradientTransformationExtraArgs:
    """MGDA as a transformation of stacked gradients; see `mgda_weights` for the formula.

    Args:
      groups: parameters that are aggregated separately, as in `from_weights`.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = mgda()
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[2.0, 0.0], [0.0, 2.0]])
      >>> update, _ = tx.update(grads, tx.init(params), params)
      >>> print([round(x, 3) for x in update.tolist()])
      [1.0, 1.0]
    """
    return _base.from_weights(mgda_weights, groups=groups)
