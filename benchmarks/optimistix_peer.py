"""The package `ssbroyden-optimistix` on this project's losses and points.

It has the method of the recipe's optimiser with a line search of its own. Points are drawn by the
rule of the recipe; at a draw the package starts again with the inverse Hessian that it had.
"""

import itertools
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import ssbroyden_optimistix
from jax import Array
from jax.flatten_util import ravel_pytree

from modsync_jax import problems
from modsync_jax.training import TrainConfig, _balance, _losses, _measure, _step

from . import rows

_AT_ONCE = 50  # steps of the package between two looks at the clock; a step is one evaluation


def train(
    problem: str, settings: dict[str, Any], started: float, seconds: float, kept: int
) -> dict[str, Any]:
    """Trains until so many seconds after `started`, and returns what a row of results holds."""
    config = TrainConfig.from_settings(settings)
    found = problems.get(problem, **config.coefficients)
    network = _step.network_of(found, config)
    config = _balance.weighed(config, _balance.factors(found, network, config))
    program = _step.compiled(_step.build(found, network, config))
    losses = _losses.build(found, network, config, lambda points: points)
    references = _measure.references(found, config)
    every: Any = config.phases[0].settings
    run = program.init(config.seed)
    x, unravel = ravel_pytree(run.params)
    solver = ssbroyden_optimistix.SSBroyden(rtol=0.0, atol=0.0)
    none: frozenset[object] = frozenset()

    def loss(x: Array, points: Any) -> tuple[Array, None]:
        return sum(f(unravel(x), points) for f in losses.trained.values()), None  # type: ignore[return-value]

    @eqx.filter_jit
    def begin(x: Array, points: Any, before: Any) -> Any:
        state = solver.init(loss, x, points, {}, jax.ShapeDtypeStruct((), x.dtype), None, none)

        def curvature(state: Any) -> Any:
            return state.f_info.hessian_inv, state.hessian_update_state

        return state if before is None else eqx.tree_at(curvature, state, curvature(before))

    @eqx.filter_jit
    def advance(x: Array, state: Any, points: Any) -> Any:
        arrays, static = eqx.partition(state, eqx.is_array)

        def step(_: int, carry: Any) -> Any:
            x, arrays = carry
            x, state, _ = solver.step(loss, x, points, {}, eqx.combine(arrays, static), none)
            return x, eqx.partition(state, eqx.is_array)[0]

        x, arrays = jax.lax.fori_loop(0, _AT_ONCE, step, (x, arrays))
        return x, eqx.combine(arrays, static)

    state, evaluated = None, []
    for done in itertools.count(step=_AT_ONCE):
        run = run._replace(params=unravel(x), step=jnp.asarray(done, run.step.dtype))
        if done % config.eval_every == 0:
            run, row = program.evaluate(run, references)
            now = time.time() - started
            evaluated.append((now, float(row["test/relative_l2"]), float(row["score"])))
            if now >= seconds:
                break
        if done % every.redraw == 0:
            run = program.advance(run, 0, 0)  # draws points, and takes no step
            state = begin(x, run.points, state)
        x, state = jax.block_until_ready(advance(x, state, run.points))
    times, errors, scores = zip(*evaluated, strict=True)
    return {
        "parameters": x.size,
        "loss_weights": dict(config.loss_weights),
        "steps": done,
        **rows.history(times, errors, scores, kept),
    }
