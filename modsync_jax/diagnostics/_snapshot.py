"""What measures look at."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from modsync_jax import gradients

PyTree = Any


class Snapshot(NamedTuple):
    """A moment of a training.

    Attributes:
      weights: the weights that all losses share, or those of a network without others.
      losses: `[K]`, by sorted name.
      grads: their gradients by the weights, a stack.
      names: the objectives' names, sorted.
      samples: by name, from weights to the losses of single samples, `[N]`, whose mean is the
        objective's; for measures that need them.
      metric: from a stack of gradients g to P⁻¹ g, for a symmetric positive P, such as an
        optimiser's preconditioner, for measures that `in_metric` made; None if there is none.
      inner: the metric of `gramian`; None for the Euclidean one.
      products: the Euclidean Gramian of `grads`, `[K, K]`, if it is known already.
    """

    weights: PyTree
    losses: Array
    grads: PyTree
    names: tuple[str, ...]
    samples: Mapping[str, Callable[[PyTree], Array]] = {}
    metric: Callable[[PyTree], PyTree] | None = None
    inner: Callable[[PyTree], PyTree] | None = None
    products: Array | None = None

    def gramian(self) -> Array:
        """`G[i, j] = g_iᵀ g_j`, or `g_iᵀ P⁻¹ g_j` in the metric `inner`, `[K, K]`."""
        if self.inner is None:
            return gradients.gramian(self.grads) if self.products is None else self.products
        scaled = self.inner(self.grads)

        def inner(one: Array, other: Array) -> Array:
            count = len(one)
            flat, scaled = one.reshape(count, -1), other.reshape(count, -1)
            return jnp.matmul(flat, scaled.T, precision="highest")

        total = jnp.stack(jax.tree.leaves(jax.tree.map(inner, self.grads, scaled))).sum(0)
        return (total + total.T) / 2


Measure = Callable[[Snapshot], dict[str, Array]]
"""From a snapshot to scalars by column; a column is a family, or `family/member`."""


def pairs(names: tuple[str, ...]) -> list[tuple[int, int, str]]:
    """Returns the pairs of objectives: both indices, and the name `first~second`."""
    count = range(len(names))
    return [(j, k, f"{names[j]}~{names[k]}") for j, k in itertools.combinations(count, 2)]
