"""The state that a run carries from step to step, and its streams of random numbers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import DTypeLike

from modsync_jax.diagnostics import Sums

PyTree = Any
# The streams of random numbers of one run.
INIT, TRAIN, EVALUATE, KEPT, METHOD, HELD_OUT, SKETCH, OWN, UNKNOWNS = range(9)


class TrainState(NamedTuple):
    """The state that a run carries from one step to the next.

    Attributes:
      key: raw data of the run's PRNG key.
      step: completed steps, [] int32.
      params: `{"network": ..., "unknowns": ...}`, or the pair of it and parameters of single losses
        that `loss_indexed.begin` makes.
      opt_state: the state of the present phase's transformation.
      best_params: the parameters of the lowest score so far.
      best_score: their validation error, or their unweighted loss without a reference, [].
      best_step: the step of `best_params`, [] int32.
      healthy: False once a loss or an update was not finite, [] bool; the state is then the last
        finite one.
      losses: the losses at the latest step, [K].
      sums: what was measured since the latest row of metrics.
      points: the batch, in phases whose points stay for a while; `()` in others.
    """

    key: Array
    step: Array
    params: PyTree
    opt_state: optax.OptState
    best_params: PyTree
    best_score: Array
    best_step: Array
    healthy: Array
    losses: Array
    sums: Sums
    points: PyTree = ()


def stream(state: TrainState, number: int) -> Array:
    """Returns the key of one of the run's streams of random numbers."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.key), number)


def weights_of(params: PyTree) -> PyTree:
    """Returns the weights that all losses share, as they are."""
    return params[0] if isinstance(params, tuple) else params


def chosen(flag: Array, one: PyTree, other: PyTree) -> PyTree:
    """Returns `one` where the flag is set, and `other` elsewhere."""
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), one, other)


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """Returns a tree with its floating leaves in another dtype."""

    def one(leaf: Array) -> Array:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(one, tree)


def accept(
    state: TrainState,
    losses: Array,
    updates: PyTree,
    opt_state: optax.OptState,
    sound: Array,
) -> TrainState:
    """Returns the state after an update, or the state before it if something is not finite.

    `sound` is a further condition on the update, [] bool.
    """
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(updates))
    healthy = state.healthy & jnp.isfinite(losses).all() & jnp.isfinite(total) & sound
    new = (state.step + 1, optax.apply_updates(state.params, updates), opt_state)
    step, params, opt_state = chosen(healthy, new, (state.step, state.params, state.opt_state))
    return state._replace(
        step=step, params=params, opt_state=opt_state, losses=losses, healthy=healthy
    )
