"""Self-adaptive weights of losses and of points: they ascend the loss that parameters descend."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax import loss_indexed
from modsync_jax.balancing import _base
from modsync_jax.balancing._base import Given
from modsync_jax.loss_indexed import Kind

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
      optimizer: the optimiser of the s_k; `optax.adam(1e-3)` if None. It gets the negative
        gradient, because optimisers descend.
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
    """Objectives `mean_n mask(w_n) r_n²` of `PointWeighted` parameters, for fixed points.

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


def point_weights(
    counts: Mapping[str, int], optimizer: optax.GradientTransformation | None = None
) -> Kind:
    """Weights of points as a kind of loss-indexed parameters: they ascend their objective, from 1.

    Args:
      counts: the number of points of each objective.
      optimizer: `optax.adam(1e-3)` if None. It gets the negative gradient.
    """

    def start(*_: Any) -> dict[str, Array]:
        return {name: jnp.ones(count) for name, count in counts.items()}

    def pick(grads: Mapping[str, Array], weights: Mapping[str, Array]) -> dict[str, Array]:
        return {name: grads[name][k] for k, name in enumerate(sorted(weights))}

    return Kind(
        start=start,
        act=PointWeighted,
        tx=optax.chain(optax.scale(-1.0), optimizer or optax.adam(1e-3)),
        pick=pick,
        pair=PointWeighted,
    )


def self_adaptive_points(
    params_tx: optax.GradientTransformation,
    weights_tx: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Trains parameters by `params_tx`, while each point's weight ascends its objective.

    Args:
      params_tx: from stacked gradients to updates, such as an aggregator and an optimiser.
      weights_tx: the optimiser of the point weights; `optax.adam(1e-3)` if None.

    Returns:
      A transformation over stacked gradients of `PointWeighted`.
    """
    return loss_indexed.transformation(params_tx, point_weights({}, weights_tx))
