"""Several methods on one problem, from the folders of their runs: a table, figures, a page."""

import csv
import dataclasses
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
from modsync_jax.reporting._ranking import Leader, Spread, leader, spread
from modsync_jax.reporting._run import ERROR_KINDS, Run

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
      milliseconds: time per step, without compilation.
      seconds_to_target: training time to the target error, over the runs that reached it.
      reached: the number of runs that reached it.
    """

    method: str
    seeds: int
    failed: int
    score: Spread
    errors: Mapping[str, Spread]
    absolute: Spread | None
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
      ValueError: when no run is finished, or the runs are of different problems.
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
    scores = _scores(good)
    rows = [
        _row(name, good[name], len(found), list(scores[name].values()), target)
        for name, found in runs.items()
    ]
    rows.sort(key=lambda row: math.inf if math.isnan(row.score.mean) else row.score.mean)
    ranked = {row.method: good[row.method] for row in rows}
    path = Path(output_dir)
    _write_table(path / "comparison.csv", rows, target)
    _write_curves(path / "curves.csv", ranked)
    shown = _medians(ranked, scores)
    drawn = {
        "solutions": partial(_fields.side_by_side, {n: run.solution for n, run in shown.items()}),
        "steps": partial(_curves, ranked, False, target),
        "time": partial(_curves, ranked, True, target),
    }
    images = {name: _drawing.save(draw, path / "figures" / name) for name, draw in drawn.items()}
    links = {row.method: _links(folders[row.method], path) for row in rows}
    by = first.scored_by if _scored(good) else first.outcome_name
    page = _page(first, rows, leader(scores), by, target, images, shown, links)
    (path / "comparison.html").write_text(page, encoding="utf-8")
    return rows


def as_text(rows: Sequence[Row], target: float) -> list[list[str]]:
    """The rows as text, a header first."""
    known = any(row.absolute is not None for row in rows)
    head = ["method", "seeds", "score", "selected", "final"]
    head += [*(["mean absolute"] if known else []), "ms a step", f"s to {target:g}"]
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
    method: str, runs: Sequence[Run], seeds: int, scores: Sequence[float], target: float
) -> Row:
    known = bool(runs and runs[0].result["errors"])
    absolute = [run.result["errors"]["mean_absolute"]["selected"] for run in runs if known]
    times = [_seconds_to(run, target) for run in runs]
    reached = [time for time in times if time is not None]
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


def _seconds_to(run: Run, target: float) -> float | None:
    below = np.flatnonzero(run.outcome <= target)
    return max(run.steps[below[0]], 1) * _seconds_per_step(run) if below.size else None


def _write_table(path: Path, rows: Sequence[Row], target: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        numbers = ["score", *ERROR_KINDS, "mean_absolute", "milliseconds", "seconds_to_target"]
        both = [name for number in numbers for name in (number, f"{number}_spread")]
        writer.writerow(["method", "seeds", "failed", *both, "reached", "target"])
        for row in rows:
            spreads = [
                row.score,
                *(row.errors[kind] for kind in ERROR_KINDS),
                row.absolute or spread([]),
            ]
            spreads += [row.milliseconds, row.seconds_to_target]
            values = [value for s in spreads for value in (s.mean, s.factor)]
            writer.writerow([row.method, row.seeds, row.failed, *values, row.reached, target])


def _write_curves(path: Path, runs: Mapping[str, Sequence[Run]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "seed", "step", "seconds", "error", "loss"])
        for method, found in runs.items():
            for run in found:
                columns = (run.steps, run.outcome, run.metrics["loss"])
                for step, error, loss in zip(*columns, strict=True):
                    seconds = step * _seconds_per_step(run)
                    writer.writerow([method, run.result["seed"], int(step), seconds, error, loss])


def _curves(runs: Mapping[str, Sequence[Run]], against_time: bool, target: float) -> Figure:
    """Geometric means over seeds as lines, smallest and largest as bands."""
    figure = Figure(figsize=(10.0, 4.4))
    axis = figure.subplots()
    some = next(run for found in runs.values() for run in found)
    for method, found in runs.items():
        if not found:
            continue
        errors = np.stack([run.outcome for run in found])
        mean_time = spread([_seconds_per_step(run) for run in found]).mean
        x = found[0].steps * (mean_time if against_time else 1.0)
        (line,) = axis.plot(x, np.exp(np.log(errors).mean(0)), label=method)
        if len(found) > 1:
            axis.fill_between(x, errors.min(0), errors.max(0), color=line.get_color(), alpha=0.15)
    axis.axhline(target, color="0.35", linewidth=0.9, linestyle=(0, (4, 3)))
    axis.set_yscale("log")
    axis.set_ylabel(some.outcome_name)
    axis.set_xlabel("training time in s" if against_time else "step")
    if not against_time:
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
        "time": "The same against training time: steps times the time per step, without "
        "compilation.",
    }
    figures = {n: _html.figure(path, n, captions[n]) for n, path in images.items()}
    return _html.page(
        f"{run.problem}: {outcome}",
        f"""<p>{escape(layers)}, {result["steps"]:,} steps, learning rate
{config["learning_rate"]:g}, on {escape(result["device"])}. Methods are ranked by <i>score</i>, the
{by}; <i>selected</i> and <i>final</i> are the {measure}{" on the test grid" * known} of
the selected network and of the network after the last step. Numbers are geometric means over
seeds, with the geometric standard deviation as a factor.</p>
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
