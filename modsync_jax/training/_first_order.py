"""First-order phases: steps of the run's method and an optax optimiser, on fresh points."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from modsync_jax import gradients, loss_indexed, methods, optimizers
from modsync_jax.diagnostics import Watch
from modsync_jax.problems import RESIDUAL, term_of
from modsync_jax.training import _optimizers
from modsync_jax.training._config import TrainConfig
from modsync_jax.training._losses import Losses
from modsync_jax.training._stage import Stage, as_is, of_weights_alone
from modsync_jax.training._state import (
    METHOD,
    TRAIN,
    TrainState,
    accept,
    cast,
    chosen,
    stream,
    weights_of,
)

PyTree = Any


def build(index: int, settled: bool, config: TrainConfig, losses: Losses, watch: Watch) -> Stage:
    """Returns the functions of a phase.

    Args:
      index: the number of the phase in the run.
      settled: whether parameters of single losses are zero and stay; the phase then moves the
        weights alone.
      config: the run's settings.
      losses: the run's losses.
      watch: what measures the training batches.
    """
    phase, start = config.phases[index], config.starts[index]
    settings: Any = phase.settings
    dtype = jnp.dtype(settings.dtype or config.dtype)
    of_run = index == 0 and config.steps > 0  # not one that `then` names
    rate = _optimizers.learning_rate(config, phase, first=of_run)
    method, names = methods.parse(config.method), losses.names
    kind = losses.kind
    tx = methods.build(
        method,
        _optimizers.weights_optimizer(config, phase, first=of_run),
        loss_indexed.NONE if settled else kind,
        num_objectives=len(names),
        reference=next(k for k, name in enumerate(names) if term_of(name) == RESIDUAL),
        learning_rate=rate,
    )

    def moved(params: PyTree) -> PyTree:
        """The parameters that the phase moves."""
        return weights_of(params) if settled else params

    def begin(state: TrainState) -> TrainState:
        state = cast(state, dtype)
        return state._replace(opt_state=tx.init(moved(state.params)), points=())

    def batch(state: TrainState) -> Any:
        points = losses.sample(jax.random.fold_in(stream(state, TRAIN), state.step), 1, dtype)
        return losses.counted(kind.export(state.params), points, state.step - start)

    def step(state: TrainState, measured: Array) -> TrainState:
        points, params = batch(state), moved(state.params)
        objectives = losses.settled(state.params) if settled else losses.trained
        extra: dict[str, Any] = {"key": jax.random.fold_in(stream(state, METHOD), state.step)}
        if method.alternates:
            index = state.step % len(names)
            loss, grads = gradients.value_and_objective_grad(objectives)(params, index, points)
            values, extra["objective"] = state.losses.at[index].set(loss), index
        else:
            values, grads = gradients.value_and_objective_grads(objectives)(params, points)
            extra["losses"] = values
            extra["residual_jacobian_traces"] = partial(
                losses.traces, state.params, points, settled
            )
        updates, opt_state = tx.update(grads, state.opt_state, params, **extra)
        if settled:
            updates = of_weights_alone(kind, updates, state.params)
        after = accept(state, values, updates, opt_state, _all_finite(opt_state))
        if method.alternates:
            return after
        metric = optimizers.metric(opt_state, weights_of(params))
        seen = losses.snapshot(state.params, points, values, grads, settled, metric)
        sums = watch.update(state.sums, seen, measured)
        return after._replace(sums=chosen(after.healthy, sums, state.sums))

    return Stage(begin, as_is, batch, step, as_is, lambda step: rate(step - start))


def _all_finite(tree: PyTree) -> Array:
    """Whether all floating numbers are finite, as second moments must be to move weights."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]).all()
