"""Optimisers that optax lacks: of stacked gradients, of matrices (SOAP), and second-order ones."""

from modsync_jax.optimizers._gauss_newton import GaussNewtonState, gauss_newton
from modsync_jax.optimizers._metric import metric
from modsync_jax.optimizers._momentum_config import MomentumConfigState, momentum_config
from modsync_jax.optimizers._per_objective import multi_adam, per_objective
from modsync_jax.optimizers._self_scaled import SelfScaledState, bfgs, ssbfgs, ssbroyden
from modsync_jax.optimizers._soap import SoapState, soap

__all__ = [
    "GaussNewtonState",
    "MomentumConfigState",
    "SelfScaledState",
    "SoapState",
    "bfgs",
    "gauss_newton",
    "metric",
    "momentum_config",
    "multi_adam",
    "per_objective",
    "soap",
    "ssbfgs",
    "ssbroyden",
]
