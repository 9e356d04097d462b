"""Compiled programs, kept between runs by JAX's persistent compilation cache."""

import hashlib
import os
import platform
import sys
import tempfile
from pathlib import Path

import jax

from modsync_jax.training import ConfigError

_BYTES = 2**31  # the least recently used go first


def keep(folder: str) -> None:
    """Lets JAX keep compiled programs for later runs that need the same ones.

    Args:
      folder: the folder to keep them in; `none` keeps nothing, `auto` uses the user's cache folder.

    Raises:
      ConfigError: when a named folder can't be written.
    """
    named = folder != "auto"
    if folder == "none":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if not named:
        # A cache that the user has set up stays. With JAX 0.6, cached code rounds differently.
        if jax.config.values["jax_compilation_cache_dir"] or jax.__version_info__ < (0, 10):
            return
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = str(user / "modsync_jax" / f"{platform.machine()}-{_features_of_cpu()}")
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        problem = (
            f"can't keep compiled programs in {folder}: {error.strerror}; name another folder with "
            "--compilation_cache, or none"
        )
        if named:
            raise ConfigError(problem) from None
        print(f"warning: {problem}", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", os.path.abspath(folder))
    jax.config.update("jax_compilation_cache_max_size", _BYTES)
    # Small ones too: a run has hundreds of them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _features_of_cpu() -> str:
    """Distinguishes CPUs that share a home folder: code for one may not run on another."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else [platform.processor()]
    features = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return hashlib.sha256(features.encode()).hexdigest()[:8]
