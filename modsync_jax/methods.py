"""Methods by name: `dcgd`, `modsync+config`, ... as assembled optax transformations."""

from collections.abc import Callable
from typing import Any

import optax

from modsync_jax import aggregators
from modsync_jax._names import unknown
from modsync_jax.transform import modsync

_AGGREGATORS: dict[str, Callable[[], optax.GradientTransformationExtraArgs]] = {
    "adam": aggregators.sum,
    "config": aggregators.config,
    "dcgd": aggregators.dcgd,
    "dcgd-avg": lambda: aggregators.dcgd("avg"),
    "dcgd-proj": lambda: aggregators.dcgd("proj"),
    "pcgrad": aggregators.pcgrad,
    "cagrad": aggregators.cagrad,
    "mgda": aggregators.mgda,
    "chebyshev": aggregators.chebyshev_center,
    "imtl-g": aggregators.imtl_g,
    "aligned-mtl": aggregators.aligned_mtl,
    "upgrad": aggregators.upgrad,
    "dual-proj": aggregators.dual_proj,
    "nash-mtl": aggregators.nash_mtl,
    "grad-drop": aggregators.grad_drop,
}
_MASKED = "modsync+"


def names() -> list[str]:
    """All method names."""
    return [*_AGGREGATORS, *(_MASKED + name for name in _AGGREGATORS)]


def check(name: str) -> str:
    """Returns `name` if it is a method.

    Raises:
      ValueError: otherwise, with the nearest name.
    """
    if name not in names():
        raise unknown("method", name, names())
    return name


def is_masked(name: str) -> bool:
    """Whether a method trains `ModSyncParams`, weights and thresholds, or plain parameters."""
    return check(name).startswith(_MASKED)


def build(
    name: str,
    optimizer: optax.GradientTransformation,
    thresholds_optimizer: optax.GradientTransformation | None = None,
    **modsync_settings: Any,
) -> optax.GradientTransformationExtraArgs:
    """Assembles a method: from stacked gradients to updates.

    Args:
      name: one of `names()`. `adam` stands for the summed gradient before whatever `optimizer`.
      optimizer: what follows the aggregator.
      thresholds_optimizer: what moves thresholds, for `modsync+...`.
      **modsync_settings: further arguments of `modsync_jax.modsync`.

    Raises:
      ValueError: on an unknown name, with the nearest one.
    """
    aggregator = _AGGREGATORS[check(name).removeprefix(_MASKED)]()
    chain = optax.chain(aggregator, optimizer)
    return modsync(chain, thresholds_optimizer, **modsync_settings) if is_masked(name) else chain
