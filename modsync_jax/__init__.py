"""ModSync and conflict-averse gradient methods for physics-informed neural networks in JAX."""

from modsync_jax import aggregators, sparsity
from modsync_jax._version import __version__
from modsync_jax.gradients import gramian, value_and_objective_grads
from modsync_jax.transform import (
    ModSyncParams,
    effective_weights,
    export,
    mask_objectives,
    modsync,
    with_thresholds,
)

__all__ = [
    "ModSyncParams",
    "__version__",
    "aggregators",
    "effective_weights",
    "export",
    "gramian",
    "mask_objectives",
    "modsync",
    "sparsity",
    "value_and_objective_grads",
    "with_thresholds",
]
