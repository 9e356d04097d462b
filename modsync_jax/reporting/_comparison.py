"""Several methods on one problem, from the folders of their runs: a table, figures, a page."""

import csv
import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure

from modsync_jax.reporting import _drawing, _fields, _html, _run
from modsync_jax.reporting._numbers import scientific
from modsync_jax.reporting._ranking import Leader, Spread, leader, spread
from modsync_jax.reporting._run import ERROR_KINDS, Column, Run

_SIDE_BY_SIDE = 6  # methods with a picture of their solution


@dataclasses.dataclass(frozen=True)
class Row:
    """A method's line in the table.

    Attributes:
      method: its name.
      seeds: the number of runs.
      failed: the number of runs that stopped because something was not finite; the other columns
        leave them out.
      score: the number that ranks methods: the error on validation points or, without a reference,
        the loss without weights. For older runs without a score it is the selected error.
      errors: relative L2 error on the test grid (the loss without a reference) by kind.
      absolute: mean absolute error of the selected network; None without a reference.
      between_seeds: the median relative L2 difference, on the test grid, of the solutions of two
        seeds; NaN for one seed.
      milliseconds: time per step, without compilation.
      seconds_to_target: time to the target error, over the runs that reached it.
      reached: the number of runs that reached it.
    """

    method: str
    seeds: int
    failed: int
    score: Spread
    errors: Mapping[str, Spread]
    absolute: Spread | None
    between_seeds: float
    milliseconds: Spread
    seconds_to_target: Spread
    reached: int


def write_comparison(
    folders: Mapping[str, Sequence[str | os.PathLike]],
    output_dir: str | os.PathLike,
    *,
    target: float,
) -> list[Row]:
    """Compares methods, and writes `comparison.csv`, `curves.csv`, figures and `comparison.html`.

    Args:
      folders: the folders of each method's runs, one per seed; a run without `result.json` has
        failed.
      output_dir: the folder to write to.
      target: the target error of the time-to-target column (a loss without a reference).

    Returns:
      The table's rows, in order of their scores; methods without a finished run come last.

    Raises:
      ValueError: when no run is finished, or the runs are of different problems or were selected by
        different measures.
    """
    runs = {name: [_finished(path) for path in paths] for name, paths in folders.items()}
    good = {name: [run for run in found if run] for name, found in runs.items()}
    first = next((run for found in good.values() for run in found), None)
    if first is None:
        raise ValueError("no run is finished: there is nothing to compare")
    for run in (run for found in good.values() for run in found):
        if run.problem != first.problem:
            raise ValueError(
                f"runs are of {first.problem} and {run.problem}; compare methods on one problem"
            )
    kinds = sorted({run.scored_by for found in good.values() for run in found})
    if len(kinds) > 1 and _scored(good):
        raise ValueError(
            f"runs were selected by {' and by '.join(kinds)}, which can't be ranked together; "
            "train them with one selection, 'auto' or 'loss'"
        )
    scores = _scores(good)
    measured = all(map(_was_timed, itertools.chain(*good.values())))
    times = _times(good, measured)
    rows = [
        _row(name, good[name], len(found), list(scores[name].values()), times[name], target)
        for name, found in runs.items()
    ]
    rows.sort(key=lambda row: math.inf if math.isnan(row.score.mean) else row.score.mean)
    ranked = {row.method: good[row.method] for row in rows}
    path = Path(output_dir)
    _write_table(path / "comparison.csv", rows, target)
    _write_curves(path / "curves.csv", ranked, times)
    shown = _medians(ranked, scores)
    drawn = {
        "solutions": partial(_fields.side_by_side, {n: run.solution for n, run in shown.items()}),
        "steps": partial(_curves, ranked, None, target),
        "time": partial(_curves, ranked, times, target),
    }
    images = {name: _drawing.save(draw, path / "figures" / name) for name, draw in drawn.items()}
    links = {row.method: _links(folders[row.method], path) for row in rows}
    by = first.scored_by if _scored(good) else first.outcome_name
    page = _page(first, rows, leader(scores), by, target, images, shown, links, measured)
    (path / "comparison.html").write_text(page, encoding="utf-8")
    return rows


def as_text(rows: Sequence[Row], target: float) -> list[list[str]]:
    """The rows as text, a header first."""
    known = any(row.absolute is not None for row in rows)
    head = ["method", "seeds", "score", "selected", "final"]
    head += [
        *(["mean absolute"] if known else []),
        "ms a step",
        f"s to {target:g}",
        "apart",
    ]
    lines = [head]
    for row in rows:
        reached = f" ({row.reached} of {row.seeds})" if row.reached < row.seeds else ""
        lines.append(
            [
                row.method,
                f"{row.seeds}" + (f", {row.failed} failed" if row.failed else ""),
                *(str(s) for s in (row.score, row.errors["selected"], row.errors["final"])),
                *([str(row.absolute or spread([]))] if known else []),
                f"{row.milliseconds.mean:.2f}" if row.failed < row.seeds else "–",
                f"{row.seconds_to_target.mean:.1f}{reached}" if row.reached else "–",
                "–" if math.isnan(row.between_seeds) else scientific(row.between_seeds),
            ]
        )
    return lines


def _scores(runs: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, float]]:
    """Returns the scores by method and seed, all of the same measure."""
    scored = _scored(runs)
    return {
        method: {str(r.result["seed"]): r.score if scored else r.selected_outcome for r in found}
        for method, found in runs.items()
    }


def _scored(runs: Mapping[str, Sequence[Run]]) -> bool:
    return all("score" in run.result for found in runs.values() for run in found)


def _medians(
    runs: Mapping[str, Sequence[Run]], scores: Mapping[str, Mapping[str, float]]
) -> dict[str, Run]:
    """Returns the run with the median score of each of the first methods."""
    medians = {}
    for method, found in runs.items():
        ordered = sorted(found, key=lambda run: scores[method][str(run.result["seed"])])
        if ordered:
            medians[method] = ordered[(len(ordered) - 1) // 2]
    return dict(list(medians.items())[:_SIDE_BY_SIDE])


def _links(folders: Sequence[str | os.PathLike], output_dir: Path) -> list[tuple[str, str | None]]:
    """Returns the name of each run's folder, and the link to its report from the page, if any."""
    made = []
    for folder in map(Path, folders):
        report = folder / "report.html"
        address = Path(os.path.relpath(report, output_dir)).as_posix()
        made.append((folder.name, quote(address) if report.exists() else None))
    return made


def _finished(folder: str | os.PathLike) -> Run | None:
    return _run.read(folder) if (Path(folder) / "result.json").exists() else None


def _row(
    method: str,
    runs: Sequence[Run],
    seeds: int,
    scores: Sequence[float],
    times: Sequence[Column],
    target: float,
) -> Row:
    known = bool(runs and runs[0].result["errors"])
    absolute = [run.result["errors"]["mean_absolute"]["selected"] for run in runs if known]
    below = [run.outcome <= target for run in runs]
    # A network that is there before the first step has no time for a geometric mean.
    reached = [
        max(time[np.argmax(hit)], _seconds_per_step(run))
        for run, time, hit in zip(runs, times, below, strict=True)
        if hit.any()
    ]
    of = [_errors(run) for run in runs]
    return Row(
        method=method,
        seeds=seeds,
        failed=seeds - len(runs),
        score=spread(scores),
        errors={
            kind: spread([errors[kind] for errors in of if kind in errors]) for kind in ERROR_KINDS
        },
        absolute=spread(absolute) if known else None,
        between_seeds=_between(runs),
        milliseconds=spread([1e3 * _seconds_per_step(run) for run in runs]),
        seconds_to_target=spread(reached),
        reached=len(reached),
    )


def _errors(run: Run) -> Mapping[str, float]:
    if run.result["errors"]:
        return run.result["errors"]["relative_l2"]
    return {"selected": run.selected_outcome, "final": float(run.outcome[-1])}


def _seconds_per_step(run: Run) -> float:
    timing = run.result["timing"]
    if timing["steps_per_second"]:
        return 1 / timing["steps_per_second"]
    # A program that stopped between the last step and the result left no time: it gives NaN.
    return timing["training_seconds"] / max(run.result["steps"], 1) or math.nan


def _times(runs: Mapping[str, Sequence[Run]], measured: bool) -> dict[str, list[Column]]:
    """The seconds of each run at its rows: as measured, or else steps times the time per step."""

    def of(run: Run) -> Column:
        if measured:
            return np.array(run.result["timing"]["seconds_at_rows"])
        return run.steps * _seconds_per_step(run)

    return {method: list(map(of, found)) for method, found in runs.items()}


def _was_timed(run: Run) -> bool:
    """Whether all rows have times: runs that were resumed, and older ones, lack some."""
    return None not in run.result["timing"].get("seconds_at_rows", [None])


def _between(runs: Sequence[Run]) -> float:
    """The median of `‖u - v‖ / ‖(u + v) / 2‖` over pairs of solutions; NaN without a pair."""
    found = [run.solution["prediction"] for run in runs]
    norm = np.linalg.norm
    apart = [2 * norm(u - v) / norm(u + v) for u, v in itertools.combinations(found, 2)]
    return float(np.median(apart)) if apart else math.nan


def _write_table(path: Path, rows: Sequence[Row], target: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        numbers = ["score", *ERROR_KINDS, "mean_absolute", "milliseconds", "seconds_to_target"]
        both = [name for number in numbers for name in (number, f"{number}_spread")]
        last = ["reached", "target", "between_seeds"]
        writer.writerow(["method", "seeds", "failed", *both, *last])
        for row in rows:
            spreads = [
                row.score,
                *(row.errors[kind] for kind in ERROR_KINDS),
                row.absolute or spread([]),
            ]
            spreads += [row.milliseconds, row.seconds_to_target]
            values = [value for s in spreads for value in (s.mean, s.factor)]
            ends = [row.reached, target, row.between_seeds]
            writer.writerow([row.method, row.seeds, row.failed, *values, *ends])


def _write_curves(
    path: Path, runs: Mapping[str, Sequence[Run]], times: Mapping[str, Sequence[Column]]
) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "seed", "step", "seconds", "error", "loss"])
        for method, found in runs.items():
            for run, seconds in zip(found, times[method], strict=True):
                columns = (run.steps, seconds, run.outcome, run.metrics["loss"])
                for step, *values in zip(*columns, strict=True):
                    writer.writerow([method, run.result["seed"], int(step), *values])


def _curves(
    runs: Mapping[str, Sequence[Run]],
    times: Mapping[str, Sequence[Column]] | None,
    target: float,
) -> Figure:
    """Geometric means over seeds as lines, smallest and largest as bands; against steps or times.

    They are of the steps that all seeds of a method have: a limit of time ends runs apart.
    """
    figure = Figure(figsize=(10.0, 4.4))
    axis = figure.subplots()
    some = next(run for found in runs.values() for run in found)
    for method, found in runs.items():
        if not found:
            continue
        shared = functools.reduce(np.intersect1d, [run.steps for run in found])
        places = [np.searchsorted(run.steps, shared) for run in found]
        errors = np.stack([run.outcome[at] for run, at in zip(found, places, strict=True)])
        x = shared
        if times is not None:
            x = np.mean([t[at] for t, at in zip(times[method], places, strict=True)], axis=0)
        (line,) = axis.plot(x, np.exp(np.log(errors).mean(0)), label=method)
        if len(found) > 1:
            axis.fill_between(x, errors.min(0), errors.max(0), color=line.get_color(), alpha=0.15)
    axis.axhline(target, color="0.35", linewidth=0.9, linestyle=(0, (4, 3)))
    axis.set_yscale("log")
    axis.set_ylabel(some.outcome_name)
    axis.set_xlabel("step" if times is None else "time in s")
    if times is None:
        axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
    return figure


def _page(
    run: Run,
    rows: Sequence[Row],
    first: Leader | None,
    by: str,
    target: float,
    images: Mapping[str, Path],
    shown: Mapping[str, Run],
    links: Mapping[str, Sequence[tuple[str, str | None]]],
    measured: bool,
) -> str:
    config, result = run.config, run.result
    measure, known = run.outcome_name, result["errors"] is not None
    outcome = "no method is finite" if first is None else first.sentence("methods", by)
    layers = f"{config['network']} {config['depth']}×{config['width']}"
    seeds = ", ".join(f"{method}: {of.result['seed']}" for method, of in shown.items())
    what = "errors" if known else "residuals, as there is no reference,"
    left_out = len([row for row in rows if row.failed < row.seeds]) - len(shown)
    captions = {
        "solutions": f"The network of the median score of each method (seeds {seeds}). All "
        f"predictions share one scale; all {what} share a second, logarithmic one, where darker is "
        f"better.{f' {left_out} methods with higher scores are left out.' if left_out else ''}",
        "steps": f"The {measure} against steps: geometric mean over seeds, and a band from the "
        f"smallest to the largest; dashed, the target of {target:g}.",
        "time": "The same against time, "
        + (
            "with compilation and evaluations."
            if measured
            else "steps times the time per step: some runs were not timed from their start."
        ),
    }
    figures = {n: _html.figure(path, n, captions[n]) for n, path in images.items()}
    return _html.page(
        f"{run.problem}: {outcome}",
        f"""<p>{escape(layers)}, {result["steps"]:,} steps, learning rate
{config["learning_rate"]:g}, on {escape(result["device"])}. Methods are ranked by <i>score</i>, the
{by}; <i>selected</i> and <i>final</i> are the {measure}{" on the test grid" * known} of
the selected network and of the network after the last step. Numbers are geometric means over
seeds, with the geometric standard deviation as a factor. <i>Apart</i> is the relative L2
difference of two seeds' solutions, the median over pairs. It needs no reference: errors of seeds
that have nothing in common make it about 1.4 times the error, and what all seeds get wrong does
not show in it.</p>
<h2>Methods</h2>
{_html.numbers(as_text(rows, target), winner=first is not None and first.is_best)}
<h2>Solutions</h2>
{figures["solutions"]}
<h2>Curves</h2>
{figures["steps"]}
{figures["time"]}
<p>The numbers behind both are in <code>comparison.csv</code> and <code>curves.csv</code>.</p>
<h2>Reports</h2>
{_html.link_table(links)}""",
    )
