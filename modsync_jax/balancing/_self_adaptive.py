"""Self-adaptive weights, of losses and of points, which ascend what the parameters descend."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax import gradients
from modsync_jax.balancing import _base
from modsync_jax.balancing._base import Given

PyTree = Any


def self_adaptive(
    objectives: _base.Names,
    *,
    optimizer: optax.GradientTransformation | None = None,
    mask: Callable[[Array], Array] = jnp.square,
) -> optax.GradientTransformationExtraArgs:
    """Loss weights `mask(s_k)` whose s_k ascend `sum_k mask(s_k) L_k`, from s_k = 1.

    Args:
      objectives: K, or the objectives' names.
      optimizer: moves the s_k; `optax.adam(1e-3)` if None. It gets the negative gradient, since
        optimisers descend.
      mask: increasing function of single numbers.

    Raises:
      ValueError: when traced, on missing `losses`.

    References:
      McClenny and Braga-Neto, Self-Adaptive Physics-Informed Neural Networks, JCP 2023, Eq. 6-9.
    """
    tx = optimizer or optax.adam(1e-3)

    def rule(now: Given) -> tuple[Array, tuple]:
        s, state = now.memory
        losses = now.extra["losses"].astype(s.dtype)
        slopes = jax.grad(lambda s: -jnp.sum(mask(s) * losses))(s)
        weights = mask(s)
        moves, state = tx.update(slopes, state, s)
        return weights, (s + moves, state)

    return _base.from_rule(
        rule,
        objectives,
        needs=("losses",),
        start=lambda ones: (mask(ones), (ones, tx.init(ones))),
    )


class PointWeighted(NamedTuple):
    """Parameters, and a weight for each point of each objective, by name, `[N]`."""

    params: PyTree
    point_weights: Mapping[str, Array]


def point_weighted(
    residuals: Mapping[str, Callable[..., Array]],
    mask: Callable[[Array], Array] = jnp.square,
) -> dict[str, Callable[..., Array]]:
    """Objectives `mean_n mask(w_n) r_n²` of `PointWeighted` parameters, for points that stay.

    Args:
      residuals: for each name a function `(params, *args) -> [N]`.
      mask: increasing function of single numbers.

    Returns:
      For each name a function `(PointWeighted, *args) -> scalar`.

    References:
      McClenny and Braga-Neto, Self-Adaptive Physics-Informed Neural Networks, JCP 2023, Eq. 10-13.
    """

    def objective(name: str, weighted: PointWeighted, *args: Any) -> Array:
        r = residuals[name](weighted.params, *args)
        return jnp.mean(mask(weighted.point_weights[name]) * jnp.square(r))

    return {name: jax.tree_util.Partial(objective, name) for name in residuals}


def self_adaptive_points(
    params_tx: optax.GradientTransformation,
    weights_tx: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Parameters descend through `params_tx`; each point's weight ascends its objective.

    Args:
      params_tx: from stacked gradients to updates, such as an aggregator and an optimiser.
      weights_tx: moves the point weights; `optax.adam(1e-3)` if None.

    Returns:
      A transformation over stacked gradients of `PointWeighted`.
    """
    params_tx = optax.with_extra_args_support(params_tx)
    tx = weights_tx or optax.adam(1e-3)

    def init_fn(params: PointWeighted) -> tuple[Any, Any]:
        gradients.check_whole(params)
        return params_tx.init(params.params), tx.init(params.point_weights)

    def update_fn(
        updates: PointWeighted, state: tuple[Any, Any], params: Any = None, **extra_args: Any
    ) -> tuple[PointWeighted, tuple[Any, Any]]:
        gradients.check_stacked(updates, params)
        moves, params_state = params_tx.update(
            updates.params, state[0], params.params, **extra_args
        )
        gradients.check_single(
            moves, params.params, "self_adaptive_points(optax.chain(aggregators.sum(), ...))"
        )
        weights = params.point_weights
        ascent = {
            name: -updates.point_weights[name][k] for k, name in enumerate(sorted(weights))
        }  # objective k alone depends on its weights
        lifts, weights_state = tx.update(ascent, state[1], weights)
        return PointWeighted(moves, lifts), (params_state, weights_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
