"""The Gauss-Newton method with adaptive damping (Levenberg-Marquardt), on a residual vector."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from modsync_jax._ranges import check_range

PyTree = Any

_GAIN = 1e-4  # the least share of the predicted decrease that makes a step


class GaussNewtonState(NamedTuple):
    """State of the Gauss-Newton method.

    Attributes:
      value: the loss at the present parameters, [], or infinity when it is not known.
      damping: λ of the next step, [], or 0 before the first one.
      growth: the factor of λ at the next step that fails, [].
      last: the latest step, in the structure of the parameters.
      evaluations: steps that were tried in the latest iteration, [] int32.
    """

    value: Array
    damping: Array
    growth: Array
    last: PyTree
    evaluations: Array


class _Tried(NamedTuple):
    """Steps under trial: the latest one `[n]`, the loss after it, λ, its growth, and outcomes."""

    step: Array
    value: Array
    damping: Array
    growth: Array
    evaluations: Array
    done: Array


def gauss_newton(
    *, damping: float = 1e-3, momentum: float = 0.0, max_evaluations: int = 8
) -> optax.GradientTransformationExtraArgs:
    """Levenberg-Marquardt: steps of a loss `‖r‖²` that solve its linear least-squares problem.

    The step δ minimises `‖r + J δ‖² + λ ‖δ - μ δ₋‖²`, with the latest step δ₋: in the primal form
    `(JᵀJ + λI) δ = -Jᵀr + λ μ δ₋`, or in the dual one where there are fewer residuals than
    parameters, `δ = μ δ₋ - Jᵀ (JJᵀ + λI)⁻¹ (r + μ J δ₋)`. It is taken if the loss falls. λ then
    changes with the gain, the ratio of the loss's decrease to the predicted one, by Nielsen's rule;
    if the loss does not fall, a larger λ is tried with the same J.

    `update(grad, state, params, residual_fn=..., jacobian_fn=...)` ignores the gradient.
    `residual_fn(params)` is r, `[M]`, and `jacobian_fn(params)` the pair of r and J, `[M, n]`, with
    columns in the order of `jax.flatten_util.ravel_pytree`.

    Args:
      damping: the first λ, as a share of the largest entry on the diagonal of JᵀJ; not negative.
      momentum: μ in [0, 1].
      max_evaluations: steps to try in one iteration, 1 or more.

    Raises:
      ValueError: on an argument out of range.

    References:
      Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05; Goldshlager, Abrahamsen &
      Lin 2024 (SPRING) for the momentum and the dual form.
    """
    check_range("damping", damping, 0.0)
    check_range("momentum", momentum, 0.0, 1.0)
    check_range("max_evaluations", max_evaluations, 1)

    def init_fn(params: PyTree) -> GaussNewtonState:
        x, _ = ravel_pytree(params)
        return GaussNewtonState(
            value=jnp.array(jnp.inf, x.dtype),
            damping=jnp.zeros((), x.dtype),
            growth=jnp.full((), 2.0, x.dtype),
            last=jax.tree.map(jnp.zeros_like, params),
            evaluations=jnp.zeros((), jnp.int32),
        )

    def update_fn(
        updates: PyTree,
        state: GaussNewtonState,
        params: PyTree = None,
        *,
        residual_fn: Callable[[PyTree], Array],
        jacobian_fn: Callable[[PyTree], tuple[Array, Array]],
        **extra_args: Any,
    ) -> tuple[PyTree, GaussNewtonState]:
        del updates, extra_args
        x, unravel = ravel_pytree(params)
        r, jacobian = jacobian_fn(params)
        last = momentum * ravel_pytree(state.last)[0]
        slope, value = jacobian.T @ r, r @ r
        count, size = jacobian.shape
        primal = size <= count
        product = jacobian.T @ jacobian if primal else jacobian @ jacobian.T
        scale = jnp.square(jacobian).sum(0).max()
        first = jnp.where(state.damping > 0, state.damping, damping * scale)

        def solved(lam: Array) -> Array:
            factor = jnp.linalg.cholesky(product + lam * jnp.eye(len(product), dtype=x.dtype))
            solve = jax.scipy.linalg.cho_solve
            if primal:
                return solve((factor, True), lam * last - slope)
            return last - jacobian.T @ solve((factor, True), r + jacobian @ last)

        def attempt(tried: _Tried) -> _Tried:
            step = solved(tried.damping)
            after = residual_fn(unravel(x + step))
            new, linear = after @ after, r + jacobian @ step
            gain = (value - new) / (value - linear @ linear)
            # Comparisons with NaN are False: a failed factorisation asks for more damping.
            good = (gain > _GAIN) & (new < value)
            shrink = jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3)
            factor = jnp.where(good, shrink, tried.growth)
            return _Tried(
                step=jnp.where(good, step, 0.0),
                value=jnp.where(good, new, value),
                damping=jnp.maximum(tried.damping, jnp.finfo(x.dtype).tiny) * factor,
                growth=jnp.where(good, 2.0, 2 * tried.growth),
                evaluations=tried.evaluations + 1,
                done=good,
            )

        start = _Tried(
            step=jnp.zeros_like(x),
            value=value,
            damping=first,
            growth=state.growth,
            evaluations=jnp.zeros((), jnp.int32),
            done=jnp.array(False),
        )
        tried = jax.lax.while_loop(
            lambda t: ~t.done & (t.evaluations < max_evaluations), attempt, start
        )
        step = unravel(tried.step)
        after = GaussNewtonState(
            value=tried.value,
            damping=tried.damping,
            growth=jnp.minimum(tried.growth, 2.0**10),
            last=step,
            evaluations=tried.evaluations,
        )
        return step, after

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
