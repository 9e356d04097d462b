"""Aggregators: stacked gradients in, one update direction out, as optax transformations."""

from modsync_jax.aggregators._base import AggregatorState, from_weights
from modsync_jax.aggregators._config import config, config_weights
from modsync_jax.aggregators._dcgd import dcgd, dcgd_weights
from modsync_jax.aggregators._sum import mean, mean_weights, sum, sum_weights

__all__ = [
    "AggregatorState",
    "config",
    "config_weights",
    "dcgd",
    "dcgd_weights",
    "from_weights",
    "mean",
    "mean_weights",
    "sum",
    "sum_weights",
]
