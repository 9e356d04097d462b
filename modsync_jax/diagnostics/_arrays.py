"""Measures that are arrays: histograms of gradients, tangent kernels, slices of the losses."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax import gradients
from modsync_jax.diagnostics._snapshot import Snapshot

PyTree = Any
EDGES = np.linspace(-12.0, 4.0, 65)  # not of JAX, which would start its devices on import
"""Bins of log10 |g| in `histograms`, `[65]`; what is outside counts in the first or last one."""


def histograms(seen: Snapshot) -> dict[str, Array]:
    """The numbers of entries of each gradient by log10 |g|, `<objective>/<path>`: `[64]` int32.

    Zeros count in the first bin.
    """
    found = {}
    for path, stack in jax.tree.leaves_with_path(seen.grads):
        for k, name in enumerate(seen.names):
            size = jnp.clip(jnp.log10(jnp.abs(stack[k])), EDGES[0], EDGES[-1])
            counts = jnp.histogram(size, EDGES)[0].astype(jnp.int32)
            found[f"{name}/{gradients.path_name(path)}"] = counts
    return found


def tangent_kernel(
    residuals: Callable[[PyTree], Array], weights: PyTree, *, chunk: int = 16
) -> Array:
    """The tangent kernel `J Jᵀ` of M residuals, `[M, M]`, without their Jacobian in memory.

    Args:
      residuals: from weights to residuals `[M]`.
      weights: a pytree.
      chunk: the number of rows of J that are held at once.

    References:
      Wang, Yu & Perdikaris 2022, "When and why PINNs fail to train: a neural tangent kernel
      perspective".
    """
    values, pull = jax.vjp(residuals, weights)
    _, push = jax.linearize(residuals, weights)
    basis = jnp.eye(len(values), dtype=values.dtype)
    return jax.lax.map(lambda row: push(pull(row)[0]), basis, batch_size=chunk)


def slices(
    objectives: Mapping[str, Callable[..., Array]],
    seen: Snapshot,
    *args: Any,
    nearest: float = 1e-6,
    radius: float = 0.02,
    count: int = 61,
) -> tuple[Array, Array]:
    """The losses along the downhill direction of each objective.

    Args:
      objectives: by name, of weights and `*args`.
      seen: the snapshot whose weights and gradients are taken.
      *args: further arguments of the objectives.
      nearest: the shortest step over the norm of all weights. A valley is as narrow as its losses
        are small, so that steps of one length can't show those of all networks.
      radius: the farthest step over the norm of all weights.
      count: the number of steps, odd and 5 or more: zero in the middle, and on both sides a
        geometric progression.

    Returns:
      The steps over the norm of the weights, `[count]`, and the losses `[K, count, K]`: by
      direction, step and loss.
    """
    middle = count // 2
    ahead = jnp.geomspace(nearest, radius, middle)
    steps = jnp.concatenate([-ahead[::-1], jnp.zeros(1), ahead])
    stacked = jax.tree.map(lambda w: w[None], seen.weights)
    size = jnp.sqrt(gradients.gramian(stacked)[0, 0])
    norms = jnp.sqrt(jnp.diagonal(gradients.gramian(seen.grads)))

    def losses(k: Array, step: Array) -> Array:
        length = -step * size / jnp.where(norms[k] > 0, norms[k], 1.0)
        there = jax.tree.map(
            lambda w, g: w + (length * g[k]).astype(w.dtype), seen.weights, seen.grads
        )
        return jnp.stack([objectives[name](there, *args) for name in seen.names])

    def along(k: Array) -> Array:
        return jax.lax.map(lambda step: losses(k, step), steps)

    return steps, jax.lax.map(along, jnp.arange(len(seen.names)))
