"""Training: one loop for every problem and method, whose folders stay usable after a kill."""

from modsync_jax.training._config import (
    DEFAULT_METHOD,
    FORMAT,
    SECTIONS,
    ConfigError,
    TrainConfig,
    entry_type,
    gone,
)
from modsync_jax.training._diagnose import LEFT_OUT, diagnose_problem, diagnose_run
from modsync_jax.training._folder import RunError, read_config, read_metrics, read_result
from modsync_jax.training._loop import AUTO, Interrupted, NonFinite, solve
from modsync_jax.training._measure import on_grid, versions
from modsync_jax.training._presets import PRESETS, expanded
from modsync_jax.training._solution import Solution, load

__all__ = [
    "AUTO",
    "DEFAULT_METHOD",
    "FORMAT",
    "LEFT_OUT",
    "PRESETS",
    "SECTIONS",
    "ConfigError",
    "Interrupted",
    "NonFinite",
    "RunError",
    "Solution",
    "TrainConfig",
    "diagnose_problem",
    "diagnose_run",
    "entry_type",
    "expanded",
    "gone",
    "load",
    "on_grid",
    "read_config",
    "read_metrics",
    "read_result",
    "solve",
    "versions",
]
