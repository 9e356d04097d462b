"""Sweeps: many replicas in one program, sharded over devices, in groups of equal shapes."""

from modsync_jax.sweeps._grid import Grid, check, parse
from modsync_jax.sweeps._hosts import is_primary
from modsync_jax.sweeps._replicas import STRATEGIES
from modsync_jax.sweeps._store import EXPORTS
from modsync_jax.sweeps._sweep import sweep

__all__ = ["EXPORTS", "STRATEGIES", "Grid", "check", "is_primary", "parse", "sweep"]
