"""Dual cone gradient descent."""

import functools
from typing import Literal

import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax.aggregators import _base, _cosines, _partition

Variant = Literal["center", "avg", "proj"]


def dcgd_weights(gramian: Array, variant: Variant = "center") -> Array:
    """Weights of dual cone gradient descent.

    With norms n_k, unit gradients u_k and g_c = sum_k u_k, `"center"` is the projection of the
    summed gradient on g_c. `"avg"` and `"proj"` keep the sum unless it conflicts with one of two
    gradients; then they average, or take one of, the two projections on the dual cone's faces.
    Opposed gradients give zero.

    Args:
      gramian: `[K, K]`; K = 2 for `"avg"` and `"proj"`.
      variant: `"center"`, `"avg"` or `"proj"`.

    Returns:
      `[K]`.

    Raises:
      ValueError: when `"avg"` or `"proj"` meets K other than 2.

    References:
      Hwang and Lim, Dual Cone Gradient Descent for Training Physics-Informed Neural Networks,
      NeurIPS 2024; ModSync, arXiv:2606.20156, Eq. 5.
    """
    c, n = _cosines.cosines(gramian)
    if variant == "center":
        # <g_c, sum_k g_k> / ||g_c||^2. For two gradients both sides hold 1 + cos, which cancels.
        if len(n) == 2:
            length = jnp.where(jnp.all(n > 0), 0.5, 1.0) * n.sum()
        else:
            squared = c.sum()
            singular = squared <= _cosines.cutoff(c)
            length = jnp.where(singular, 0.0, (c @ n).sum() / jnp.where(singular, 1.0, squared))
        return length * _cosines.reciprocal(n)
    if len(n) != 2:
        raise ValueError(
            f"dcgd(variant={variant!r}) is defined for two objectives, not {len(n)}; use "
            "variant='center', or sum them into two groups, as in partition=((0, 1), (2,))"
        )
    # Share of each gradient that stays after its part along the other one is taken away:
    # g_i - (G_ij / G_jj) g_j, so the other one's weight is -G_ij / G_jj = -cos n_i / n_j.
    removed = -c[0, 1] * n[::-1] * _cosines.reciprocal(n)
    conflicts = n + c[0, 1] * n[::-1] < 0
    if variant == "avg":
        return jnp.where(conflicts.any(), 0.5 * (1.0 + removed), 1.0)
    return jnp.where(conflicts, removed, 1.0)  # the sum can't conflict with both


def dcgd(
    variant: Variant = "center",
    *,
    partition: _partition.Partition | None = None,
    groups: _base.Groups = None,
) -> optax.GradientTransformationExtraArgs:
    """Dual cone gradient descent as a transformation of stacked gradients.

    For K = 2, `"center"` is the same update as `config()`; see `dcgd_weights` for the formulas.

    Args:
      variant: `"center"` (any K), `"avg"` or `"proj"` (K = 2, or two groups of objectives).
      partition: groups of objectives whose gradients are summed first, as index tuples: the
        authors take the residuals against all conditions, such as `((0, 1, 2), (3,))`. Objectives
        are numbered by sorted name.
      groups: parameters that are aggregated apart, as in `from_weights`.

    Raises:
      ValueError: on an unknown variant and, when traced, on a `partition` that does not hold each
        index once, or other than two gradients for `"avg"` and `"proj"`.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = dcgd()
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> print(tx.update(grads, tx.init(params), params)[0])
      [1. 1.]
    """
    if variant not in ("center", "avg", "proj"):
        raise ValueError(f"unknown variant {variant!r} of dcgd; it is 'center', 'avg' or 'proj'")
    weights: _base.Weighting = functools.partial(dcgd_weights, variant=variant)
    if partition is not None:
        weights = _partition.of_sums(weights, partition)
    return _base.from_weights(weights, groups=groups)
