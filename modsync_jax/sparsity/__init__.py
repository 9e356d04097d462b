"""Learned sparsity: step estimators, thresholds, masks and the sparsity loss."""

from modsync_jax.sparsity._regularizer import sparsity_loss
from modsync_jax.sparsity._step import long_tailed_step
from modsync_jax.sparsity._thresholds import (
    KeepRatio,
    describe,
    init_thresholds,
    keep_ratio,
    masks,
)

__all__ = [
    "KeepRatio",
    "describe",
    "init_thresholds",
    "keep_ratio",
    "long_tailed_step",
    "masks",
    "sparsity_loss",
]
