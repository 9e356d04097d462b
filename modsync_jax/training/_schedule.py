"""The schedule of a run: its settings alone fix chunks, evaluations, checkpoints and polish."""

from collections.abc import Iterator
from typing import NamedTuple

from modsync_jax.training._config import TrainConfig


class Chunk(NamedTuple):
    """Steps that the device takes in one call.

    Attributes:
      start: the number of steps before it.
      end: the number of steps after it.
      polish: whether its steps are iterations of L-BFGS.
      evaluates: whether a row of the metrics follows.
      saves: whether a checkpoint follows.
    """

    start: int
    end: int
    polish: bool
    evaluates: bool
    saves: bool


def chunks(config: TrainConfig, start: int = 0) -> Iterator[Chunk]:
    """The chunks of a run from step `start` on; their ends do not depend on it."""
    while start < config.total_steps:
        polish = start >= config.steps
        last = config.total_steps if polish else config.steps
        end = min(start - start % config.chunk + config.chunk, last)
        evaluates = end % config.eval_every == 0 or end == last
        saves = end % config.checkpoint_every == 0 or end == last
        yield Chunk(start, end, polish, evaluates, saves)
        start = end


def rows(config: TrainConfig) -> tuple[int, ...]:
    """The steps of all rows of the metrics of a run."""
    return (0, *(chunk.end for chunk in chunks(config) if chunk.evaluates))
