"""Programs on several hosts: how their processes join, and how they end when one of them fails."""

import atexit
import ctypes
import inspect
import os
import re
import signal
import sys
import tempfile
import time
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
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)


def join(
    coordinator: str, num_processes: int | None, process_id: int | None, timeout_seconds: int
) -> None:
    """Joins the processes of all hosts; from then on, when one of them dies, all end.

    Args:
      coordinator: `host:port` of process 0; empty to let JAX find out (SLURM, GKE, TPU pods, MPI).
      num_processes: how many processes join.
      process_id: which one this is, from 0.
      timeout_seconds: how long to wait for all.

    Raises:
      ConfigError: when JAX finds no cluster, or the numbers make no sense.
    """
    ending = _Ending(
        f"waited {timeout_seconds} s{coordinator and ' at '}{coordinator} for all processes to "
        "join, and not all did; see that each is started and reaches process 0, or give them "
        "longer with --join_timeout_seconds"
    )
    silence: Any = {"heartbeat_timeout_seconds": _SILENCE_SECONDS} if _ADJUSTABLE else {}
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
    ending.line = (
        f"process {jax.process_index()} of {jax.process_count()} ends: {{who}} died or can't be "
        "reached; see what it said, then go on with the same command and --resume"
    )
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # JAX would swallow it


@contextmanager
def together() -> Iterator[None]:
    """Around a program: its processes end together.

    One that fails alone ends at once, without the orderly end of JAX, which waits for the others;
    and they end because it died. One that fails because another died leaves it to JAX's runtime to
    say so.
    """
    try:
        yield
        if jax.distributed.is_initialized():
            multihost_utils.sync_global_devices("end")  # process 0 may have much to write
    except SystemExit as end:
        if jax.distributed.is_initialized() and end.code not in (0, None, INTERRUPTED):
            _leave(end.code if isinstance(end.code, int) else 1)
        raise
    except KeyboardInterrupt:
        if not jax.distributed.is_initialized():
            raise
        _leave(INTERRUPTED)
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        time.sleep(_SILENCE_SECONDS + 10)  # if another process died, this one ends in here
        traceback.print_exc()
        _leave(1)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _who_died(said: str) -> str:
    """Which process failed, from what JAX's runtime said."""
    listed = re.findall(r"^(?:/job:\S*task:)?(\d+)$", said, re.MULTILINE)
    if listed:
        return f"process {' and '.join(sorted(set(listed), key=int))}"
    return "process 0" if "leader task" in said else "another process"


class _Ending:
    """One line instead of the stack trace with which JAX's runtime ends a process.

    The runtime writes it to file descriptor 2 and aborts. So that descriptor becomes a file, Python
    keeps standard error, and the handler of SIGABRT reads in the file why. What else is said there
    is shown at the end.

    Attributes:
      line: what to say when another process failed; `{who}` stands for which.
    """

    def __init__(self, line: str) -> None:
        self.line = line
        self._said = tempfile.TemporaryFile()  # noqa: SIM115, open as long as the program
        before = sys.stderr
        sys.stderr = open(os.dup(2), "w", 1, before.encoding, before.errors)  # noqa: SIM115
        os.dup2(self._said.fileno(), 2)
        self._handler = _HANDLER(self._aborted)  # C does not keep it alive
        self._on_abort = ctypes.CDLL(None).signal
        self._on_abort.argtypes = [ctypes.c_int, ctypes.c_void_p]
        self._on_abort(signal.SIGABRT, ctypes.cast(self._handler, ctypes.c_void_p))
        atexit.register(self._show)

    def _aborted(self, number: int) -> None:
        said = self._read()
        if "distributed service detected fatal errors" not in said:
            self._show()
            self._on_abort(number, None)  # the default: abort goes on
            return
        print(self.line.format(who=_who_died(said)), file=sys.stderr)
        _leave(1)

    def _show(self) -> None:
        sys.stderr.write(self._read())
        sys.stderr.flush()

    def _read(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")
