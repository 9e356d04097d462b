"""The interface between a run and its phases, and what phases share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from modsync_jax.loss_indexed import Kind
from modsync_jax.training._state import TrainState

PyTree = Any


class Stage(NamedTuple):
    """A phase of a run.

    Attributes:
      begin: `(state) -> state`: its own state for its optimiser, from the end of the phase before.
      prepare: `(state) -> state`, before the steps of a chunk: redraws points that are due.
      batch: `(state) -> points` of the next step.
      step: `(state, whether to take measures [] bool) -> state`.
      settle: `(state) -> state`, after the steps of a chunk: the losses at its end.
      rate: `(step of the run) -> learning rate`; NaN for a phase without one.
    """

    begin: Callable[[TrainState], TrainState]
    prepare: Callable[[TrainState], TrainState]
    batch: Callable[[TrainState], Any]
    step: Callable[[TrainState, Array], TrainState]
    settle: Callable[[TrainState], TrainState]
    rate: Callable[[Array], Array]


def as_is(state: TrainState) -> TrainState:
    return state


def of_weights_alone(kind: Kind, updates: PyTree, params: PyTree) -> PyTree:
    """Updates of trained parameters whose own ones stay, from updates of the weights."""
    _, own = kind.split(params)
    return kind.join(updates, jax.tree.map(jnp.zeros_like, own))
