"""What runs say about one method against another: ratios of errors, with intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

Row = Mapping[str, Any]
_COVERAGE = 0.95


class Ratio(NamedTuple):
    """A geometric mean with its 95% interval.

    Attributes:
      mean: the geometric mean.
      low: the lower end of the interval; NaN with fewer than two seeds.
      high: the upper end.
      p: the probability of a mean as far from 1, on both sides, if it were 1; NaN with fewer than
        two seeds, or if all have the same value.
      seeds: the number of seeds.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: int


def mean_error(runs: Sequence[Row], variant: str, width: int) -> Ratio:
    """Returns the error of a method at a width, over problems and seeds.

    For each seed the logarithms are averaged over the problems; the interval is Student's, over
    the seeds. The intervals of several methods hold for the same problems, not for others.

    Args:
      runs: the final runs of a study.
      variant: the method's name in the study.
      width: the width.
    """
    return _over_seeds(_logs(runs, variant, width))


def compared(runs: Sequence[Row], one: str, other: str, width: int) -> Ratio:
    """Returns the error of one method over that of another, paired by problem and seed.

    Args:
      runs: the final runs of a study.
      one: a method's name in the study.
      other: another's.
      width: the width.
    """
    return compared_everywhere([row for row in runs if row["width"] == width], [(one, other)])


def compared_everywhere(runs: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> Ratio:
    """Returns the error of methods over those of their bases, over pairs, widths and problems.

    Args:
      runs: the final runs of a study.
      pairs: a method and its base, by their names in the study.
    """
    found: dict[tuple[Any, int], float] = {}
    for width in {row["width"] for row in runs}:
        for one, base in pairs:
            upper, lower = _logs(runs, one, width), _logs(runs, base, width)
            for problem, seed in upper.keys() & lower.keys():
                key = (width, base, problem), seed
                found[key] = upper[problem, seed] - lower[problem, seed]
    return _over_seeds(found)


def failing(runs: Sequence[Row], base: str, width: int, standard: str = "adam") -> bool:
    """Returns whether a method fails: its interval lies above that of the standard method.

    Both are over the problems that both were trained on.

    Args:
      runs: the final runs of a study.
      base: the method.
      width: the width.
      standard: what it is measured by.
    """
    trained = [
        {row["problem"] for row in runs if (row["variant"], row["width"]) == (name, width)}
        for name in (base, standard)
    ]
    shared = [row for row in runs if row["problem"] in set.intersection(*trained)]
    return mean_error(shared, base, width).low > mean_error(shared, standard, width).high


def at_equal_time(
    runs: Sequence[Row], history: Sequence[Row], costs: Mapping[tuple[int, str], float]
) -> list[dict[str, Any]]:
    """Returns runs with the errors that they had when the fastest method of their width ended.

    The error is that of the evaluation with the lowest validation error until then. A step's cost
    says when that was, and not the clock of the run, because runs come from several machines.

    Args:
      runs: the final runs of a study.
      history: their evaluations.
      costs: the time of a step by width and method, in any unit.

    Raises:
      KeyError: on a width and method without costs.
    """
    seen: dict[tuple[Any, ...], list[Row]] = {}
    for row in history:
        seen.setdefault(_run(row), []).append(row)
    fastest: dict[int, float] = {}
    for row in runs:
        cost = costs[row["width"], row["variant"]]
        fastest[row["width"]] = min(cost, fastest.get(row["width"], math.inf))
    found = []
    for row in runs:
        rows = seen.get(_run(row), [])
        share = fastest[row["width"]] / costs[row["width"], row["variant"]]
        last = share * max((line["step"] for line in rows), default=0)
        until = [line for line in rows if line["step"] <= last]
        best = min(until, key=lambda line: line.get("validation", math.inf), default={})
        found.append({**row, "selected": best.get("error", math.nan)})
    return found


def _run(row: Row) -> tuple[Any, ...]:
    return row["problem"], row["width"], row["variant"], row["seed"]


def corrected(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for their number by Holm's method, NaN for NaN."""
    known = sorted((p, k) for k, p in enumerate(p_values) if not math.isnan(p))
    found, largest = [math.nan] * len(p_values), 0.0
    for rank, (p, k) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        found[k] = largest
    return found


def error_of(row: Row, kind: str = "selected") -> float:
    """Returns an error of a run; 1, that of a solution of zero, if it kept no network."""
    error = row.get(kind, math.nan)
    return error if math.isfinite(error) else 1.0


def _logs(runs: Sequence[Row], variant: str, width: int) -> dict[tuple[str, int], float]:
    """The logarithms of errors by problem and seed."""
    return {
        (row["problem"], row["seed"]): math.log(error_of(row))
        for row in runs
        if row["variant"] == variant and row["width"] == width
    }


def _over_seeds(logs: Mapping[tuple[Any, int], float]) -> Ratio:
    """The mean over problems, then over the seeds that all problems have."""
    problems = {problem for problem, _ in logs}
    seeds = [s for s in {s for _, s in logs} if all((p, s) in logs for p in problems)]
    values = np.array([np.mean([logs[p, s] for p in problems]) for s in seeds])
    if not len(values):
        return Ratio(math.nan, math.nan, math.nan, math.nan, 0)
    mean, error = float(values.mean()), math.nan
    if len(values) > 1:
        error = float(values.std(ddof=1)) / math.sqrt(len(values))
    student = stats.t(max(len(values) - 1, 1))
    half = float(student.ppf((1 + _COVERAGE) / 2)) * error
    p = 2 * float(student.sf(abs(mean) / error)) if error else math.nan
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), p, len(values))
