"""Compiled programs, kept between runs by JAX's persistent compilation cache."""

import hashlib
import os
import platform
from pathlib import Path

import jax

_BYTES = 2**31  # the least recently used go first


def keep(folder: str) -> None:
    """Lets JAX keep compiled programs for the next run that needs the same ones.

    Args:
      folder: where; `none` keeps nothing, `auto` keeps them in the user's cache folder.
    """
    if folder == "none":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if folder == "auto":
        # A cache that the user has set up stays; with JAX 0.6 cached code rounded otherwise.
        if jax.config.values["jax_compilation_cache_dir"] or jax.__version_info__ < (0, 10):
            return
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = str(user / "modsync_jax" / f"{platform.machine()}-{_features_of_cpu()}")
    jax.config.update("jax_compilation_cache_dir", os.path.abspath(folder))
    jax.config.update("jax_compilation_cache_max_size", _BYTES)


def _features_of_cpu() -> str:
    """Tells CPUs apart that share a home folder: code for one may not run on another."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else [platform.processor()]
    features = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return hashlib.sha256(features.encode()).hexdigest()[:8]
