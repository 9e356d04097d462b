"""Cosines between the objectives' gradients, summed over training batches."""

import itertools
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from modsync_jax import gradients
from modsync_jax.training._state import Conflict

PyTree = Any


def pairs(count: int) -> list[tuple[int, int]]:
    """Returns the P pairs of `count` objectives, in the order of all arrays `[P]`."""
    return list(itertools.combinations(range(count), 2))


def nothing_seen(count: int, dtype: DTypeLike) -> Conflict:
    """Returns the sums over no batch."""
    zeros = jnp.zeros(len(pairs(count)), dtype)
    return Conflict(jnp.zeros((), jnp.int32), zeros, jnp.zeros_like(zeros))


def met(conflict: Conflict, grads: PyTree) -> Conflict:
    """Returns the sums with one more batch; `grads` are stacked gradients of the weights."""
    _, cosine = cosines(grads)
    return Conflict(
        conflict.batches + 1,
        conflict.cosines + cosine.astype(conflict.cosines.dtype),
        conflict.opposed + (cosine < 0),
    )


def cosines(grads: PyTree) -> tuple[Array, Array]:
    """Returns the norms [K] of stacked gradients and the cosines of their pairs [P]."""
    gramian = gradients.gramian(grads)
    norms, both = jnp.sqrt(jnp.diagonal(gramian)), pairs(len(gramian))
    products = jnp.array([norms[j] * norms[k] for j, k in both])
    inner = jnp.array([gramian[j, k] for j, k in both])
    return norms, jnp.where(products > 0, inner / jnp.where(products > 0, products, 1.0), 0.0)
