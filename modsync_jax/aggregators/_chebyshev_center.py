"""The Chebyshev center of the dual cone."""

import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax.aggregators import _base, _cosines, _dcgd, _faces


def chebyshev_center_weights(gramian: Array) -> Array:
    """Weights of the Chebyshev center: the unit direction d that maximises `min_k <d, u_k>`.

    With unit gradients u_k, that is the direction of the point nearest to the origin in their
    convex hull. The length is the sum of projections, `sum_k <g_k, d>`. Zero gradients are left
    out. If the origin is in the hull, up to a squared distance of 8 K eps, the update is zero.

    For K = 2 the update is that of `dcgd_weights` and ConFIG, in closed form. For K > 2 it never
    conflicts, while theirs may when gradients are dependent.

    Args:
      gramian: `[K, K]`, K up to 12; cost and accuracy as in `_faces`.

    Returns:
      `[K]`.

    References:
      Yoon, Bae, Ho-Nguyen and Lee, Chebyshev Center-Based Direction Selection for Multi-Objective
      Optimization and Training PINNs, arXiv:2605.09975.
    """
    if gramian.shape[0] == 2:
        return _dcgd.dcgd_weights(gramian)
    c, n = _cosines.cosines(gramian)
    x = _faces.nearest_to_origin(c, jnp.where(n > 0, 1.0, 0.0).astype(c.dtype))
    projections = _cosines.times(c, x)  # <u_k, d> before d is normalised
    squared = (x * projections).sum()
    squared = jnp.where(squared > _cosines.cutoff(c), squared, 0.0)
    return (n * projections).sum() * _cosines.reciprocal(squared) * x * _cosines.reciprocal(n)


def chebyshev_center(*, groups: _base.Groups = None) -> optax.GradientTransformationExtraArgs:
    """The Chebyshev center as a transformation of stacked gradients.

    See `chebyshev_center_weights` for the formula.

    Args:
      groups: parameters that are aggregated separately, as in `from_weights`.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = chebyshev_center()
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> print(tx.update(grads, tx.init(params), params)[0])
      [1. 1.]
    """
    return _base.from_weights(chebyshev_center_weights, groups=groups)
