"""Optimisers of stacked gradients: methods that stand in the place of aggregator and Adam."""

from modsync_jax.optimizers._momentum_config import MomentumConfigState, momentum_config
from modsync_jax.optimizers._per_objective import multi_adam, per_objective

__all__ = ["MomentumConfigState", "momentum_config", "multi_adam", "per_objective"]
