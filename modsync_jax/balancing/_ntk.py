"""Loss weights by the tangent kernel, and the traces that they need."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax.balancing import _base
from modsync_jax.balancing._base import Given

PyTree = Any


def ntk(num_objectives: int, *, every: int = 100) -> optax.GradientTransformationExtraArgs:
    """Gives all parts of the tangent kernel one trace: `λ_k = sum_j T_j / T_k`.

    T_k is the trace of `J_k J_kᵀ`, J_k the Jacobian of objective k's residual vector by the
    parameters. `update` takes the traces as the extra argument `residual_jacobian_traces`, [K], or
    a function without arguments that returns them, called only when they are needed. Compute them
    by `jacobian_traces` or `hutchinson_traces`. The weight of a trace that is zero stays.

    Args:
      num_objectives: K.
      every: updates between new values.

    Raises:
      ValueError: on a hyperparameter out of range and, when traced, on missing traces.

    References:
      Wang, Yu and Perdikaris, When and why PINNs fail to train: A neural tangent kernel
      perspective, JCP 2022, Algorithm 1. There residuals are not divided by the number of points;
      which vectors are meant is the caller's choice.
    """

    def rule(now: Given) -> tuple[Array, tuple]:
        given = now.extra["residual_jacobian_traces"]
        traces = jnp.asarray(given() if callable(given) else given)
        new = _base.quotient(traces.sum(), traces, now.loss_weights)
        return new.astype(now.loss_weights.dtype), ()

    return _base.from_rule(rule, num_objectives, every=every, needs=("residual_jacobian_traces",))


def jacobian_traces(
    residuals: Mapping[str, Callable[[PyTree, PyTree], Array]],
    params: PyTree,
    points: Mapping[str, PyTree],
    *,
    chunk: int = 64,
) -> Array:
    """The traces of `J_k J_kᵀ`, sums of squared per-point gradients, exactly.

    Args:
      residuals: for each name a function `(params, points) -> [N]`, pointwise: entry n depends on
        point n alone.
      params: the parameters.
      points: for each name a pytree of arrays whose leading axis is N.
      chunk: how many points' gradients are held at once; memory is `chunk` times the parameters.

    Returns:
      The traces [K], by sorted name.
    """

    def trace(name: str) -> Array:
        def squared(point: PyTree) -> Array:
            one = jax.tree.map(lambda x: x[None], point)
            grad = jax.grad(lambda p: residuals[name](p, one)[0])(params)
            return sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grad))  # type: ignore[return-value]

        return jax.lax.map(squared, points[name], batch_size=chunk).sum()

    return jnp.stack([trace(name) for name in sorted(residuals)])


def hutchinson_traces(
    residuals: Mapping[str, Callable[..., Array]],
    params: PyTree,
    *args: Any,
    key: Array,
    samples: int = 1,
) -> Array:
    """Unbiased estimates of the traces of `J_k J_kᵀ`, each for the cost of one gradient.

    `E ||J_kᵀ v||² = tr J_k J_kᵀ` for random signs v. The standard deviation is at most √2 of the
    trace, and small where the gradients of different points are nearly orthogonal.

    Args:
      residuals: for each name a function `(params, *args) -> [N]`.
      params: the parameters.
      *args: what else the functions take.
      key: PRNG key of the signs.
      samples: how many estimates are averaged.

    Returns:
      The estimates [K], by sorted name.
    """

    def trace(name: str, key: Array) -> Array:
        values, pull_back = jax.vjp(lambda p: residuals[name](p, *args), params)

        def squared(key: Array) -> Array:
            (grad,) = pull_back(jax.random.rademacher(key, values.shape, values.dtype))
            return sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grad))  # type: ignore[return-value]

        return jax.lax.map(squared, jax.random.split(key, samples)).mean()

    keys = jax.random.split(key, len(residuals))
    return jnp.stack([trace(name, k) for name, k in zip(sorted(residuals), keys, strict=True)])
