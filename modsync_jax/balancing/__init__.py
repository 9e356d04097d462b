"""Loss balancing: stacked gradients in, stacked out, each multiplied by its loss weight.

It chains before any aggregator: `optax.chain(balancing.lra(2), aggregators.dcgd(), ...)`.
"""

from modsync_jax.balancing._base import BalancingState, from_rule
from modsync_jax.balancing._fixed import fixed
from modsync_jax.balancing._gradnorm import gradnorm
from modsync_jax.balancing._lra import lra
from modsync_jax.balancing._norm_balance import norm_balance
from modsync_jax.balancing._ntk import hutchinson_traces, jacobian_traces, ntk
from modsync_jax.balancing._per_objective import multi_adam, per_objective
from modsync_jax.balancing._relobralo import relobralo
from modsync_jax.balancing._self_adaptive import (
    PointWeighted,
    point_weighted,
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
    "hutchinson_traces",
    "jacobian_traces",
    "lra",
    "multi_adam",
    "norm_balance",
    "ntk",
    "per_objective",
    "point_weighted",
    "relobralo",
    "self_adaptive",
    "self_adaptive_points",
    "softadapt",
]
