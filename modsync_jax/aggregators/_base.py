"""From a weighting of the Gramian to an optax transformation."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax import Array

from modsync_jax import gradients
from modsync_jax.aggregators import _groups
from modsync_jax.aggregators._groups import Groups

Weighting = Callable[..., Array]
Part = dict[int, Array]


class AggregatorState(NamedTuple):
    """State of an aggregator: raw data of the PRNG key of a random method, else None."""

    key: Array | None


def from_weights(
    weights_fn: Weighting, *, groups: Groups = None, key: Array | None = None
) -> optax.GradientTransformationExtraArgs:
    """Builds an aggregator, stacked gradients in and one direction out, from a weighting.

    The update is `sum_k w_k g_k` with `w = weights_fn(gramian)`: two passes over the stack,
    whatever the method, and no copy of it.

    Args:
      weights_fn: pure function `(gramian [K, K]) -> [K]`. Keyword-only arguments without a default
        name what else it needs: `key` (a PRNG key), or any extra argument of `update`, such as
        `losses` [K].
      groups: how to split the parameters into parts with a Gramian each: None (one for all),
        `"leaf"`, or a function `(path, leaf) -> label`, with paths like `params/Dense_0/kernel`.
      key: PRNG key, kept in the state, of a weighting that asks for one. It is split every update;
        an extra argument `key` that is not None takes its place.

    Returns:
      A transformation whose `update(grads, state, params, **extra_args)` takes leaves `[K, ...]`
      and returns leaves `[...]`. It chains before any optax optimiser.

    Raises:
      ValueError: on an unknown `groups` and, when traced, on gradients that are not a stack for
        `params` or a missing extra argument.
    """

    @functools.wraps(weights_fn)
    def combine(part: Part, **arguments: Any) -> Part:
        return gradients.weighted_sum(weights_fn(gradients.gramian(part), **arguments), part)

    return from_stack(combine, groups=groups, key=key)


def from_stack(
    combine: Callable[..., Part], *, groups: Groups = None, key: Array | None = None
) -> optax.GradientTransformationExtraArgs:
    """As `from_weights`, for what the Gramian does not tell.

    Args:
      combine: pure function from the leaves of a group, `[K, ...]` by index, to leaves `[...]`;
        keyword-only arguments as those of a weighting.
      groups: as in `from_weights`.
      key: as in `from_weights`.
    """
    _groups.check(groups)
    needed = [
        name
        for name, parameter in inspect.signature(combine).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    ]
    start = None if key is None or "key" not in needed else jax.random.key_data(key)

    def init_fn(params: optax.Params) -> AggregatorState:
        gradients.check_whole(params)
        return AggregatorState(start)

    def update_fn(
        updates: optax.Updates, state: AggregatorState, params: Any = None, **extra_args: Any
    ) -> tuple[optax.Updates, AggregatorState]:
        gradients.check_stacked(updates, params)
        if state.key is not None and key is not None:
            current = jax.random.wrap_key_data(state.key, impl=jax.random.key_impl(key))
            carried, drawn = jax.random.split(current)
            state = AggregatorState(jax.random.key_data(carried))
            if extra_args.get("key") is None:
                extra_args["key"] = drawn
        for name in needed:
            if extra_args.get(name) is None:
                raise ValueError(
                    f"the aggregator {combine.__name__} needs {name!r}: call "
                    f"update(grads, state, params, {name}=...)"
                )
        arguments = {name: extra_args[name] for name in needed}
        stack, structure = jax.tree.flatten(updates)
        combined: Part = {}
        for indices in _groups.split(groups, params):
            combined |= combine({index: stack[index] for index in indices}, **arguments)
        return jax.tree.unflatten(structure, [combined[i] for i in range(len(stack))]), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
