"""Several methods on one problem, from the folders of their runs: a table, two figures, a page."""

import csv
import dataclasses
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from modsync_jax.reporting import _figures, _report, _run
from modsync_jax.reporting._run import ERROR_KINDS, ERRORS, Run


@dataclasses.dataclass(frozen=True)
class Spread:
    """A geometric mean, and the geometric standard deviation, a factor; both nan for no value."""

    mean: float
    factor: float

    def __str__(self) -> str:
        return (
            f"{self.mean:.2e}\u00a0×÷\u00a0{self.factor:.2f}" if math.isfinite(self.mean) else "–"
        )


@dataclasses.dataclass(frozen=True)
class Row:
    """A method's line in the table.

    Attributes:
      method: its name.
      seeds: how many runs there are.
      failed: how many of them stopped on something that was not finite; they count no further.
      errors: relative L2 error (the total loss without a reference) by kind.
      absolute: mean absolute error of the selected network; None without a reference.
      milliseconds: time per step, without compilation.
      seconds_to_target: training time to the given error, over the runs that reached it.
      reached: how many runs reached it.
    """

    method: str
    seeds: int
    failed: int
    errors: Mapping[str, Spread]
    absolute: Spread | None
    milliseconds: Spread
    seconds_to_target: Spread
    reached: int


def spread(given: Sequence[float]) -> Spread:
    """Geometric mean and spread of positive numbers; nan stands for one that is not known."""
    values = [value for value in given if not math.isnan(value)]
    if not values:
        return Spread(math.nan, math.nan)
    logs = [math.log(value) for value in values]
    return Spread(
        math.exp(statistics.fmean(logs)),
        math.exp(statistics.stdev(logs)) if len(logs) > 1 else 1.0,
    )


def write_comparison(
    folders: Mapping[str, Sequence[str | os.PathLike]],
    output_dir: str | os.PathLike,
    *,
    target: float,
) -> list[Row]:
    """Compares methods, and writes `comparison.csv`, `curves.csv`, figures and `comparison.html`.

    Args:
      folders: the folders of each method's runs, a seed each; one without `result.json` has failed.
      output_dir: where to write.
      target: the error (the loss without a reference) that the time to reach is measured of.

    Returns:
      The table's rows, in the order of `folders`.

    Raises:
      ValueError: when no run is finished, or the runs are not of one problem.
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
    rows = [_row(name, good[name], len(found), target) for name, found in runs.items()]
    path = Path(output_dir)
    _write_table(path / "comparison.csv", rows, target)
    _write_curves(path / "curves.csv", good)
    images = {
        name: _figures.save(partial(_curves, good, name == "time", target), path / "figures" / name)
        for name in ("steps", "time")
    }
    page = _page(first, rows, target, images)
    (path / "comparison.html").write_text(page, encoding="utf-8")
    return rows


def as_text(rows: Sequence[Row], target: float) -> list[list[str]]:
    """The rows as text, a header first."""
    known = rows[0].absolute is not None
    head = ["method", "seeds", *(kind.replace("_", " ") for kind in ERROR_KINDS)]
    head += ["mean absolute", "ms a step", f"s to {target:g}"]
    if not known:
        head.remove("mean absolute")
    lines = [head]
    for row in rows:
        reached = f" ({row.reached} of {row.seeds})" if row.reached < row.seeds else ""
        lines.append(
            [
                row.method,
                f"{row.seeds}" + (f", {row.failed} failed" if row.failed else ""),
                *(str(row.errors[kind]) for kind in ERROR_KINDS),
                *([str(row.absolute)] if known else []),
                f"{row.milliseconds.mean:.2f}" if row.failed < row.seeds else "–",
                f"{row.seconds_to_target.mean:.1f}{reached}" if row.reached else "–",
            ]
        )
    return lines


def _finished(folder: str | os.PathLike) -> Run | None:
    return _run.read(folder) if (Path(folder) / "result.json").exists() else None


def _row(method: str, runs: Sequence[Run], seeds: int, target: float) -> Row:
    known = bool(runs and runs[0].result["errors"])
    of = [run.result["errors"]["relative_l2"] if known else run.result["loss"] for run in runs]
    absolute = [run.result["errors"]["mean_absolute"]["selected"] for run in runs if known]
    times = [_seconds_to(run, target) for run in runs]
    reached = [time for time in times if time is not None]
    return Row(
        method=method,
        seeds=seeds,
        failed=seeds - len(runs),
        errors={
            kind: spread([errors[kind] for errors in of if kind in errors]) for kind in ERROR_KINDS
        },
        absolute=spread(absolute) if known else None,
        milliseconds=spread([1e3 * _seconds_per_step(run) for run in runs]),
        seconds_to_target=spread(reached),
        reached=len(reached),
    )


def _seconds_per_step(run: Run) -> float:
    timing = run.result["timing"]
    if timing["steps_per_second"]:
        return 1 / timing["steps_per_second"]
    # Nothing is known of a run whose program was stopped between its last step and its result.
    return timing["training_seconds"] / max(run.result["steps"], 1) or math.nan


def _seconds_to(run: Run, target: float) -> float | None:
    below = np.flatnonzero(run.metrics[run.measure] <= target)
    return max(run.steps[below[0]], 1) * _seconds_per_step(run) if below.size else None


def _write_table(path: Path, rows: Sequence[Row], target: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        numbers = [*ERROR_KINDS, "mean_absolute", "milliseconds", "seconds_to_target"]
        both = [name for number in numbers for name in (number, f"{number}_spread")]
        writer.writerow(["method", "seeds", "failed", *both, "reached", "target"])
        for row in rows:
            spreads = [*(row.errors[kind] for kind in ERROR_KINDS), row.absolute or spread([])]
            spreads += [row.milliseconds, row.seconds_to_target]
            values = [value for s in spreads for value in (s.mean, s.factor)]
            writer.writerow([row.method, row.seeds, row.failed, *values, row.reached, target])


def _write_curves(path: Path, runs: Mapping[str, Sequence[Run]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "seed", "step", "seconds", "error", "loss"])
        for method, found in runs.items():
            for run in found:
                columns = (run.steps, run.metrics[run.measure], run.metrics["loss"])
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
        errors = np.stack([run.metrics[run.measure] for run in found])
        mean_time = spread([_seconds_per_step(run) for run in found]).mean
        x = found[0].steps * (mean_time if against_time else 1.0)
        (line,) = axis.plot(x, np.exp(np.log(errors).mean(0)), label=method)
        if len(found) > 1:
            axis.fill_between(x, errors.min(0), errors.max(0), color=line.get_color(), alpha=0.15)
    axis.axhline(target, color="0.35", linewidth=0.9, linestyle=(0, (4, 3)))
    axis.set_yscale("log")
    known = some.result["errors"] is not None
    axis.set_ylabel(ERRORS["relative_l2"] if known else "total loss")
    axis.set_xlabel("training time in s" if against_time else "step")
    if not against_time:
        axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
    return figure


def _page(run: Run, rows: Sequence[Row], target: float, images: Mapping[str, Path]) -> str:
    config, result = run.config, run.result
    known = result["errors"] is not None
    measure = "relative L2 error" if known else "total loss"
    by = "lowest error on validation points" if known else "lowest total loss"
    best = min(
        (row for row in rows if row.failed < row.seeds), key=lambda r: r.errors["selected"].mean
    )
    title = f"{run.problem}: {best.method} is the most accurate of {len(rows)} methods"
    if len(rows) == 1:
        title = f"{run.problem} by {best.method}"
    layers = f"{config['network']} {config['depth']}×{config['width']}"
    captions = {
        "steps": f"The {measure} on the test grid against steps: geometric mean over seeds, and a "
        f"band from the smallest to the largest; dashed, the target of {target:g}.",
        "time": "The same against training time, steps times the time per step, without "
        "compilation.",
    }
    figures = "\n".join(_report.figure(path, n, captions[n]) for n, path in images.items())
    return _report.page(
        title,
        f"""<p>{escape(layers)}, {result["steps"]:,} steps, learning rate
{config["learning_rate"]:g}, on {escape(result["device"])}. Geometric means over seeds, with the
geometric standard deviation as a factor; <i>selected</i> is the network of the {by}.</p>
<h2>{measure[0].upper() + measure[1:]}</h2>
{_report.table(as_text(rows, target))}
<h2>Curves</h2>
{figures}
<p>The numbers behind both are in <code>comparison.csv</code> and <code>curves.csv</code>.</p>""",
    )
