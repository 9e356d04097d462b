"""PCGrad: gradient surgery."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax.aggregators import _base, _cosines


def pcgrad_weights(gramian: Array, *, key: Array | None) -> Array:
    """Weights of PCGrad: the sum of the gradients, each without its conflicts.

    For each g_i, one g_j after the other is compared with the current remainder of g_i. If the two
    conflict, the remainder loses its component along g_j. The method runs about K small kernels.

    Args:
      gramian: `[K, K]`.
      key: PRNG key for the order of the j, which is drawn for each i; None keeps the order of the
        objectives. For K = 2 there is one order.

    Returns:
      `[K]`.

    References:
      Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, Algorithm 1.
    """
    c, n = _cosines.cosines(gramian)
    rows = jnp.arange(len(n))
    order = jnp.broadcast_to(rows, c.shape)
    if key is not None:
        order = jax.random.permutation(key, order, axis=1, independent=True)
    left = jnp.eye(len(n), dtype=c.dtype)  # row i: the remainder of u_i, in terms of unit gradients
    for j in order.T:
        along = (left * c[j]).sum(1)  # <u_j, remainder of u_i>
        conflict = jnp.where(j == rows, 0.0, jnp.minimum(along, 0.0))
        left = left - conflict[:, None] * (j[:, None] == rows)
    return _cosines.times(left.T, n) * _cosines.reciprocal(n)


def pcgrad(
    order: Literal["random", "fixed"] = "random",
    *,
    key: Array | None = None,
    groups: _base.Groups = None,
) -> optax.GradientTransformationExtraArgs:
    """PCGrad as a transformation of stacked gradients; see `pcgrad_weights` for the formula.

    Args:
      order: the order in which a gradient meets the others: `"random"`, drawn anew every update, or
        `"fixed"`, the order of the objectives.
      key: PRNG key of the random order, `jax.random.key(0)` if None. The extra argument `key` of
        `update` replaces it.
      groups: parameters that are aggregated separately, as in `from_weights`.

    Raises:
      ValueError: on an unknown order.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = pcgrad()
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[2.0, 0.0], [-2.0, 2.0]])
      >>> update, _ = tx.update(grads, tx.init(params), params)
      >>> print([round(x, 3) for x in update.tolist()])
      [1.0, 3.0]
    """
    if order not in ("random", "fixed"):
        raise ValueError(f"unknown order {order!r} of pcgrad; it is 'random' or 'fixed'")
    if order == "fixed":
        return _base.from_weights(functools.partial(pcgrad_weights, key=None), groups=groups)
    return _base.from_weights(
        pcgrad_weights, groups=groups, key=jax.random.key(0) if key is None else key
    )
