"""DualProj: the mean gradient, projected on the dual cone."""

import optax
from jax import Array

from modsync_jax.aggregators import _base, _cosines, _faces


def dual_proj_weights(gramian: Array) -> Array:
    """Weights of DualProj: the direction nearest to the mean gradient that conflicts with none.

    `w = argmin {vᵀ G v : v >= 1/K}`. The difference `w - 1/K` is computed in units of the longest
    gradient.

    Args:
      gramian: `[K, K]`, K up to 12; cost and accuracy as in `_faces`.

    Returns:
      `[K]`.

    References:
      Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning, NeurIPS 2017, Eq. 11;
      the name is that of Quinton and Rey, arXiv:2406.16232.
    """
    c, n = _cosines.cosines(gramian)
    mean = n * _cosines.reciprocal(n.max()) / len(n)
    added = _faces.minimize(_faces.faces(c), c, -_cosines.times(c, mean))
    return 1.0 / len(n) + n.max() * added * _cosines.reciprocal(n)


def dual_proj(*, groups: _base.Groups = None) -> optax.GradientTransformationExtraArgs:
    """DualProj as a transformation of stacked gradients; see `dual_proj_weights` for the formula.

    Args:
      groups: parameters that are aggregated separately, as in `from_weights`.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = dual_proj()
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[2.0, 0.0], [-4.0, 2.0]])
      >>> update, _ = tx.update(grads, tx.init(params), params)
      >>> print([round(x, 3) for x in update.tolist()])
      [0.0, 1.0]
    """
    return _base.from_weights(dual_proj_weights, groups=groups)
