"""ModSync and conflict-averse gradient methods for physics-informed neural networks in JAX.

The core, for any JAX code, is here at once; what solves problems (`solve` and `load`) is imported
when it is first used, and with it Flax, Orbax and Matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

from modsync_jax import aggregators, sparsity
from modsync_jax._version import __version__
from modsync_jax.aggregators import value_and_objective_grad
from modsync_jax.gradients import gramian, value_and_objective_grads
from modsync_jax.transform import (
    ModSyncParams,
    effective_weights,
    export,
    mask_objectives,
    modsync,
    with_thresholds,
)

if TYPE_CHECKING:
    from modsync_jax.training import load, solve

__all__ = [
    "ModSyncParams",
    "__version__",
    "aggregators",
    "effective_weights",
    "export",
    "gramian",
    "load",
    "mask_objectives",
    "modsync",
    "solve",
    "sparsity",
    "value_and_objective_grad",
    "value_and_objective_grads",
    "with_thresholds",
]


def __getattr__(name: str) -> Any:
    if name in ("load", "solve"):
        return getattr(importlib.import_module("modsync_jax.training"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
