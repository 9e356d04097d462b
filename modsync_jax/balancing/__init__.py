"""Loss balancing: stacked gradients in, stacked out, each multiplied by its loss weight.

It chains before any aggregator: `optax.chain(balancing.norm_balance(2), aggregators.dcgd(), ...)`.
Every method takes the objectives as their number or by name. The mapping of objectives behind the
gradients is a collection of names too, so nobody has to count or sort.
"""

from typing import NoReturn

from modsync_jax._moved import missing
from modsync_jax.balancing._base import BalancingState, from_rule
from modsync_jax.balancing._fixed import fixed
from modsync_jax.balancing._gradnorm import gradnorm
from modsync_jax.balancing._lra import lra
from modsync_jax.balancing._norm_balance import norm_balance
from modsync_jax.balancing._ntk import jacobian_traces, ntk
from modsync_jax.balancing._relobralo import relobralo
from modsync_jax.balancing._self_adaptive import (
    PointWeighted,
    point_weighted,
    point_weights,
    self_adaptive,
    self_adaptive_points,
)
from modsync_jax.balancing._softadapt import softadapt

__all__ = [
    "BalancingState",
    "PointWeighted",
    "fixed",
    "from_rule",
    "gradnorm",
    "jacobian_traces",
    "lra",
    "norm_balance",
    "ntk",
    "point_weighted",
    "point_weights",
    "relobralo",
    "self_adaptive",
    "self_adaptive_points",
    "softadapt",
]

_MOVED = {
    "hutchinson_traces": "modsync_jax.balancing.jacobian_traces, which is exact",
    "multi_adam": "modsync_jax.optimizers.multi_adam",
    "per_objective": "modsync_jax.optimizers.per_objective",
}


def __getattr__(name: str) -> NoReturn:
    raise missing(__name__, name, _MOVED)
