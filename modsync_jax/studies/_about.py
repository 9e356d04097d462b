"""Where numbers were made."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from modsync_jax.training import versions


def about() -> dict[str, Any]:
    """Returns the processor, the devices, the versions, and the commit if this is a checkout.

    A commit with changes that are not in it ends in `-dirty`.
    """
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:  # no git
        commit = ""
    devices = f"{jax.device_count()} × {jax.devices()[0].device_kind}"
    found = {"processor": processor(), "devices": devices, "commit": commit.strip()}
    return found | {name: versions()[name] for name in ("modsync_jax", "jax")}


def processor() -> str:
    """Returns the name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
