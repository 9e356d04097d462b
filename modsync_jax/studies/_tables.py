"""The tables of a study, as rows of text."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from modsync_jax import reporting
from modsync_jax.studies._cells import RATES
from modsync_jax.studies._evidence import (
    Ratio,
    compared,
    compared_everywhere,
    corrected,
    error_of,
    failing,
    mean_error,
)

Row = Mapping[str, Any]
Pairs = Sequence[tuple[str, str]]
_LEVEL, _HALF = 1.1, 0.5  # of a method that never loses, and of one that restores a failing base


def errors_table(
    runs: Sequence[Row], problems: Sequence[str], variants: Sequence[str], kind: str = "selected"
) -> list[list[str]]:
    """Returns errors, a row for each method and a column for each problem; the best is bold.

    Cells are geometric means over seeds with their spread as a factor, and the number of runs that
    were not finite. A cell that was not run says so. A dagger marks a learning rate at an end of
    the range of the trials.

    Args:
      runs: the final runs of one width.
      problems: the columns.
      variants: the rows.
      kind: `selected`, `mean_absolute` (of the selected network), or another column of errors.
    """
    found: dict[tuple[str, str], Any] = {}
    notes: dict[tuple[str, str], str] = {}
    for problem in problems:
        for name in variants:
            of = [r for r in runs if (r["problem"], r["variant"]) == (problem, name)]
            if of:
                found[problem, name] = reporting.spread([error_of(row, kind) for row in of])
                failed = sum(row["status"] != "finished" for row in of)
                at_end = any(row["learning_rate"] in (min(RATES), max(RATES)) for row in of)
                notes[problem, name] = " †" * at_end + f", {failed} not finite" * bool(failed)
    rows = [["method", *problems]]
    for name in variants:
        cells = []
        for problem in problems:
            if (problem, name) not in found:
                cells.append("not run")
                continue
            text = str(found[problem, name])
            rivals = [found[problem, n].mean for n in variants if (problem, n) in found]
            if found[problem, name].mean == min(rivals):
                text = f"**{text}**"
            cells.append(text + notes[problem, name])
        rows.append([name, *cells])
    return rows


def means_table(
    runs: Sequence[Row], variants: Sequence[str], widths: Sequence[int]
) -> list[list[str]]:
    """Returns errors over all problems, a row for each width and a column for each method.

    Cells are geometric means with their intervals. Those of methods that fail are marked.

    Args:
      runs: the final runs of a study.
      variants: the columns.
      widths: the rows.
    """

    def cell(name: str, width: int) -> str:
        found = mean_error(runs, name, width)
        if not found.seeds:
            return "not run"
        return f"{_interval(found, '#.3g')}{', fails' * failing(runs, name, width)}"

    return [
        ["width", *variants],
        *([str(width), *(cell(name, width) for name in variants)] for width in widths),
    ]


def ratios_table(runs: Sequence[Row], pairs: Pairs, widths: Sequence[int]) -> list[list[str]]:
    """Returns a row for each width and pair of a method and its base: is it never worse?

    The verdict is that of the whole interval: below 1.1 (below 0.5 where the base fails), above
    it, or undecided.

    Args:
      runs: the final runs of a study.
      pairs: a method and its base, by their names in the study.
      widths: the widths.
    """
    asked = [(width, one, base) for width in widths for one, base in pairs]
    ratios = [compared(runs, one, base, width) for width, one, base in asked]
    p_values = corrected([ratio.p for ratio in ratios])
    rows = [["width", "method", "over", "seeds", "ratio", "p, corrected", "base fails", "verdict"]]
    for (width, one, base), ratio, p in zip(asked, ratios, p_values, strict=True):
        if not ratio.seeds:
            continue
        fails = failing(runs, base, width)
        bound = _HALF if fails else _LEVEL
        inside = "yes" if ratio.high <= bound else "no" if ratio.low > bound else "undecided"
        known = "" if math.isnan(p) else f"{p:.2g}"
        line = [str(width), one, base, str(ratio.seeds), _interval(ratio), known]
        rows.append([*line, "yes" if fails else "no", f"≤ {bound:g}: {inside}"])
    return rows


def settings_table(runs: Sequence[Row], pairs: Mapping[str, Pairs]) -> list[list[str]]:
    """Returns a row for each name: the share of weights kept, and ratios of errors to the bases.

    The first ratio is over all runs; the others over those of one base, width or problem, where
    there are several.

    Args:
      runs: the final runs.
      pairs: methods and their bases, by name.
    """
    found = {name: of for name, of in pairs.items() if compared_everywhere(runs, of).seeds}
    bases = {base for of in found.values() if len(of) > 1 for _, base in of}
    parts: dict[str, Callable[[Pairs], Ratio]] = {}
    for base in sorted(bases):
        parts[base] = partial(_over_base, runs, base)
    for column, title in (("width", "width {}"), ("problem", "{}")):
        values = sorted({row[column] for row in runs})
        for value in values if len(values) > 1 else ():
            some = [row for row in runs if row[column] == value]
            parts[title.format(value)] = partial(compared_everywhere, some)
    rows = [["setting", "kept", "all", *parts]]
    for name, of in found.items():
        methods = {one for one, _ in of}
        kept = [row["keep"] for row in runs if row["variant"] in methods and "keep" in row]
        share = f"{sum(kept) / len(kept):.0%}" if kept else ""
        ratios = [_mean(ratio_of(of)) for ratio_of in parts.values()]
        rows.append([name, share, _interval(compared_everywhere(runs, of)), *ratios])
    return rows


def _mean(ratio: Ratio) -> str:
    return f"{ratio.mean:.2f}" if ratio.seeds else "not run"


def _over_base(runs: Sequence[Row], base: str, pairs: Pairs) -> Ratio:
    return compared_everywhere(runs, [pair for pair in pairs if pair[1] == base])


def _interval(ratio: Ratio, form: str = ".2f") -> str:
    return f"{ratio.mean:{form}} ({ratio.low:{form}} to {ratio.high:{form}})"
