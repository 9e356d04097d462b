"""The pure functions of a run: its first state, the steps of its phases, an evaluation.

Nothing here touches files, time or the terminal.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from modsync_jax import diagnostics, loss_indexed, networks
from modsync_jax.problems import Problem, without_weights
from modsync_jax.training import (
    _estimate,
    _evaluate,
    _first_order,
    _losses,
    _optimizers,
    _second_order,
)
from modsync_jax.training._config import TrainConfig
from modsync_jax.training._stage import Stage
from modsync_jax.training._state import INIT, OWN, UNKNOWNS, TrainState

PyTree = Any


class Program(NamedTuple):
    """The pure functions of a run; `compiled` puts them under `jit`.

    Attributes:
      init: `(seed, parameters) -> TrainState`, with random weights if the parameters are None.
      begin: `(state, phase) -> state` in which a phase (static index) begins.
      advance: `(state, phase, count) -> state` after `count` (static) steps of a phase.
      evaluate: `(state, reference points and values) -> (state, row)`.
      residuals: `(state, phase) -> (points, residuals)` for the batch of the next step: both by
        term, and the residuals also by equation, [N] each.
      export: `(trained parameters) -> plain parameters`.
      estimate: `(plain parameters) -> []`, the relative L2 error without a reference; see
        `_estimate.possible`.
      objectives: the names of the K objectives in order.
    """

    init: Callable[..., TrainState]
    begin: Callable[[TrainState, int], TrainState]
    advance: Callable[[TrainState, int, int], TrainState]
    evaluate: _evaluate.Evaluate
    residuals: Callable[[TrainState, int], tuple[Any, dict[str, dict[str, Array]]]]
    export: Callable[[PyTree], PyTree]
    estimate: Callable[[PyTree], Array]
    objectives: tuple[str, ...]


def network_of(problem: Problem, config: TrainConfig) -> networks.Network:
    """Returns the network that the settings describe, without parameters."""
    scaled = {"auto": problem.standardize, "yes": True, "no": False}[config.standardize]
    periods = tuple(config.periods.get(name, 0.0) for name in problem.coordinates)
    return networks.NETWORKS[config.network](
        width=config.width,
        depth=config.depth,
        outputs=len(problem.outputs),
        activation=config.activation,
        shift=problem.domain.mean if scaled else (),
        scale=problem.domain.std if scaled else (),
        omega=config.omega,
        periods=periods if any(periods) else (),
        fourier_features=config.fourier_features,
        fourier_scale=config.fourier_scale,
        factorized=config.factorized,
        adaptive=config.adaptive,
        param_dtype=jnp.dtype(config.dtype),
    )


def random_params(
    problem: Problem, network: nn.Module, key: Array, dtype: DTypeLike
) -> dict[str, Any]:
    """Returns the parameters of a random network, and the unknowns, of the run with a key."""
    point = jnp.zeros(len(problem.coordinates), dtype)
    variables = network.init(jax.random.fold_in(key, INIT), point)
    unknowns = problem.begin(jax.random.fold_in(key, UNKNOWNS), dtype)
    return {"network": variables, "unknowns": unknowns}


def build(
    problem: Problem,
    network: nn.Module,
    config: TrainConfig,
    place: Callable[[PyTree], PyTree] = lambda points: points,
) -> Program:
    """Assembles the functions of a run of `network` on `problem`.

    Numbers of `config` may be tracers: under `vmap` the functions then serve many runs at once.
    `place` is the argument of `Problem.objectives`.
    """
    dtype = jnp.dtype(config.dtype)
    losses = _losses.build(problem, network, config, place)
    watch = diagnostics.watch(*[diagnostics.MEASURES[name] for name in config.measure_names])

    def stage_of(index: int) -> Stage:
        if config.phases[index].freezes:
            return _second_order.build(index, config, losses)
        settled = any(earlier.freezes for earlier in config.phases[:index])
        return _first_order.build(index, settled, config, losses, watch)

    stages = [stage_of(index) for index in range(len(config.phases))]

    def init(seed: int | Array, params: PyTree = None) -> TrainState:
        key = jax.random.key(seed)
        if params is None:
            params = random_params(problem, network, key, dtype)
        count = len(losses.names)
        params = loss_indexed.begin(params, losses.kind, count, jax.random.fold_in(key, OWN))
        sums = jax.eval_shape(lambda: watch.init(losses.like(params, key, dtype)))
        state = TrainState(
            key=jax.random.key_data(key),
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=(),
            best_params=params,
            best_score=jnp.array(jnp.inf, dtype),
            best_step=jnp.zeros((), jnp.int32),
            healthy=jnp.array(True),
            losses=jnp.zeros(count, dtype),
            sums=jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), sums),
        )
        # Copies, because a donated state may not hold one buffer twice.
        return jax.tree.map(jnp.copy, stages[0].begin(state))

    def advance(state: TrainState, phase: int, count: int) -> TrainState:
        stage = stages[phase]

        def step(state: TrainState, index: Array) -> tuple[TrainState, None]:
            # Of the chunk, because all replicas of a sweep share it: a `cond` on it stays one.
            return stage.step(state, index % diagnostics.EVERY == 0), None

        state = jax.lax.scan(step, stage.prepare(state), jnp.arange(count))[0]
        return stage.settle(state)

    def rate(step: Array) -> Array:
        """The rate of the phase that comes to `step`."""
        rates = [jnp.asarray(stage.rate(step), dtype) for stage in stages]
        return jnp.select([step <= end for end in config.ends], rates, jnp.nan)

    def residuals(state: TrainState, phase: int) -> tuple[Any, dict[str, dict[str, Array]]]:
        batch = without_weights(stages[phase].batch(state))
        return batch, problem.pointwise(*losses.fields(losses.kind.export(state.params)), batch)

    known = not isinstance(config.optimizer, _optimizers.Own)
    plain = config.with_numbers({"loss_weights": {}})
    return Program(
        init=init,
        begin=lambda state, phase: stages[phase].begin(state),
        advance=advance,
        evaluate=_evaluate.build(problem, losses, config, rate if known else None, watch),
        residuals=residuals,
        export=losses.kind.export,
        estimate=_estimate.build(problem, _losses.build(problem, network, plain, place)),
        objectives=losses.names,
    )


def compiled(program: Program) -> Program:
    """Returns the functions under `jit`; `begin`, `advance` and `evaluate` donate their state."""
    return program._replace(
        begin=jax.jit(program.begin, static_argnums=1, donate_argnums=0),
        advance=jax.jit(program.advance, static_argnums=(1, 2), donate_argnums=0),
        evaluate=jax.jit(program.evaluate, donate_argnums=0),
        residuals=jax.jit(program.residuals, static_argnums=1),
        estimate=jax.jit(program.estimate),
    )
