"""From a rule for loss weights to an optax transformation of stacked gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax import gradients
from modsync_jax._ranges import check_range

PyTree = Any


class BalancingState(NamedTuple):
    """State of a balancing method; `optax.tree_utils.tree_get(state, "loss_weights")` finds it.

    Attributes:
      updates: how many updates there were, [] int32.
      loss_weights: factors of the gradients, [K].
      memory: what else the rule remembers.
    """

    updates: Array
    loss_weights: Array
    memory: PyTree


class Given(NamedTuple):
    """What a rule sees.

    Attributes:
      grads: the stacked gradients, leaves `[K, ...]`.
      loss_weights: the latest weights, [K].
      memory: as the rule left it.
      first: whether this is the first update, [] bool.
      extra: the extra arguments of `update`.
    """

    grads: PyTree
    loss_weights: Array
    memory: PyTree
    first: Array
    extra: dict[str, Any]


Rule = Callable[[Given], tuple[Array, PyTree]]


def from_rule(
    rule: Rule,
    num_objectives: int,
    *,
    needs: tuple[str, ...] = (),
    every: int | Array = 1,
    start: Callable[[Array], tuple[Array, PyTree]] = lambda ones: (ones, ()),
) -> optax.GradientTransformationExtraArgs:
    """Builds a balancing method: row k of the stacked gradients is multiplied by its loss weight.

    Args:
      rule: pure function from `Given` to the new weights [K] and the new memory.
      num_objectives: K.
      needs: names of the extra arguments of `update` that the rule reads.
      every: the rule is asked at updates 0, every, 2 every, ...; weights stay in between.
      start: from ones [K] to the first weights and memory.

    Returns:
      A transformation whose `update(grads, state, params, **extra)` takes and returns stacked
      gradients, leaves `[K, ...]`. It chains before any aggregator.

    Raises:
      ValueError: on a K or `every` below 1 and, when traced, on gradients that are not a stack of K
        for `params` or a missing extra argument.
    """
    if num_objectives < 1:
        raise ValueError(f"num_objectives is {num_objectives}; it must be 1 or more")
    check_range("every", every, 1)

    def init_fn(params: optax.Params) -> BalancingState:
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        weights, memory = start(jnp.ones(num_objectives, dtype))
        return BalancingState(jnp.zeros((), jnp.int32), weights, memory)

    def update_fn(
        updates: optax.Updates, state: BalancingState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, BalancingState]:
        check_count(updates, params, num_objectives)
        for name in needs:
            if extra.get(name) is None:
                raise ValueError(
                    f"this loss balancing needs {name!r}: call update(grads, state, params, "
                    f"{name}=...)"
                )
        given = Given(updates, state.loss_weights, state.memory, state.updates == 0, extra)
        kept = (state.loss_weights, state.memory)
        if isinstance(every, int) and every == 1:
            weights, memory = rule(given)
        else:
            weights, memory = jax.lax.cond(
                state.updates % every == 0, lambda: rule(given), lambda: kept
            )
        new = BalancingState(optax.safe_increment(state.updates), weights, memory)
        return scale(updates, weights), new

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def check_count(grads: PyTree, params: PyTree, num_objectives: int) -> None:
    """Raises a `ValueError` unless `grads` is a stack of K gradients of `params`."""
    count = gradients.check_stacked(grads, params)
    if count != num_objectives:
        raise ValueError(
            f"gradients are of {count} objectives, but num_objectives is {num_objectives}"
        )


def scale(grads: PyTree, weights: Array) -> PyTree:
    """Multiplies row k of every leaf by `weights[k]`; dtypes stay."""
    return jax.tree.map(lambda g: jax.vmap(jnp.multiply)(weights.astype(g.dtype), g), grads)


def norms(grads: PyTree) -> Array:
    """The gradients' norms, [K]."""
    return jnp.sqrt(jnp.diagonal(gradients.gramian(grads)))


def quotient(a: Array, b: Array, otherwise: Array) -> Array:
    """`a / b`, and `otherwise` where b is not positive: an objective that says nothing."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), otherwise)
