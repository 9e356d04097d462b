"""The best configuration, and whether the seeds are enough to call it the best."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from modsync_jax.reporting._numbers import scientific

_FEWEST_SEEDS = 3  # common seeds that a comparison of two configurations needs
_ERRORS = 2.0  # standard errors by which the better one must lead


@dataclasses.dataclass(frozen=True)
class Spread:
    """A geometric mean and the geometric standard deviation, which is a factor.

    Both are nan for no value; the factor is 1 for a single one.
    """

    mean: float
    factor: float

    def __str__(self) -> str:
        if not math.isfinite(self.mean):
            return "–"
        if self.factor == 1:
            return scientific(self.mean)
        space = "\u00a0"  # spaces that do not break a line
        return f"{scientific(self.mean)}{space}×÷{space}{self.factor:.2f}"


def spread(given: Sequence[float]) -> Spread:
    """Geometric mean and spread of positive numbers; nan stands for an unknown one."""
    values = [value for value in given if not math.isnan(value)]
    if not values:
        return Spread(math.nan, math.nan)
    logs = [math.log(value) for value in values]
    return Spread(
        math.exp(statistics.fmean(logs)),
        math.exp(statistics.stdev(logs)) if len(logs) > 1 else 1.0,
    )


@dataclasses.dataclass(frozen=True)
class Leader:
    """The configuration of the lowest score.

    Attributes:
      name: the configuration's name.
      of: the number of configurations.
      rivals: the configurations that it does not beat, in the order of their scores.
      seeds: the smallest number of finished seeds that it shares with a rival; its own number
        without rivals.
    """

    name: str
    of: int
    rivals: Sequence[str]
    seeds: int

    @property
    def is_best(self) -> bool:
        """Whether it beats all others."""
        return self.of > 1 and not self.rivals and self.seeds >= _FEWEST_SEEDS

    def sentence(self, kind: str, score: str) -> str:
        """Such as `dcgd is the best of 3 methods`, or the reason against this statement.

        Args:
          kind: a plural for the configurations, such as `methods`.
          score: the measure of the ranking, such as `validation error`.
        """
        if self.of == 1:
            return self.name
        if self.is_best:
            return f"{self.name} is the best of {self.of} {kind}"
        lowest = f"{self.name} has the lowest {score} of {self.of} {kind}, but"
        if self.seeds < _FEWEST_SEEDS:
            count = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
            return f"{lowest} {count} in common can’t show that it is the best"
        others = " and ".join(self.rivals) if len(self.rivals) < 3 else f"{len(self.rivals)} others"
        return f"{lowest} the seeds don’t tell it apart from {others}"


def leader(scores: Mapping[str, Mapping[str, float]]) -> Leader | None:
    """Returns the configuration with the lowest geometric mean of scores, and its rivals.

    The leader is the best if it beats every other configuration. It beats another one if both
    finished at least three common seeds, and if over these the mean logarithm of the scores' ratio
    is more than twice its standard error above zero. A configuration that failed with a seed does
    not beat one that finished with this seed. A configuration that failed with every seed is
    beaten.

    Args:
      scores: by configuration, then seed, without the seeds that failed; numbers that are not
        positive and finite do not count.

    Returns:
      The leader; None where no configuration has a score.
    """
    known = {
        name: {seed: score for seed, score in seeds.items() if 0 < score < math.inf}
        for name, seeds in scores.items()
    }
    finished = {name: seeds for name, seeds in known.items() if seeds}
    if not finished:
        return None
    ranked = sorted(finished, key=lambda name: spread(list(finished[name].values())).mean)
    first, *others = ranked
    own = finished[first]
    rivals = [name for name in others if not _beats(own, finished[name])]
    seeds = min((len(own.keys() & finished[name].keys()) for name in rivals), default=len(own))
    return Leader(first, len(scores), rivals, seeds)


def _beats(own: Mapping[str, float], other: Mapping[str, float]) -> bool:
    common = own.keys() & other.keys()
    if len(common) < _FEWEST_SEEDS or other.keys() - own.keys():
        return False
    ratios = [math.log(other[seed] / own[seed]) for seed in sorted(common)]
    error = statistics.stdev(ratios) / math.sqrt(len(ratios))
    return statistics.fmean(ratios) > _ERRORS * error
