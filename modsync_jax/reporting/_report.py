"""The report of a run: one self-contained HTML file."""

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from modsync_jax.reporting import _drawing, _fields, _history, _html, _layers, _run, _verdict
from modsync_jax.reporting._numbers import number
from modsync_jax.reporting._run import ERRORS, Run

_ROWS_OF_MEDIAN = 10

_LOADING = """import modsync_jax
u = modsync_jax.load({folder}{network})
u(points)"""


class _Picture(NamedTuple):
    """A figure of the report.

    Attributes:
      name: the name of its files.
      shown: whether a run has the data for it.
      draw: the function that draws it.
      caption: the text below it.
    """

    name: str
    shown: Callable[[Run], bool]
    draw: Callable[[Run], Figure]
    caption: Callable[[Run], str]


def write_report(folder: str | os.PathLike) -> Path:
    """Draws the figures of a finished run and writes its report.

    Args:
      folder: the run's folder, with `config.json`, `metrics.csv`, `result.json`, `solution.npz`
        and, if it has one, `layers.npz`.

    Returns:
      The path of `report.html`. Beside it, `figures/` holds PNG and PDF files of those figures for
      which the run has data: `solution`, `slices`, `residuals`, `history`, `cosine`, `measures`,
      `sparsity`, `layers`, `points`.

    Raises:
      FileNotFoundError: the folder is not one of a finished run.
    """
    path = Path(folder)
    run = _run.read(path)
    images = {
        picture.name: _drawing.save(partial(picture.draw, run), path / "figures" / picture.name)
        for pictures in _SECTIONS.values()
        for picture in pictures
        if picture.shown(run)
    }
    partial_report = path / ".report.html.partial"  # so that a report is whole even after a kill
    partial_report.write_text(_page(run, path, images), encoding="utf-8")
    return partial_report.replace(path / "report.html")


def _page(run: Run, folder: Path, images: Mapping[str, Path]) -> str:
    findings = "\n".join(
        f'<li class="{level}"><b>{level}</b>{escape(text)}</li>'
        for level, text in _verdict.findings(run)
    )
    network = "" if run.config["architecture"] else ", network=network"
    source = run.config["source"]
    return _html.page(
        _verdict.headline(run),
        f"""<ul>
{findings}
</ul>{_chosen_by(folder)}
<h2>Key numbers</h2>
{_html.numbers(_measures(run))}
{_figures(run, images)}
<h2>Use it</h2>
<pre>{escape(_LOADING.format(folder=json.dumps(str(folder)), network=network))}</pre>
<p>The solution takes points [N, {len(run.config["coordinates"])}] with the coordinates
{escape(", ".join(run.config["coordinates"]))} and returns values [N,
{len(run.config["outputs"])}] of {escape(", ".join(run.config["outputs"]))}.{
            f" Source of the problem: {escape(source)}." if source else ""
        }</p>
<h2>The run</h2>
{_html.table(_facts(run))}
<details>
<summary>All settings</summary>
{_html.table([name, _setting(value)] for name, value in run.config.items())}
</details>""",
    )


def _chosen_by(folder: Path) -> str:
    """What a diagnosis said before the run, if there was one."""
    path = folder / "diagnosis" / "diagnosis.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text())
    page = '<a href="diagnosis/diagnosis.html">diagnosis</a>'
    return (
        f"<p>The method {escape(found['method'])} was chosen by a {page}: "
        f"{escape(found['regime'])}. {escape(found['reason'])}</p>"
    )


def _figures(run: Run, images: Mapping[str, Path]) -> str:
    lines = []
    for heading, pictures in _SECTIONS.items():
        shown = [picture for picture in pictures if picture.name in images]
        lines += [f"<h2>{heading}</h2>"] if shown else []
        lines += [_html.figure(images[p.name], p.name, p.caption(run)) for p in shown]
    return "\n".join(lines)


def _about_solution(run: Run) -> str:
    d = len(run.config["coordinates"])
    drawn = "Curves" if d == 1 else "Heat maps" if d == 2 else "Slices"
    planes = "on planes of two coordinates; errors above are those at random points of the domain"
    place = "on the test grid" if _has_grid(run) else planes
    what = f"{drawn} of the selected solution {place}"
    if run.result["errors"]:
        return (
            f"{what}. Prediction and reference share one scale; the absolute error has its own. "
            "Look for where the error is: at a wall, at a front, or everywhere."
        )
    if "residuals" in run.solution:
        return f"{what}, and the residual of each equation. {_about_residuals(run)}"
    return f"{what}. There is no reference to compare it with."


def _has_grid(run: Run) -> bool:
    """Whether the grid of the pictures fills the domain, so that errors are measured on it."""
    return 1 not in run.solution["shape"]


def _about_residuals(run: Run) -> str:
    meaning = "Where the residual is far from zero, the solution does not satisfy the equation."
    if len(run.config["coordinates"]) == 1:
        return meaning
    return f"{meaning} The colours end at the 99% quantile of the residual's size."


def _about_history(run: Run) -> str:
    parts = ["the trained losses, with their weights"]
    if _history.has_terms(run):
        parts.append(
            "the mean square of the equations and of each condition alone, without weights: a "
            "curve that stays high is a condition that is not met"
        )
    held_out = "score" in run.metrics
    if held_out:
        parts[-1] += ", and their sum on held-out points, the same ones in all rows"
    if run.result["errors"]:
        parts.append(f"errors {'on the test grid' if _has_grid(run) else 'at random test points'}")
    if run.family("unknown"):
        parts.append("the unknowns, which should level off")
    if _history.has_rates(run):
        parts.append("the learning rate")
    by = {
        "validation error": "lowest error on validation points",
        "unweighted loss": f"lowest sum of the mean squares{' on held-out points' * held_out}",
    }
    fallback = "lowest error on validation points" if run.result["errors"] else "lowest total loss"
    return (
        f"From top to bottom: {'; '.join(parts)}. The star marks the selected parameters, those of "
        f"the {by.get(run.scored_by, fallback)}, which load returns."
    )


def _about_cosine(run: Run) -> str:
    pairs = run.family("cosine")
    if not pairs:
        return "The length of each objective's gradient."
    meaning = (
        "the cosine between the gradients of two objectives: below zero, a step that helps one "
        "hurts the other; near zero, the two are independent"
    )
    if len(pairs) > _history.MOST_PAIRS:
        return (
            f"Left, the mean over the run of {meaning}. Right, the share of batches in which it "
            "was below zero. Below, the length of each gradient."
        )
    if run.family("opposed"):
        return (
            f"Above, {meaning}. A dot is the mean over the training batches since the dot before; "
            "the line is a running mean of the dots. In the middle, the share of those batches "
            "whose cosine is negative. Below, the length of each gradient."
        )
    return (
        f"Above, {meaning}. A dot is one batch; the line is a running mean. Below, the length of "
        "each gradient."
    )


def _about_measures(run: Run) -> str:
    known = {
        "spread": "how much the cosine differs between batches, as a standard deviation",
        "stretch": "the most training batches in a row whose gradients oppose each other",
        "autocorrelation": "how far a batch's cosine repeats that of the batch before: near 1, "
        "conflict lasts; near 0, it comes and goes with the points",
        "alignment": "1 if the gradients of all objectives point one way, 0 or below if they do "
        "not",
        "norm_ratio": "the longest gradient over the shortest one",
        "stationarity": "the distance from a point where no step helps all objectives: the length "
        "of the shortest mixture of gradients, and its share of the longest gradient (relative)",
        "layer_cosine": "the cosine of two gradients in each layer alone",
        "interaction": "the share of one objective's points that feel the other's gradient at all",
    }
    shown = [known[name] for name in _history.measured(run) if name in known]
    start = "What was measured in the training batches since the row before"
    return f"{start}. From top to bottom: {'; '.join(shown)}." if shown else f"{start}."


def _about_layers(run: Run) -> str:
    sizes = "The sizes of each layer's weights, as a logarithm to base 10"
    if not run.family("keep"):
        return f"{sizes}."
    polished = (
        f" The phase {run.phases[1][0]} made pruned weights zero; they are drawn at the left edge."
        if len(run.phases) > 1
        else ""
    )
    return (
        f"Above: {sizes[0].lower()}{sizes[1:]}, kept weights in blue, pruned ones in orange. "
        "Below: the places where the masks keep weights; dark means all. A pale column is a unit "
        f"with hardly any input; a pale row is an input that is hardly used.{polished}"
    )


def _has_slices(run: Run) -> bool:
    return len(run.config["coordinates"]) == 2 and "t" in run.config["coordinates"]


def _has_points(run: Run) -> bool:
    drawn = any(name.startswith("drawn/") for name in run.solution)
    return drawn and len(run.config["coordinates"]) == 2


_SECTIONS: Mapping[str, tuple[_Picture, ...]] = {
    "Solution": (
        _Picture(
            "solution",
            lambda run: True,
            lambda run: _fields.solution(run.solution),
            _about_solution,
        ),
        _Picture(
            "slices",
            _has_slices,
            lambda run: _fields.slices(run.solution),
            lambda run: (
                "The solution over space at some times"
                + (": a correct prediction lies on the reference." if run.result["errors"] else ".")
            ),
        ),
        _Picture(
            "residuals",
            lambda run: "residuals" in run.solution and bool(run.result["errors"]),
            lambda run: _fields.residuals(run.solution),
            lambda run: f"The residual of each equation on the same grid. {_about_residuals(run)}",
        ),
    ),
    "Training": (
        _Picture("history", lambda run: True, _history.history, _about_history),
        _Picture("cosine", lambda run: True, _history.cosine, _about_cosine),
        _Picture(
            "measures",
            lambda run: bool(_history.measured(run)),
            _history.measures,
            _about_measures,
        ),
    ),
    "Details": (
        _Picture(
            "sparsity",
            lambda run: bool(run.family("keep")),
            _history.sparsity,
            lambda run: (
                "Above, the share of each layer's weights that the masks keep. Below, in "
                "the same colours, each objective's mean threshold. Masks cut at the mean over "
                "objectives; the closer these thresholds, the more connections objectives share."
            ),
        ),
        _Picture(
            "layers",
            lambda run: len(run.layers.get("layers", ())) > 0,
            lambda run: _layers.layers(run.layers, masked=bool(run.family("keep"))),
            _about_layers,
        ),
        _Picture(
            "points",
            _has_points,
            lambda run: _fields.points(run.solution),
            lambda run: (
                "The points of one training batch: grey for the equations, a colour for "
                "each condition. A wall without points is a wall without a condition."
            ),
        ),
    ),
}


def _measures(run: Run) -> list[list[str]]:
    result = run.result
    rows = min(_ROWS_OF_MEDIAN, len(run.steps))
    labels = {"median_of_last_ten": f"median of last {rows}"}
    values = {label: result["errors"][name] for name, label in ERRORS.items() if result["errors"]}
    if run.scored_by not in values:
        values[run.scored_by] = {"selected": run.score}
    values["total loss"] = result["loss"]
    if result["keep"]:
        values["share of weights kept"] = result["keep"]
    values |= {f"unknown {name}": of for name, of in _unknowns(result).items()}
    columns = list(dict.fromkeys(kind for of in values.values() for kind in of))
    head = ["", *(labels.get(column, column) for column in columns)]
    return [
        head,
        *([n, *(number(of[c]) if c in of else "" for c in columns)] for n, of in values.items()),
    ]


def _unknowns(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The columns of each unknown; older results have its value alone."""
    rows = {name: {"selected": value} for name, value in result["unknowns"].items()}
    for name, (low, high) in result.get("intervals", {}).items():
        rows[name] |= {"95% from": low, "to": high}
    for name, true in result.get("truths", {}).items():
        rows[name] |= {"truth": true}
    return rows


def _facts(run: Run) -> list[list[str]]:
    result, timing = run.result, run.result["timing"]
    phases = [f"{end - start:,} of {name}" for name, start, end in run.phases]
    steps = ", then ".join(phases) if len(phases) > 1 else f"{run.phases[0][2]:,}"
    estimated = ""
    if estimate := result.get("estimate"):
        estimated = f"{number(estimate['relative_l2'])}, {estimate['reliability']}"
    weights = [f"{k} {number(weight)}" for k, weight in result.get("loss_weights", {}).items()]
    return [
        ["steps", steps],
        *([["loss weights", ", ".join(weights)]] if weights else []),
        ["selected step", f"{result['selected_step']:,}"],
        *([["error without a reference", estimated]] if estimated else []),
        ["trainable parameters", f"{result['parameters']:,}"],
        ["seed", str(result["seed"])],
        ["training time", f"{number(timing['training_seconds'])} s"],
        ["first chunks, with compilation", f"{number(timing['first_chunks_seconds'])} s"],
        ["speed after those", f"{number(timing['steps_per_second'])} steps/s"],
        ["device", result["device"]],
        [
            "versions",
            ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        ],
    ]


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
