"""From a rule for loss weights to an optax transformation of stacked gradients."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax import gradients
from modsync_jax._ranges import check_range

PyTree = Any
Names = int | Collection[str]
"""K, or the objectives' names: any collection of them, such as the mapping of objectives itself."""


class BalancingState(NamedTuple):
    """State of a balancing method; `optax.tree_utils.tree_get(state, "loss_weights")` finds it.

    Attributes:
      updates: how many updates there were, [] int32.
      loss_weights: factors of the gradients, [K].
      memory: what else the rule remembers.
      axes: how many axes each parameter had at `init`; they grow by one when no aggregator follows.
        To JAX it is part of the structure and no array, so no checkpoint holds it.
    """

    updates: Array
    loss_weights: Array
    memory: PyTree
    axes: tuple[int, ...]


def _with_keys(state: BalancingState) -> tuple[tuple, tuple[int, ...]]:
    children = state._asdict().items()
    keyed = [(jax.tree_util.GetAttrKey(name), child) for name, child in children if name != "axes"]
    return tuple(keyed), state.axes


jax.tree_util.register_pytree_with_keys(
    BalancingState, _with_keys, lambda axes, children: BalancingState._make((*children, axes))
)


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
    objectives: Names,
    *,
    needs: tuple[str, ...] = (),
    every: int | Array = 1,
    start: Callable[[Array], tuple[Array, PyTree]] = lambda ones: (ones, ()),
) -> optax.GradientTransformationExtraArgs:
    """Builds a balancing method: row k of the stacked gradients is multiplied by its loss weight.

    Args:
      rule: pure function from `Given` to the new weights [K] and the new memory.
      objectives: K, or the objectives' names.
      needs: names of the extra arguments of `update` that the rule reads.
      every: the rule is asked at updates 0, every, 2 every, ...; weights stay in between.
      start: from ones [K] to the first weights and memory.

    Returns:
      A transformation whose `update(grads, state, params, **extra_args)` takes and returns stacked
      gradients, leaves `[K, ...]`. It chains before any aggregator.

    Raises:
      ValueError: on a K or `every` below 1, repeated names and, when traced, on gradients that are
        not a stack of K for `params`, a missing extra argument, or parameters that have grown since
        `init`.
    """
    num_objectives = count_of(objectives)
    check_range("every", every, 1)

    def init_fn(params: optax.Params) -> BalancingState:
        gradients.check_whole(params)
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        weights, memory = start(jnp.ones(num_objectives, dtype))
        return BalancingState(jnp.zeros((), jnp.int32), weights, memory, _axes(params))

    def update_fn(
        updates: optax.Updates, state: BalancingState, params: Any = None, **extra_args: Any
    ) -> tuple[optax.Updates, BalancingState]:
        gradients.check_count(updates, params, num_objectives)
        if state.axes != _axes(params):
            raise ValueError(
                "the parameters have more or fewer axes than at init: no aggregator follows the "
                "loss balancing; put one before the optimiser, as in "
                "optax.chain(balancing..., aggregators.sum(), optax.adam(1e-3))"
            )
        for name in needs:
            if extra_args.get(name) is None:
                raise ValueError(
                    f"this loss balancing needs {name!r}: call update(grads, state, params, "
                    f"{name}=...)"
                )
        given = Given(updates, state.loss_weights, state.memory, state.updates == 0, extra_args)
        kept = (state.loss_weights, state.memory)
        if isinstance(every, int) and every == 1:
            weights, memory = rule(given)
        else:
            weights, memory = jax.lax.cond(
                state.updates % every == 0, lambda: rule(given), lambda: kept
            )
        updated = optax.safe_increment(state.updates)
        new = BalancingState(updated, weights, memory, state.axes)
        return scale(updates, weights), new

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _axes(params: PyTree) -> tuple[int, ...]:
    """How many axes each leaf has: inside `shard_map`, shapes are others than outside."""
    return tuple(jnp.ndim(leaf) for leaf in jax.tree.leaves(params))


def count_of(objectives: Names) -> int:
    """K, from itself or from the objectives' names.

    Raises:
      ValueError: on a K below 1, on one string, or on repeated names.
    """
    if isinstance(objectives, int):
        if objectives < 1:
            raise ValueError(f"objectives is {objectives}; it must be 1 or more, or their names")
        return objectives
    if isinstance(objectives, str) or not 0 < len(set(objectives)) == len(objectives):
        raise ValueError(
            f"objectives is {objectives!r}; give their number, or each name once, for example the "
            "mapping of objectives"
        )
    return len(objectives)


def index_of(objectives: Names, reference: str | int) -> int:
    """The index of an objective, given by name or by index in the sorted order of names.

    Raises:
      ValueError: on an unknown name, a name without the others, or an index out of range.
    """
    count = count_of(objectives)
    if isinstance(reference, int):
        check_range("reference", reference, -count, count - 1)
        return reference % count
    if isinstance(objectives, int) or reference not in objectives:
        known = objectives if isinstance(objectives, int) else ", ".join(sorted(objectives))
        raise ValueError(
            f"reference is {reference!r}, but objectives is {known}; give the names of all "
            "objectives, and one of them or its index in sorted order"
        )
    return sorted(objectives).index(reference)


def scale(grads: PyTree, weights: Array) -> PyTree:
    """Multiplies row k of every leaf by `weights[k]`; dtypes stay."""
    return jax.tree.map(lambda g: jax.vmap(jnp.multiply)(weights.astype(g.dtype), g), grads)


def norms(grads: PyTree) -> Array:
    """The gradients' norms, [K]."""
    return jnp.sqrt(jnp.diagonal(gradients.gramian(grads)))


def quotient(a: Array, b: Array, otherwise: Array) -> Array:
    """`a / b`, and `otherwise` where b is not positive: an objective that says nothing."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), otherwise)
