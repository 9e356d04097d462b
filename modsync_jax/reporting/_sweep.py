"""The report of a sweep: the best configurations, curves, and the error against any axis."""

import csv
import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from modsync_jax.reporting import _drawing, _html
from modsync_jax.reporting._ranking import Leader, Spread, leader, spread
from modsync_jax.reporting._run import ERROR_KINDS, outcome_of

_DRAWN = 6  # configurations with a curve
_SHOWN = 25  # rows of the page's table


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The replicas of a sweep that differ in their seed only.

    Attributes:
      point: their common values by the grid's names, as text; empty where a method has no such
        axis.
      replicas: the number of replicas.
      failed: the number of replicas that were not finite; the other attributes leave them out.
      stopped: the step after which halving stopped them; 0 if they reached the end.
      score: the number that ranks replicas: the error on validation points or, without a reference,
        the loss without weights. In older tables without a score it is `selected`.
      selected: the error on the test grid (the loss without a reference) of the selected networks.
      final: the same after the last step.
      rows: the rows of the finite replicas.
    """

    point: Mapping[str, str]
    replicas: int
    failed: int
    stopped: int
    score: Spread
    selected: Spread
    final: Spread
    rows: Sequence[Mapping[str, str]]

    @property
    def name(self) -> str:
        """The configuration's name, such as `modsync+dcgd width=64`."""
        own = {name: value for name, value in self.point.items() if value}
        return " ".join(v if k == "method" else f"{k}={v}" for k, v in own.items())


def evaluations(folder: str | os.PathLike) -> dict[str, dict[str, NDArray]]:
    """Reads the metrics of a sweep's replicas.

    Args:
      folder: the sweep's folder.

    Returns:
      By the replica's name, `steps` and the columns of `metrics.csv`, `[rows]` each, from the group
      that trained it longest; NaN after the row in which it failed.
    """
    found: dict[str, dict[str, NDArray]] = {}
    for path in sorted((Path(folder) / "groups").glob("*/metrics.npz")):
        names = json.loads((path.parent / "config.json").read_text())["replicas"]
        with np.load(path) as arrays:
            columns, steps = dict(arrays), arrays["steps"]
        del columns["steps"]
        for index, name in enumerate(names):
            if name not in found or len(steps) > len(found[name]["steps"]):
                found[name] = {"steps": steps} | {n: of[index] for n, of in columns.items()}
    return found


def read_table(folder: str | os.PathLike) -> list[dict[str, str]]:
    """Reads the rows of a sweep's `results.csv`.

    Raises:
      FileNotFoundError: the folder has no such file.
    """
    path = Path(folder) / "results.csv"
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no results.csv; name the folder of a sweep")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def axes_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The grid's names, `method` first: the columns before `status`."""
    names = list(rows[0])
    return names[: names.index("status")]


def configurations(rows: Sequence[Mapping[str, Any]]) -> list[Configuration]:
    """Returns the configurations of a sweep in order of their geometric mean score over seeds.

    The ones that halving stopped come after the ones that went on.
    """
    ranked_by = _score_column(rows)
    names = [name for name in axes_of(rows) if name != "seed"]
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(_text(row[name]) for name in names), []).append(row)
    made = []
    for values, members in found.items():
        good = [row for row in members if row["status"] != "not finite"]
        score, selected, final = (
            spread([float(row[column]) for row in good])
            for column in (ranked_by, _measure(rows, "selected"), _measure(rows, "final"))
        )
        point = dict(zip(names, values, strict=True))
        failed = len(members) - len(good)
        stopped = max((int(r["steps"]) for r in good if r["status"] == "stopped"), default=0)
        spreads = (score, selected, final)
        made.append(Configuration(point, len(members), failed, stopped, *spreads, good))
    return sorted(made, key=_rank)


def _rank(found: Configuration) -> tuple[float, float]:
    mean = found.score.mean
    return -found.stopped or -math.inf, math.inf if math.isnan(mean) else mean


def as_table(ranked: Sequence[Configuration]) -> list[list[str]]:
    """Configurations as text, a header first."""
    lines = [[*ranked[0].point, "replicas", "score", "selected", "final"]]
    for found in ranked:
        failed = f", {found.failed} not finite" if found.failed else ""
        stopped = f", stopped at {found.stopped:,}" if found.stopped else ""
        counts = f"{found.replicas}{failed}{stopped}"
        spreads = (found.score, found.selected, found.final)
        lines.append([*found.point.values(), counts, *map(str, spreads)])
    return lines


def leader_of(ranked: Sequence[Configuration], column: str) -> Leader | None:
    """Returns the leader by a column among the finished configurations; None if all failed.

    Only configurations that trained as long as the first one take part, since others had fewer
    steps.
    """
    equals = [found for found in ranked if found.stopped == ranked[0].stopped]
    scores = {
        found.name: {row.get("seed", ""): float(row[column]) for row in found.rows}
        for found in equals
    }
    return leader(scores)


def write_sweep(folder: str | os.PathLike) -> Path:
    """Draws the figures of a finished sweep and writes `sweep.html`; returns its path.

    Raises:
      FileNotFoundError: the folder is not one of a finished sweep.
    """
    path, rows = Path(folder), read_table(folder)
    ranked = configurations(rows)
    config = json.loads((path / "config.json").read_text())
    images = {
        "curves": _drawing.save(partial(_curves, path, rows, ranked), path / "figures" / "curves")
    }
    captions = {
        "curves": f"The {_label(rows)} against steps, for the {min(len(ranked), _DRAWN)} "
        "configurations with the lowest scores: geometric mean over seeds, and a band from the "
        "smallest to the largest."
    }
    for name in axes_of(rows):
        if name not in ("method", "seed") and len({row[name] for row in rows} - {""}) > 1:
            images[name] = draw_axis(folder, name)
            captions[name] = (
                f"The {_label(rows)} of the selected networks against {name}. For each value, a "
                f"method's line shows its configuration with the lowest {_score(rows)} (geometric"
                " mean over seeds); points are all networks."
            )
    figures = "\n".join(_html.figure(image, n, captions[n]) for n, image in images.items())
    first = leader_of(ranked, _score_column(rows))
    more = f"<p>The first {_SHOWN} of {len(ranked)}.</p>" if len(ranked) > _SHOWN else ""
    stopped = sum(row["status"] == "stopped" for row in rows)
    kind = "configurations that halving kept" if stopped else "configurations"
    outcome = first.sentence(kind, _score(rows)) if first else "no network is finite"
    title = f"{config['problem']}: {outcome}"
    early = f", {stopped} of them stopped early by successive halving, with their last errors"
    body = f"""<p>{len(rows)} networks{early if stopped else ""}. Configurations are ranked by
<i>score</i>, the {_score(rows)}; <i>selected</i> and <i>final</i> are the {_label(rows)}
of the selected networks and of the networks after the last step. Numbers are geometric means over
seeds, with the geometric standard deviation as a factor. Every network is in
<code>results.csv</code>.</p>
<h2>Configurations</h2>{more}
{_html.numbers(as_table(ranked[:_SHOWN]), winner=first is not None and first.is_best)}
<h2>Figures</h2>
{figures}"""
    page = path / "sweep.html"
    page.write_text(_html.page(title, body), encoding="utf-8")
    return page


def draw_axis(folder: str | os.PathLike, name: str, measure: str = "selected") -> Path:
    """Draws a column of a sweep against one axis of its grid, a line for each method.

    For each value, the line shows the configuration with the lowest score.

    Args:
      folder: the folder of a finished sweep.
      name: a name of the grid, such as `width`.
      measure: a column of numbers in `results.csv`, such as `cosine/boundary~residual`; `selected`
        is the loss without a reference.

    Returns:
      The path of the PNG, `figures/<measure>-<name>.png` with dashes for slashes; the PDF is beside
      it.

    Raises:
      FileNotFoundError: the folder is not one of a finished sweep.
      ValueError: no such axis or column.
    """
    rows = read_table(folder)
    column = _measure(rows, measure)
    for given, known in ((name, axes_of(rows)), (column, list(rows[0]))):
        if given not in known:
            raise ValueError(f"no column {given!r} in {folder} (known: {', '.join(known)})")
    stem = Path(folder) / "figures" / f"{measure}-{name}".replace("/", "-")
    return _drawing.save(partial(_against, rows, name, column), stem)


def _measure(rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    return kind if kind in rows[0] or f"loss_{kind}" not in rows[0] else f"loss_{kind}"


def _score_column(rows: Sequence[Mapping[str, Any]]) -> str:
    """The column that ranks replicas; older tables without a score are ranked by their errors."""
    good = [row for row in rows if row["status"] != "not finite"]
    scored = good and all(row.get("score") not in (None, "") for row in good)
    return "score" if scored else _measure(rows, "selected")


def _score(rows: Sequence[Mapping[str, Any]]) -> str:
    """The score in words."""
    if _score_column(rows) != "score":
        return "test error" if "selected" in rows[0] else "loss"
    return "validation error" if "selected" in rows[0] else "unweighted loss"


def _label(rows: Sequence[Mapping[str, Any]]) -> str:
    return "relative L2 error on the test grid" if "selected" in rows[0] else "loss"


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _against(rows: Sequence[Mapping[str, str]], name: str, column: str) -> Figure:
    figure = Figure(figsize=(10.0, 4.4))
    axis = figure.subplots()
    rows = [row for row in rows if row[name]]  # without methods that lack this axis
    values = list(dict.fromkeys(row[name] for row in rows))
    numeric = all(_is_number(value) for value in values)
    if numeric:
        values.sort(key=float)
    place = {value: float(value) if numeric else i for i, value in enumerate(values)}
    finished = [row for row in rows if row["status"] != "not finite" and row[column]]
    positive = all(float(row[column]) > 0 for row in finished)
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in finished if row["method"] == method]
        best = {}
        for value in dict.fromkeys(row[name] for row in own):
            chosen = configurations([row for row in own if row[name] == value])[0]
            found = [float(row[column]) for row in chosen.rows]
            best[value] = spread(found).mean if positive else float(np.mean(found))
        ordered = sorted(best, key=place.__getitem__)
        line_x, line_y = [place[v] for v in ordered], [best[v] for v in ordered]
        (line,) = axis.plot(line_x, line_y, "o-", label=method)
        x = [place[row[name]] for row in own]
        axis.plot(x, [float(r[column]) for r in own], ".", color=line.get_color(), alpha=0.35)
    axis.set_yscale("log" if positive else "linear")
    _scales(axis, [place[value] for value in values] if numeric else [], values)
    axis.set(xlabel=name, ylabel=f"{_label(rows)} ({column})" if column in ERROR_KINDS else column)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
    return figure


def _scales(axis: Any, places: Sequence[float], values: Sequence[str]) -> None:
    if not places:
        axis.set_xticks(range(len(values)), values)
        return
    if min(places) > 0 and max(places) >= 4 * min(places):
        axis.set_xscale("log")
    axis.set_xticks(places, values)
    axis.set_xticks([], minor=True)


def _curves(
    folder: Path, rows: Sequence[Mapping[str, str]], ranked: Sequence[Configuration]
) -> Figure:
    drawn = ranked[:_DRAWN]
    figure = Figure(figsize=(10.0, 4.0 + 0.22 * len(drawn)))  # names of many axes are long
    axis = figure.subplots()
    kept = evaluations(folder)
    for found in drawn:
        curves = [kept[row["replica"]] for row in found.rows]
        if not curves:
            continue
        steps, errors = curves[0]["steps"], np.stack([outcome_of(curve) for curve in curves])
        (line,) = axis.plot(steps, np.exp(np.log(errors).mean(0)), label=found.name)
        if len(errors) > 1:
            ends = (errors.min(0), errors.max(0))
            axis.fill_between(steps, *ends, color=line.get_color(), alpha=0.15)
    axis.set_yscale("log")
    axis.set(xlabel="step", ylabel=_label(rows))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    if axis.get_lines():
        figure.legend(loc="outside lower left")
    return figure


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
