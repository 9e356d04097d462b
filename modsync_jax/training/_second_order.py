"""Second-order phases: iterations of one solver for all losses, on points that stay for a while."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax import optimizers
from modsync_jax.problems import without_weights
from modsync_jax.training import _points
from modsync_jax.training._config import TrainConfig
from modsync_jax.training._losses import Losses
from modsync_jax.training._phases import LBFGS, Dense, GaussNewton, Phase
from modsync_jax.training._stage import Stage, as_is, of_weights_alone
from modsync_jax.training._state import KEPT, SKETCH, TrainState, accept, cast, stream, weights_of

PyTree = Any


class _Solver(NamedTuple):
    """An optimiser of all losses together on points that stay.

    Attributes:
      init: `(weights) -> state` of the optimiser.
      learn: `(run's state) -> optimiser's state`, after new points.
      move: `(run's state) -> (updates of the weights, optimiser's state)`.
    """

    init: Callable[[PyTree], Any]
    learn: Callable[[TrainState], Any]
    move: Callable[[TrainState], tuple[PyTree, Any]]


def build(index: int, config: TrainConfig, losses: Losses) -> Stage:
    """Returns the functions of the phase of number `index` in the run."""
    phase, start = config.phases[index], config.starts[index]
    settings: Any = phase.settings
    dtype = jnp.dtype(settings.dtype or config.dtype)
    solver = _SOLVERS[type(settings)](phase, losses)

    def draw(state: TrainState) -> Any:
        key = stream(state, KEPT)
        if settings.redraw:
            key = jax.random.fold_in(key, state.step)
        points = losses.sample(key, settings.points, dtype)
        if not settings.rad:
            return points
        pool_key, key = jax.random.split(jax.random.fold_in(key, 1))
        pool = losses.sample(pool_key, settings.points * _points.POOL, dtype)["residual"]
        count = len(points["residual"])
        sizes = losses.sizes(weights_of(state.params), pool)
        return points | {"residual": _points.adapted(key, sizes, pool, count, settings.rad)}

    def draws(state: TrainState) -> Array:
        """The draws of the phase before this one."""
        return (state.step - start) // max(settings.redraw, 1)

    def redrawn(state: TrainState) -> TrainState:
        """New points; the optimiser keeps its curvature and learns the loss on them."""
        points, weights = draw(state), weights_of(state.params)
        if settings.r3:
            old = without_weights(state.points)["residual"]
            stays = (state.step > start) & _points.retained(losses.sizes(weights, old), settings.r3)
            points |= {"residual": jnp.where(stays[:, None], old, points["residual"])}
        state = state._replace(points=losses.counted(weights, points, draws(state)))
        return state._replace(opt_state=solver.learn(state))

    def begin(state: TrainState) -> TrainState:
        state = cast(state, dtype)
        # Own parameters go into the weights. Pruned weights become zeros, whose masks stay zero, so
        # their gradients do too, and no iterate moves them.
        params = losses.kind.settled(state.params)
        state = state._replace(params=params, opt_state=solver.init(weights_of(params)))
        # The first chunk draws the points, so that drawing is compiled once; until then, zeros.
        shapes = jax.eval_shape(
            lambda s: losses.counted(weights_of(s.params), draw(s), draws(s)), state
        )
        return state._replace(points=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))

    def prepare(state: TrainState) -> TrainState:
        done = state.step - start
        due = done % settings.redraw == 0 if settings.redraw else done == 0
        return jax.lax.cond(due, redrawn, as_is, state)

    def step(state: TrainState, _: Array) -> TrainState:
        updates, opt_state = solver.move(state)
        value = optax.tree_utils.tree_get(opt_state, "value")
        updates = of_weights_alone(losses.kind, updates, state.params)
        return accept(state, state.losses, updates, opt_state, jnp.isfinite(value))

    def settle(state: TrainState) -> TrainState:
        return state._replace(losses=_values(losses, state, weights_of(state.params)))

    def rate(step: Array) -> Array:
        return jnp.full((), jnp.nan, dtype)

    return Stage(begin, prepare, lambda state: state.points, step, settle, rate)


def _quasi_newton(phase: Phase, losses: Losses) -> _Solver:
    """L-BFGS, or a method with a dense inverse Hessian, on the summed losses."""
    settings: Any = phase.settings
    tx = {
        "lbfgs": lambda: optax.lbfgs(memory_size=settings.memory),
        "bfgs": optimizers.bfgs,
        "ssbfgs": optimizers.ssbfgs,
        "ssbroyden": optimizers.ssbroyden,
    }[phase.name]()

    def total(state: TrainState, weights: PyTree) -> Array:
        return _values(losses, state, weights).sum()

    def learn(state: TrainState) -> Any:
        weights = weights_of(state.params)
        if isinstance(settings, LBFGS):
            value, grad = jax.value_and_grad(partial(total, state))(weights)
            return optax.tree_utils.tree_set(state.opt_state, value=value, grad=grad)
        learnt = state.opt_state._replace(value=jnp.full_like(state.opt_state.value, jnp.inf))
        if not settings.needs_jacobian:
            return learnt
        residuals, rows = losses.jacobian(weights, state.points)
        rows *= _kept(losses, state)
        eye = jnp.eye(rows.shape[1], dtype=rows.dtype)
        # The damping falls with the loss, because the matrix then comes ever closer to the Hessian.
        damping = settings.jacobian * (residuals @ residuals)
        factor = jnp.linalg.cholesky(2 * rows.T @ rows + damping * eye)
        inverse = jax.scipy.linalg.cho_solve((factor, True), eye)
        return learnt.restarted((inverse + inverse.T) / 2)

    def move(state: TrainState) -> tuple[PyTree, Any]:
        get = partial(optax.tree_utils.tree_get, state.opt_state)
        return tx.update(
            get("grad"),
            state.opt_state,
            weights_of(state.params),
            value=get("value"),
            grad=get("grad"),
            value_fn=partial(total, state),
        )

    return _Solver(tx.init, learn, move)


def _gauss_newton(phase: Phase, losses: Losses) -> _Solver:
    """Gauss-Newton steps on the residuals of all objectives together."""
    settings: Any = phase.settings
    tx = optimizers.gauss_newton(
        damping=settings.damping,
        momentum=settings.momentum,
        cg=settings.cg,
        sketch=settings.sketch,
    )

    def learn(state: TrainState) -> Any:
        residuals = losses.residuals(weights_of(state.params), state.points)
        return state.opt_state._replace(value=residuals @ residuals)

    def move(state: TrainState) -> tuple[PyTree, Any]:
        kept = _kept(losses, state)

        def residuals(weights: PyTree) -> Array:
            flat, unravel = jax.flatten_util.ravel_pytree(weights)
            return losses.residuals(unravel(kept * flat), state.points)

        def jacobian(weights: PyTree) -> tuple[Array, Array]:
            residuals, rows = losses.jacobian(weights, state.points)
            return residuals, rows * kept

        updates, opt_state = tx.update(
            None,
            state.opt_state,
            weights_of(state.params),
            residual_fn=residuals,
            jacobian_fn=jacobian,
            key=jax.random.fold_in(stream(state, SKETCH), state.step),
        )
        # A sketch's rounding reaches weights that have no derivatives; pruned ones stay zero.
        flat, unravel = jax.flatten_util.ravel_pytree(updates)
        return unravel(kept * flat), opt_state

    return _Solver(tx.init, learn, move)


def _kept(losses: Losses, state: TrainState) -> Array:
    """1 for weights that may move, else 0, `[n]`."""
    ones = jax.tree.map(jnp.ones_like, weights_of(state.params))
    return jax.flatten_util.ravel_pytree(losses.cut(state.params)(ones))[0]


_SOLVERS: Mapping[type, Callable[[Phase, Losses], _Solver]] = {
    LBFGS: _quasi_newton,
    Dense: _quasi_newton,
    GaussNewton: _gauss_newton,
}


def _values(losses: Losses, state: TrainState, weights: PyTree) -> Array:
    """The losses [K] of weights on the points that stay."""
    objectives = losses.settled(state.params)
    return jnp.stack([objectives[name](weights, state.points) for name in losses.names])
