"""The schedule of a run: its settings alone fix chunks, evaluations and checkpoints."""

from collections.abc import Iterator
from typing import NamedTuple

from modsync_jax.training._config import TrainConfig


class Chunk(NamedTuple):
    """Steps that the device takes in one call.

    Attributes:
      start: the number of steps before it.
      end: the number of steps after it.
      phase: the index of its phase.
      begins: whether its phase begins with it.
      evaluates: whether a row of the metrics follows.
      saves: whether a checkpoint follows.
    """

    start: int
    end: int
    phase: int
    begins: bool
    evaluates: bool
    saves: bool

    @property
    def steps(self) -> int:
        """The number of its steps."""
        return self.end - self.start


def chunks(config: TrainConfig, start: int = 0) -> Iterator[Chunk]:
    """The chunks of a run from step `start` on; their ends do not depend on it."""
    for phase, (first, last) in enumerate(zip(config.starts, config.ends, strict=True)):
        redraw = getattr(config.phases[phase].settings, "redraw", 0)
        while start < last:
            end = min(start - start % config.chunk + config.chunk, last)
            if redraw:  # points are redrawn between two chunks
                end = min(end, start - (start - first) % redraw + redraw)
            evaluates = end % config.eval_every == 0 or end == last
            saves = end % config.checkpoint_every == 0 or end == last
            yield Chunk(start, end, phase, start == first, evaluates, saves)
            start = end


def rows(config: TrainConfig) -> tuple[int, ...]:
    """The steps of all rows of the metrics of a run."""
    return (0, *(chunk.end for chunk in chunks(config) if chunk.evaluates))


def phase_of(config: TrainConfig, step: int) -> int:
    """The phase whose state a run has after `step` steps, before the next phase begins."""
    return next(phase for phase, end in enumerate(config.ends) if step <= end)
