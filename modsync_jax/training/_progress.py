"""The progress of a run as the user sees it: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Meter:
    """Shows the progress of one run on standard error.

    Args:
      label: the run's label, for example `burgers modsync+dcgd, Adam`.
      total: the number of steps of the whole run.
      done: the number of steps that earlier parts of the run have done.
      limit: seconds after which the run ends before that; 0 for none.
      enabled: False shows nothing.
    """

    def __init__(
        self, label: str, total: int, done: int = 0, *, limit: float = 0.0, enabled: bool = True
    ) -> None:
        self._console = Console(stderr=True, quiet=not enabled)
        self._label, self._total, self._limit = label, total, limit
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[place]}"),
            TextColumn("{task.fields[facts]}", style="cyan"),
            TextColumn("{task.fields[rate]}", style="dim"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (enabled and self._console.is_terminal),
        )
        self._task = self._bar.add_task(
            label, total=total, completed=done, place=self._place(done), facts="compiling", rate=""
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        """Moves the bar to `step`, or as far as the limit of time is used up."""
        used = self._elapsed / self._limit if self._limit else 0.0
        completed = max(step, min(used, 1.0) * self._total)
        self._bar.update(self._task, completed=completed, place=self._place(step))

    def row(self, row: Mapping[str, float], steps_per_second: float) -> None:
        """Shows a row of the metrics."""
        self.facts(int(row["step"]), describe(row), steps_per_second)

    def facts(self, step: int, facts: str, steps_per_second: float) -> None:
        """Shows facts about the state after `step`."""
        rate = f"{steps_per_second:.0f} steps/s" if steps_per_second else ""
        self.advance(step)
        self._bar.update(self._task, facts=facts, rate=rate)
        if self._bar.disable:
            left = (self._total - step) / steps_per_second if steps_per_second else 0.0
            if self._limit:
                left = min(left, max(self._limit - self._elapsed, 0.0))
            pace = f"  {rate}  {left:.0f} s left" if left else ""
            self.line(f"{self._label}  {self._place(step)}  {facts}{pace}")

    @property
    def _elapsed(self) -> float:
        return self._bar.tasks[self._task].elapsed or 0.0

    def _place(self, step: int) -> str:
        """Where the run is; a run with a limit of time has no step to come to."""
        return f"step {step}" if self._limit else f"step {step}/{self._total}"

    def line(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)
        sys.stderr.flush()


def describe(row: Mapping[str, float]) -> str:
    """Returns the most important facts of a row in one short line."""
    parts = []
    for name, value in row.items():
        kind, _, rest = name.partition("/")
        if kind == "loss" and rest:
            parts.append(f"{rest} {value:.1e}")
        elif kind == "cosine" and not any(p.startswith("cos") for p in parts):
            parts.append(f"cos {value:+.2f}")
        elif kind == "unknown":
            parts.append(f"{rest} {value:.4g}")
        elif name == "keep":
            parts.append(f"keep {value:.0%}")
        elif name == "test/relative_l2":
            parts.append(f"error {value:.2e}")
        elif name == "estimate":
            parts.append(f"estimated {value:.0e}")
    return "  ".join(parts)
