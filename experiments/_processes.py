"""Programs of several processes: how they join, and how they end when one of them fails."""

import inspect
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
from jax.experimental import multihost_utils

from modsync_jax.training import ConfigError

# After this silence of a process, JAX's runtime takes it for dead and ends the others.
_ADJUSTABLE = (
    "heartbeat_timeout_seconds" in inspect.signature(jax.distributed.initialize).parameters
)
_SILENCE_SECONDS = 30 if _ADJUSTABLE else 100
INTERRUPTED = 130  # the exit code of a program that was told to stop


def join(
    coordinator: str, num_processes: int | None, process_id: int | None, timeout_seconds: int
) -> None:
    """Joins the processes of all hosts; from then on, when one of them dies, all end.

    JAX's runtime ends the others, with a message of its own that names the process that died.

    Args:
      coordinator: `host:port` of process 0; empty to let JAX find out (SLURM, GKE, TPU pods, MPI).
      num_processes: how many processes join.
      process_id: which one this is, from 0.
      timeout_seconds: how long to wait for all.

    Raises:
      ConfigError: when JAX finds no cluster, or the numbers make no sense.
    """
    silence: Any = {"heartbeat_timeout_seconds": _SILENCE_SECONDS} if _ADJUSTABLE else {}
    where = f" at {coordinator}" if coordinator else ""
    print(
        f"waiting up to {timeout_seconds} s{where} for all processes to join "
        "(--join_timeout_seconds); if one of them dies later, JAX ends the others: go on with the "
        "same command and --resume",
        file=sys.stderr,
    )
    try:
        jax.distributed.initialize(
            coordinator or None,
            num_processes,
            process_id,
            initialization_timeout=timeout_seconds,
            **silence,
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"can't join: {str(error).splitlines()[0]} (--coordinator=host:port, --num_processes "
            "and --process_id say where, where JAX can't find out)"
        ) from None
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # JAX would swallow it


@contextmanager
def together() -> Iterator[None]:
    """Around a program: its processes end together.

    One that fails ends at once, without the orderly end of JAX, which waits for the others; and
    JAX's runtime ends them because it died.
    """
    try:
        yield
        if jax.distributed.is_initialized():
            multihost_utils.sync_global_devices("end")  # process 0 may have much to write
    except SystemExit as end:
        if jax.distributed.is_initialized() and end.code not in (0, None, INTERRUPTED):
            _leave(end.code if isinstance(end.code, int) else 1)
        raise
    except KeyboardInterrupt:  # while it compiles, before or after the steps, or a second time
        print("stopped; what was saved goes on with --resume", file=sys.stderr)
        if jax.distributed.is_initialized():
            _leave(INTERRUPTED)
        sys.exit(INTERRUPTED)
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        print(
            f"process {jax.process_index()} of {jax.process_count()} ends; if another one died, "
            "see what it said, then go on with the same command and --resume",
            file=sys.stderr,
        )
        _leave(1)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
