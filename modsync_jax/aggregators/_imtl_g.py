"""IMTL-G: impartial multi-task learning by gradients."""

import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax.aggregators import _base, _config, _cosines


def imtl_g_weights(gramian: Array) -> Array:
    """Weights of IMTL-G: of sum 1, with equal projections of the update on all unit gradients.

    `w = v / sum v` with `v_k = a_k / n_k`, a = C⁺ 1 as in `config_weights`. For independent
    gradients this is the paper's `v = G⁺ diag(G)^½`. For dependent ones the direction is still
    ConFIG's. K = 2 gives `w ∝ 1 / n`. Zero gradients are left out.

    Weights may be negative. When `sum v < 0` the paper's update is opposite to ConFIG's and raises
    the losses. Near `sum v = 0` it is long, and where `|sum v|` is below `8 K eps sum |v|` it is
    set to zero.

    Args:
      gramian: `[K, K]`.

    Returns:
      `[K]`.

    References:
      Liu et al., Towards Impartial Multi-task Learning, ICLR 2021, Eq. 6.
    """
    c, n = _cosines.cosines(gramian)
    inverse = _cosines.reciprocal(n)
    v = inverse if len(n) == 2 else _config.equal_cosines(c)[0] * inverse
    v = v * _cosines.reciprocal(jnp.abs(v).max())  # squares of sums up to 1e15 are safe
    total = jnp.where(jnp.abs(v.sum()) > _cosines.cutoff(c) * jnp.abs(v).sum(), v.sum(), 0.0)
    return v * _cosines.reciprocal(total)


def imtl_g(*, groups: _base.Groups = None) -> optax.GradientTransformationExtraArgs:
    """IMTL-G as a transformation of stacked gradients; see `imtl_g_weights` for the formula.

    Args:
      groups: parameters that are aggregated separately, as in `from_weights`.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = imtl_g()
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> print(tx.update(grads, tx.init(params), params)[0])
      [0.75 0.75]
    """
    return _base.from_weights(imtl_g_weights, groups=groups)
