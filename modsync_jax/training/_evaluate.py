"""A row of the metrics of a run, and the selection of its best parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from modsync_jax import gradients, optimizers
from modsync_jax.diagnostics import Watch
from modsync_jax.problems import Problem
from modsync_jax.training._config import TrainConfig
from modsync_jax.training._losses import Losses
from modsync_jax.training._state import (
    EVALUATE,
    HELD_OUT,
    TrainState,
    cast,
    chosen,
    stream,
    weights_of,
)

PyTree = Any
References = Mapping[str, tuple[Array, Array]]
Evaluate = Callable[[TrainState, References], tuple[TrainState, dict[str, Array]]]
_HELD_OUT = 4  # times the points of a step, for a score by the loss


def build(
    problem: Problem,
    losses: Losses,
    config: TrainConfig,
    rate: Callable[[Array], Array] | None,
    watch: Watch,
) -> Evaluate:
    """Returns the evaluation of a run.

    Args:
      problem: the problem.
      losses: the run's losses.
      config: the run's settings.
      rate: from a step to the learning rate; None if it is not known.
      watch: what measures the training batches.
    """
    names = losses.names
    losses_and_grads = gradients.value_and_objective_grads(losses.trained)

    def held_out(state: TrainState) -> Any:
        """Points that are the same ones in all rows, so that luck with points selects no row."""
        points = losses.sample(stream(state, HELD_OUT), _HELD_OUT, jnp.dtype(config.widest_dtype))
        return cast(points, state.losses.dtype)

    def evaluate(state: TrainState, references: References) -> tuple[TrainState, dict[str, Array]]:
        dtype = state.losses.dtype
        batch = losses.sample(jax.random.fold_in(stream(state, EVALUATE), state.step), 1, dtype)
        values, grads = losses_and_grads(state.params, batch)
        metric = optimizers.metric(state.opt_state, weights_of(state.params))
        seen = losses.snapshot(state.params, batch, values, grads, False, metric)
        # Phases that do not see the objectives' gradients show those of this batch.
        measured, sums = watch.row(
            jax.lax.cond(
                state.sums.batches > 0,
                lambda: state.sums,
                lambda: watch.update(state.sums, seen, jnp.array(True)),
            ),
            names,
        )
        u, unknowns = losses.fields(evaluated := losses.kind.export(state.params))
        by_error = bool(references) and config.selection != "loss"
        judged = batch if by_error else held_out(state)
        of_terms = {name: loss(evaluated, judged) for name, loss in losses.terms.items()}
        row = {"step": state.step, "loss": values.sum()}
        if rate is not None:
            row["learning_rate"] = rate(state.step)
        row |= {f"loss/{name}": values[k] for k, name in enumerate(names)}
        row |= {f"term/{name}": value for name, value in of_terms.items()}
        norms = jnp.sqrt(jnp.diagonal(seen.gramian()))
        row |= {f"grad_norm/{name}": norms[k] for k, name in enumerate(names)}
        row |= measured
        row |= {f"unknown/{name}": value for name, value in problem.readings(unknowns).items()}
        described = losses.kind.describe(*losses.kind.split(state.params), names)
        row |= {_short(column): value for column, value in described.items()}
        for name, (points, true) in cast(dict(references), dtype).items():
            error = problem.observed(u, unknowns, points) - true
            row[f"{name}/relative_l2"] = jnp.linalg.norm(error) / jnp.linalg.norm(true)
            row[f"{name}/mean_absolute"] = jnp.abs(error).mean()
        if not by_error:  # a score without a reference: loss weights say nothing about accuracy
            row["score"] = sum(of_terms.values())
        score = row["validation/relative_l2" if by_error else "score"]
        better = state.healthy & (score < state.best_score)
        params, score, step = chosen(
            better,
            (state.params, score.astype(dtype), state.step),
            (state.best_params, state.best_score, state.best_step),
        )
        state = state._replace(best_params=params, best_score=score, best_step=step)
        return state._replace(sums=sums), row

    return evaluate


def _short(column: str) -> str:
    """A column of a layer of the network, without what the paths of all layers begin with."""
    start = "/network/params/" if "/network/params/" in column else "/network/"
    return column.replace(start, "/", 1)
