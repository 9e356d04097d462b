"""Moving averages of the gradients of objectives that are seen one at a time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from modsync_jax.aggregators import _cosines

PyTree = Any


class Momenta(NamedTuple):
    """The momentum of each objective.

    Attributes:
      counts: how often each objective was seen, [K] int32.
      steps: how often one was seen since all of them were, the first such time included, [] int32.
      sums: moving averages that start at zero, leaves [K, ...].
    """

    counts: Array
    steps: Array
    sums: PyTree


def start(params: PyTree, num_objectives: int) -> Momenta:
    """Momenta of K objectives that were not seen."""
    sums = jax.tree.map(lambda p: jnp.zeros((num_objectives, *p.shape), p.dtype), params)
    return Momenta(jnp.zeros(num_objectives, jnp.int32), jnp.zeros((), jnp.int32), sums)


def move(momenta: Momenta, grad: PyTree, objective: Array | int, decay: float | Array) -> Momenta:
    """The momentum of one objective moved by its gradient, leaves [...]; the others stay."""

    def one(m: Array, g: Array) -> Array:
        return m.at[objective].set((decay * m[objective] + (1.0 - decay) * g).astype(m.dtype))

    counts = momenta.counts.at[objective].add(1)
    steps = momenta.steps + (counts.min() > 0)
    return Momenta(counts, steps, jax.tree.map(one, momenta.sums, grad))


def corrected(momenta: Momenta, decay: float | Array) -> PyTree:
    """The stack of momenta without the bias of their start, each by its own count.

    It is zero until every objective was seen.
    """
    inverse = _cosines.reciprocal(1.0 - decay**momenta.counts)
    factors = jnp.where(momenta.steps > 0, inverse, 0.0)
    return jax.tree.map(lambda m: jax.vmap(jnp.multiply)(m, factors.astype(m.dtype)), momenta.sums)


def check(grad: PyTree, params: PyTree, objective: Array | int | None) -> Array | int:
    """Returns `objective`, or raises a ValueError without it or on other than one gradient."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(grad)]
    expected = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
    if objective is None or shapes != expected:
        raise ValueError(
            "M-ConFIG takes the gradient of one objective and its index: update(grad, state, "
            f"params, objective=index); got objective={objective} and leaves of the shapes "
            f"{shapes} for parameters of {expected}"
        )
    return objective
