"""The machine and the versions behind a benchmark's numbers."""

import os
from importlib import metadata
from typing import Any

import jax

from modsync_jax.studies import processor
from modsync_jax.training import versions


def describe() -> dict[str, Any]:
    """Processor, cores, accelerator and versions."""
    facts: dict[str, Any] = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
        "versions": versions(),
    }
    for peer in ("torch", "conflictfree"):
        try:
            facts["versions"][peer] = metadata.version(peer)
        except metadata.PackageNotFoundError:
            continue
    return facts
