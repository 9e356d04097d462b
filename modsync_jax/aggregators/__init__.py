"""Aggregators: stacked gradients in, one update direction out, as optax transformations."""

from typing import NoReturn

from modsync_jax._moved import missing
from modsync_jax.aggregators._aligned_mtl import aligned_mtl, aligned_mtl_weights
from modsync_jax.aggregators._base import AggregatorState, from_weights
from modsync_jax.aggregators._cagrad import cagrad, cagrad_weights
from modsync_jax.aggregators._chebyshev_center import chebyshev_center, chebyshev_center_weights
from modsync_jax.aggregators._config import config, config_weights
from modsync_jax.aggregators._dcgd import dcgd, dcgd_weights
from modsync_jax.aggregators._dual_proj import dual_proj, dual_proj_weights
from modsync_jax.aggregators._grad_drop import grad_drop
from modsync_jax.aggregators._imtl_g import imtl_g, imtl_g_weights
from modsync_jax.aggregators._mgda import mgda, mgda_weights
from modsync_jax.aggregators._nash_mtl import nash_mtl, nash_mtl_weights
from modsync_jax.aggregators._pcgrad import pcgrad, pcgrad_weights
from modsync_jax.aggregators._sum import mean, mean_weights, sum, sum_weights
from modsync_jax.aggregators._upgrad import upgrad, upgrad_weights

__all__ = [
    "AggregatorState",
    "aligned_mtl",
    "aligned_mtl_weights",
    "cagrad",
    "cagrad_weights",
    "chebyshev_center",
    "chebyshev_center_weights",
    "config",
    "config_weights",
    "dcgd",
    "dcgd_weights",
    "dual_proj",
    "dual_proj_weights",
    "from_weights",
    "grad_drop",
    "imtl_g",
    "imtl_g_weights",
    "mean",
    "mean_weights",
    "mgda",
    "mgda_weights",
    "nash_mtl",
    "nash_mtl_weights",
    "pcgrad",
    "pcgrad_weights",
    "sum",
    "sum_weights",
    "upgrad",
    "upgrad_weights",
]

_MOVED = {
    "MomentumConfigState": "modsync_jax.optimizers.MomentumConfigState",
    "momentum_config": "modsync_jax.optimizers.momentum_config",
    "value_and_objective_grad": "modsync_jax.value_and_objective_grad",
}


def __getattr__(name: str) -> NoReturn:
    raise missing(__name__, name, _MOVED)
