"""Warm starts: the parameters of a trained network as the first ones of another run."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from modsync_jax.gradients import path_name
from modsync_jax.networks import MLP
from modsync_jax.problems import AnyUnknown, Problem, UnknownField
from modsync_jax.training._config import ConfigError
from modsync_jax.training._solution import Solution

PyTree = Any


def started(
    random: PyTree, network: nn.Module, problem: Problem, solution: Solution, *, masked: bool
) -> PyTree:
    """Returns the first parameters of a run that starts from a solution.

    Networks of the same shapes are taken as they are. An MLP may also be wider than the solution's:
    new units get random inputs and no outputs, so the field is the same. Unknowns are taken by
    name.

    Args:
      random: the parameters that the run would start with, `{"network": ..., "unknowns": ...}`.
      network: the run's network.
      problem: the run's problem.
      solution: the solution to start from.
      masked: whether thresholds mask the weights, under which zeros could never move.

    Raises:
      ConfigError: when the solution's network does not fit.
    """
    if type(network) is not type(solution.network):
        raise _unfit(solution, f"its network is a {type(solution.network).__name__}", network)
    old, new = solution.params["network"], random["network"]
    if jax.tree.structure(old) != jax.tree.structure(new):  # type: ignore[operator]
        raise _unfit(solution, "it has other layers", network)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (old, new)]
    if shapes[0] != shapes[1] and (masked or not isinstance(network, MLP)):
        kind = "ModSync" if masked else "any network but the MLP"
        raise _unfit(solution, f"its layers have other widths, which {kind} can't take", network)

    def one(path: Any, before: Array, after: Array) -> Array:
        if any(a > b for a, b in zip(before.shape, after.shape, strict=True)):
            name, size = path_name(path), list(before.shape)
            raise _unfit(solution, f"{name} has the shape {size}, not {list(after.shape)}", network)
        return _embedded(before.astype(after.dtype), after)

    unknowns = {
        name: _unknown(name, unknown, random["unknowns"][name], solution)
        for name, unknown in problem.trained.items()
    }
    return {"network": jax.tree.map_with_path(one, old, new), "unknowns": unknowns}


def _unknown(name: str, unknown: AnyUnknown, random: PyTree, solution: Solution) -> PyTree:
    """What is trained of an unknown: that of its value in the solution, if it is there."""
    if isinstance(unknown, UnknownField):
        before = solution.params["unknowns"].get(name, random)
        same = jax.tree.map(jnp.shape, before) == jax.tree.map(jnp.shape, random)
        # Copies: the run donates its first state, and the solution must stay.
        return jax.tree.map(lambda a, b: jnp.array(a, b.dtype), before if same else random, random)
    found, labels = solution.unknowns, unknown.labelled(name, random)
    if not labels.keys() <= found.keys():
        return random
    values = [found[label] for label in labels]
    try:
        start = values if random.ndim else values[0]
        return dataclasses.replace(unknown, start=start).begin(jax.random.key(0), random.dtype)
    except ValueError as error:
        raise ConfigError(f"init does not fit: {name}: {error}") from None


def _embedded(before: Array, after: Array) -> Array:
    """A smaller array as the first block of a larger one; its columns have no other rows."""
    if before.ndim == 2:
        after = after.at[before.shape[0] :, : before.shape[1]].set(0.0)
    return after.at[tuple(slice(n) for n in before.shape)].set(before)


def _unfit(solution: Solution, why: str, network: nn.Module) -> ConfigError:
    return ConfigError(
        f"init does not fit: {why}; the run has a {type(network).__name__} of width "
        f"{getattr(network, 'width', '?')} and depth {getattr(network, 'depth', '?')}: give it "
        f"network, width and depth of the run to start from (a wider MLP is possible)"
    )
