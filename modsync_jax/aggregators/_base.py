"""From a weighting of the Gramian to an optax transformation."""

import inspect
from collections.abc import Callable, Hashable
from typing import Any, Literal, NamedTuple

import jax
import optax
from jax import Array

from modsync_jax import gradients

Weighting = Callable[..., Array]
Groups = Literal["leaf"] | Callable[[str, Array], Hashable] | None


class AggregatorState(NamedTuple):
    """State of an aggregator: the PRNG key of a random method, else None."""

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
        an extra argument `key` takes its place.

    Returns:
      A transformation whose `update(grads, state, params, **extra)` takes leaves `[K, ...]` and
      returns leaves `[...]`. It chains before any optax optimiser.

    Raises:
      ValueError: on an unknown `groups` and, when traced, on gradients that are not a stack for
        `params` or a missing extra argument.
    """
    if not (groups is None or groups == "leaf" or callable(groups)):
        raise ValueError(f"groups is {groups!r}; give None, 'leaf' or a function (path, leaf)")
    needed = [
        name
        for name, parameter in inspect.signature(weights_fn).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    ]

    def init_fn(params: optax.Params) -> AggregatorState:
        del params
        return AggregatorState(key if "key" in needed else None)

    def update_fn(
        updates: optax.Updates, state: AggregatorState, params: Any = None, **extra_args: Any
    ) -> tuple[optax.Updates, AggregatorState]:
        gradients.check_stacked(updates, params)
        if state.key is not None:
            carried, drawn = jax.random.split(state.key)
            state = AggregatorState(carried)
            extra_args.setdefault("key", drawn)
        for name in needed:
            if extra_args.get(name) is None:
                raise ValueError(
                    f"the aggregator {weights_fn.__name__} needs {name!r}: call "
                    f"update(grads, state, params, {name}=...)"
                )
        arguments = {name: extra_args[name] for name in needed}
        stack, structure = jax.tree.flatten(updates)
        combined: dict[int, Array] = {}
        for indices in _parts(groups, params):
            part = {index: stack[index] for index in indices}
            weights = weights_fn(gradients.gramian(part), **arguments)
            combined |= gradients.weighted_sum(weights, part)
        return jax.tree.unflatten(structure, [combined[i] for i in range(len(stack))]), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _parts(groups: Groups, params: optax.Params) -> list[list[int]]:
    """The indices of the leaves of each group."""
    parts: dict[Hashable, list[int]] = {}
    for index, (path, leaf) in enumerate(jax.tree.leaves_with_path(params)):
        if callable(groups):
            label = groups(gradients.path_name(path), leaf)
        else:
            label = index if groups == "leaf" else None
        parts.setdefault(label, []).append(index)
    return list(parts.values())
