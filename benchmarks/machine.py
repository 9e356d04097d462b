"""The machine and the versions behind a benchmark's numbers."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from modsync_jax.training import versions


def describe() -> dict[str, Any]:
    """Processor, cores, accelerator and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    facts: dict[str, Any] = {
        "processor": names[0] if names else platform.processor(),
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
