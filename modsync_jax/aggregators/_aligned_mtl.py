"""Aligned-MTL: independent component alignment."""

import functools
from typing import Literal

import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax.aggregators import _base, _cosines

Scale = Literal["min", "median", "rmse"]


def aligned_mtl_weights(gramian: Array, scale: Scale = "min") -> Array:
    """Weights of Aligned-MTL: the mean of the nearest gradients with condition number 1.

    With `G = V Λ Vᵀ`, `w = σ V Λ^-½ Vᵀ 1/K` over the nonzero spectrum: eigenvalues up to 8 K eps of
    the largest one count as zero. σ² is the smallest of the nonzero eigenvalues, their (lower)
    median or their mean. The spectrum is that of the raw gradients. A gradient whose norm is below
    √(8 K eps) of the largest (0.002 in float32, 7e-8 in float64 at K = 4) therefore counts as zero
    and has no influence.

    Args:
      gramian: `[K, K]`.
      scale: `"min"`, `"median"` or `"rmse"`.

    Returns:
      `[K]`.

    References:
      Senushkin et al., Independent Component Alignment for Multi-Task Learning, CVPR 2023,
      Algorithm 1; the scales are those of the authors' code.
    """
    c, n = _cosines.cosines(gramian)
    n = n * _cosines.reciprocal(n.max())
    values, vectors = jnp.linalg.eigh(n[:, None] * c * n)
    kept = values > _cosines.cutoff(c) * values[-1]
    rank = kept.sum()
    first = len(n) - rank  # eigenvalues ascend, so the kept ones are the last
    if scale == "rmse":
        squared = jnp.where(kept, values, 0.0).sum() / jnp.maximum(rank, 1)
    else:
        squared = values[first if scale == "min" else first + (rank - 1) // 2]
    ratios = jnp.where(kept, squared / jnp.where(kept, values, 1.0), 0.0)
    return _cosines.times(vectors, jnp.sqrt(ratios) * vectors.mean(0))


def aligned_mtl(
    scale: Scale = "min", *, groups: _base.Groups = None
) -> optax.GradientTransformationExtraArgs:
    """Aligned-MTL as a transformation of stacked gradients.

    See `aligned_mtl_weights` for the formula.

    Args:
      scale: the singular value that all components get: `"min"`, `"median"` or `"rmse"`.
      groups: parameters that are aggregated separately, as in `from_weights`.

    Raises:
      ValueError: on an unknown scale.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = aligned_mtl()
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[4.0, 0.0], [0.0, 2.0]])
      >>> print(tx.update(grads, tx.init(params), params)[0])
      [1. 1.]
    """
    if scale not in ("min", "median", "rmse"):
        raise ValueError(f"unknown scale {scale!r} of aligned_mtl; it is 'min', 'median' or 'rmse'")
    return _base.from_weights(functools.partial(aligned_mtl_weights, scale=scale), groups=groups)
