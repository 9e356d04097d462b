"""LRA: learning-rate annealing by the statistics of gradients."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax._ranges import check_range
from modsync_jax.balancing import _base
from modsync_jax.balancing._base import Given


def lra(
    num_objectives: int,
    reference: int = -1,
    *,
    alpha: float | Array = 0.1,
    every: int = 10,
    weighted: bool = False,
    mean: Literal["entries", "kernels"] = "entries",
) -> optax.GradientTransformationExtraArgs:
    """Weighs conditions until their mean gradient is as large as the residual's largest.

    With r the reference, `λ̂_k = max |g_r| / mean |g_k|` and `λ_k <- (1 - alpha) λ_k + alpha λ̂_k`
    every few updates; λ_r stays 1, and so does a weight whose gradient is zero. The paper's text
    has alpha = 0.9 and plain gradients. The authors' code, with which their figures were made, is
    `weighted=True, mean="kernels"` with alpha = 0.1: it measures λ_k g_k in the mean, so that λ_k
    tends to the square root of what the text gives.

    Args:
      num_objectives: K.
      reference: index of the residual in the sorted order of names.
      alpha: share of the new value, in [0, 1].
      every: updates between new values.
      weighted: whether the mean is taken of the gradient of λ_k L_k instead of L_k.
      mean: over all entries, or the mean over kernels (leaves of two or more axes) of theirs.

    Raises:
      ValueError: on a hyperparameter out of range.

    References:
      Wang, Teng and Perdikaris, Understanding and Mitigating Gradient Flow Pathologies in
      Physics-Informed Neural Networks, SISC 2021, Algorithm 1.
    """
    check_range("alpha", alpha, 0.0, 1.0)
    check_range("reference", reference, -num_objectives, num_objectives - 1)
    if mean not in ("entries", "kernels"):
        raise ValueError(f"unknown mean {mean!r}; it is 'entries' or 'kernels'")

    def rule(now: Given) -> tuple[Array, tuple]:
        leaves = [jnp.abs(g) for g in jax.tree.leaves(now.grads)]
        if mean == "kernels":
            leaves = [g for g in leaves if g.ndim > 2] or leaves
            means = jnp.stack([_sums(g) / g[0].size for g in leaves]).mean(0)
        else:
            means = jnp.stack(list(map(_sums, leaves))).sum(0) / sum(g[0].size for g in leaves)
        largest = jnp.stack([g[reference].max() for g in leaves]).max()
        old = now.loss_weights
        new = (1 - alpha) * old + alpha * _base.quotient(
            largest, old * means if weighted else means, old
        )
        return new.at[reference].set(1.0).astype(old.dtype), ()

    return _base.from_rule(rule, num_objectives, every=every)


def _sums(leaf: Array) -> Array:
    """Sums of all but the leading axis, [K]; a reshape would gather a sharded leaf."""
    return leaf.sum(tuple(range(1, leaf.ndim)))
