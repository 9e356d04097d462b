"""Safe stops: Ctrl-C and SIGTERM become a note that the loop reads."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def collected(say: Callable[[str], None]) -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM in the list that it yields; a second signal acts at once.

    Outside the main thread, where Python allows no handlers, the list stays empty.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: Any) -> None:
        received.append(number)
        restore()
        say("stopping at the end of this chunk (again: at once, without saving)")

    if threading.current_thread() is threading.main_thread():
        before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        restore()
