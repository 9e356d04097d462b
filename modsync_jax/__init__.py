"""ModSync and conflict-averse gradient methods for physics-informed neural networks in JAX.

The core serves any JAX code and is imported at once. `solve`, `load` and `cite` are imported when
they are first used, and with them Flax, Orbax and Matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

from modsync_jax import (
    adapters,
    aggregators,
    balancing,
    diagnostics,
    loss_indexed,
    optimizers,
    pruning,
    sparsity,
)
from modsync_jax._moved import missing
from modsync_jax._version import __version__
from modsync_jax.diagnostics import diagnose
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
    "adapters",
    "aggregators",
    "balancing",
    "cite",
    "diagnose",
    "diagnostics",
    "effective_weights",
    "export",
    "gramian",
    "load",
    "loss_indexed",
    "mask_objectives",
    "modsync",
    "optimizers",
    "pruning",
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
