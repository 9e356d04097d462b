"""Fixtures for all tests, on eight virtual CPU devices and with compilations shared."""

import os
import tempfile
from collections.abc import Iterator

_DEVICES = "--xla_force_host_platform_device_count=8"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # processes that tests start use it too
    _CACHE = tempfile.TemporaryDirectory(prefix="modsync_jax_compiled_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Each worker has cores of its own: workers whose threads share all of them wait for each other.
    _CORES, _WORKERS = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    _OWN = _CORES[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) :: _WORKERS]
    os.sched_setaffinity(0, _OWN or _CORES)

import jax  # noqa: E402, the environment comes first
import pytest  # noqa: E402


@pytest.fixture
def x64() -> Iterator[None]:
    """Enables 64-bit types for one test; the configuration flag is the same in every version."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)
