"""The interface between a run and its phases, and what phases share."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from modsync_jax.training._losses import Losses
from modsync_jax.training._state import TrainState
from modsync_jax.transform import ModSyncParams

PyTree = Any


class Stage(NamedTuple):
    """A phase of a run.

    Attributes:
      begin: `(state) -> state`: its own state for its optimiser, from the end of the phase before.
      prepare: `(state) -> state`, before the steps of a chunk: redraws points that are due.
      batch: `(state) -> points` of the next step.
      step: `(state) -> state`.
      settle: `(state) -> state`, after the steps of a chunk: the losses at its end.
      rate: `(step of the run) -> learning rate`; NaN for a phase without one.
    """

    begin: Callable[[TrainState], TrainState]
    prepare: Callable[[TrainState], TrainState]
    batch: Callable[[TrainState], Any]
    step: Callable[[TrainState], TrainState]
    settle: Callable[[TrainState], TrainState]
    rate: Callable[[Array], Array]


def as_is(state: TrainState) -> TrainState:
    return state


def of_weights(losses: Losses, state: TrainState) -> Mapping[str, Any]:
    """The objectives as functions of the weights alone, under masks that stay."""
    if not losses.masked:
        return losses.frozen

    def on_weights(name: str, weights: PyTree, points: Any) -> Array:
        return losses.frozen[name](ModSyncParams(weights, state.params.thresholds), points)

    return {name: partial(on_weights, name) for name in losses.names}


def with_thresholds(updates: PyTree, state: TrainState) -> ModSyncParams:
    """Updates of the weights beside thresholds that stay."""
    return ModSyncParams(updates, jax.tree.map(jnp.zeros_like, state.params.thresholds))
