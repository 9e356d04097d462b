"""Programs of several processes: joining them, and ending all of them when one fails."""

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

# A process that is silent for so long counts as dead, and JAX's runtime ends the others.
_ADJUSTABLE = (
    "heartbeat_timeout_seconds" in inspect.signature(jax.distributed.initialize).parameters
)
_SILENCE_SECONDS = 30 if _ADJUSTABLE else 100
INTERRUPTED = 130  # exit code of a program that was told to stop


def join(
    coordinator: str, num_processes: int | None, process_id: int | None, timeout_seconds: int
) -> None:
    """Joins the processes of all hosts; from then on, all end when one of them dies.

    JAX's runtime ends them, with its own message that names the process that died.

    Args:
      coordinator: `host:port` of process 0; empty to let JAX find out (SLURM, GKE, TPU pods, MPI).
      num_processes: the number of processes.
      process_id: the number of this process, from 0.
      timeout_seconds: the time to wait for all of them.

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
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # because JAX would swallow it


@contextmanager
def together() -> Iterator[None]:
    """A context for a program whose processes end together.

    A process that fails ends at once. It skips JAX's orderly end, which waits for the others. JAX's
    runtime then ends the others because this one died.
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
