"""What a user sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} steps/s" if task.speed else "", style="dim")


class Meter:
    """Shows the progress of one run on standard error.

    Args:
      label: what runs, for example `burgers modsync+dcgd`.
      total: steps of the whole run.
      done: steps that an earlier part of the run has done.
      enabled: False shows nothing.
    """

    def __init__(self, label: str, total: int, done: int = 0, *, enabled: bool = True) -> None:
        self._console = Console(stderr=True, quiet=not enabled)
        self._label, self._total = label, total
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[facts]}", style="cyan"),
            _Rate(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (enabled and self._console.is_terminal),
        )
        self._task = self._bar.add_task(label, total=total, completed=done, facts="compiling")

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
        """Moves the bar to `step`."""
        self._bar.update(self._task, completed=step)

    def row(self, row: Mapping[str, float], steps_per_second: float) -> None:
        """Shows a row of the metrics."""
        self.facts(int(row["step"]), describe(row), steps_per_second)

    def facts(self, step: int, facts: str, steps_per_second: float) -> None:
        """Shows facts about the state after `step`."""
        self._bar.update(self._task, completed=step, facts=facts)
        if self._bar.disable:
            left = (self._total - step) / steps_per_second if steps_per_second else 0.0
            pace = f"  {steps_per_second:.0f} steps/s  {left:.0f} s left" if left else ""
            self.line(f"{self._label}  step {step}/{self._total}  {facts}{pace}")

    def line(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)
        sys.stderr.flush()


def describe(row: Mapping[str, float]) -> str:
    """The facts of a row that a reader wants first, in one short line."""
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
    return "  ".join(parts)
