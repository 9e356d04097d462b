"""ModSync and conflict-averse gradient methods for physics-informed neural networks in JAX.

The core, for any JAX code, is here at once; what solves problems (`solve`, `load`, `cite`) is
imported when it is first used, and with it Flax, Orbax and Matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

from modsync_jax import aggregators, balancing, optimizers, sparsity
from modsync_jax._moved import missing
from modsync_jax._version import __version__
from modsync_jax.gradients import (
    gramian,
    value_and_objective_grad,
    value_and_objective_grads,
)
from modsync_jax.transform import (
    ModSyncParams,
    effective_weights,
    export,
    mask_objectives,
    modsync,
    with_thresholds,
)

if TYPE_CHECKING:
    from modsync_jax.citations import cite
    from modsync_jax.training import load, solve

__all__ = [
    "ModSyncParams",
    "__version__",
    "aggregators",
    "balancing",
    "cite",
    "effective_weights",
    "export",
    "gramian",
    "load",
    "mask_objectives",
    "modsync",
    "optimizers",
    "solve",
    "sparsity",
    "value_and_objective_grad",
    "value_and_objective_grads",
    "with_thresholds",
]


_LATER = {"cite": "citations", "load": "training", "solve": "training"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"modsync_jax.{_LATER[name]}"), name)
    raise missing(__name__, name, {"chunks": "modsync_jax.blocks"})


def __dir__() -> list[str]:
    return __all__
