"""The report of a run: one HTML file that needs nothing else to be read."""

import base64
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from modsync_jax.reporting import _figures, _run, _verdict
from modsync_jax.reporting._run import ERRORS, Run
from modsync_jax.reporting._verdict import number

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6470; --line: #d9dee4; --page: #fff;
  --panel: #f4f6f8; --ok: #00694c; --note: #8a5a00; --bad: #b02a1c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #a3acb8; --line: #363d46;
  --page: #15181c; --panel: #1e2329; --ok: #4fc79d; --note: #e3b04b; --bad: #ff8a7a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.45rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h1, td, li { overflow-wrap: break-word; }
ul { list-style: none; margin: 0; padding: 0; }
li { padding: .3rem 0 .3rem 4.2rem; text-indent: -4.2rem; }
li b { display: inline-block; width: 4.2rem; text-indent: 0; }
.ok b { color: var(--ok); } .note b { color: var(--note); } .bad b { color: var(--bad); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1.5rem .25rem 0;
  border-bottom: 1px solid var(--line); font-weight: normal; }
th { color: var(--soft); }
figure { margin: 0 0 1.6rem; }
figure img { display: block; max-width: 100%; height: auto; margin: auto; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .6rem; }
figcaption { color: var(--soft); font-size: .92rem; margin-top: .5rem; }
pre { background: var(--panel); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto;
  font-size: .9rem; }
summary { cursor: pointer; font-size: 1.15rem; font-weight: 600; margin: 2.2rem 0 .6rem; }
.scroll { overflow-x: auto; }
"""

_COSINE = (
    "Above, the cosine between the gradients of two objectives: below zero a step that helps one "
    "hurts the other, near zero they share nothing; below, the length of each gradient."
)
_SPARSITY = (
    "Above, the share of each layer's weights that the masks keep; below, in the same colours, "
    "each objective's mean threshold: masks cut at the mean over objectives, and the closer the "
    "objectives are, the more connections they share."
)

_LOADING = """import modsync_jax
u = modsync_jax.load({folder}{network})
u(points)"""


def write_report(folder: str | os.PathLike) -> Path:
    """Draws the figures of a finished run and writes its report.

    Args:
      folder: the run's folder, with `config.json`, `metrics.csv`, `result.json`, `solution.npz`.

    Returns:
      The path of `report.html`. Beside it, `figures/` holds `solution`, `history`, `cosine` and,
      for a method with thresholds, `sparsity`, each as PNG and PDF.

    Raises:
      FileNotFoundError: the folder is not one of a finished run.
    """
    path = Path(folder)
    run = _run.read(path)
    figures = path / "figures"
    images = {"solution": _figures.draw_solution(run.solution, figures / "solution")}
    for name, draw in _drawn(run).items():
        images[name] = _figures.save(partial(draw, run), figures / name)
    partial_report = path / ".report.html.partial"  # a report that exists is whole, after any kill
    partial_report.write_text(_page(run, path, images), encoding="utf-8")
    return partial_report.replace(path / "report.html")


def _drawn(run: Run) -> dict[str, Callable[[Run], Figure]]:
    masked = {"sparsity": _figures.sparsity} if run.family("keep") else {}
    return {"history": _figures.history, "cosine": _figures.cosine, **masked}


def _page(run: Run, folder: Path, images: Mapping[str, Path]) -> str:
    findings = "\n".join(
        f'<li class="{level}"><b>{level}</b>{escape(text)}</li>'
        for level, text in _verdict.findings(run)
    )
    captions = _captions(run)
    figures = "\n".join(figure(path, name, captions[name]) for name, path in images.items())
    network = "" if run.config["architecture"] else ", network=network"
    source = run.config["source"]
    return page(
        _verdict.headline(run),
        f"""<ul>
{findings}
</ul>
<h2>Key numbers</h2>
{table(_measures(run))}
<h2>Figures</h2>
{figures}
<h2>Use it</h2>
<pre>{escape(_LOADING.format(folder=json.dumps(str(folder)), network=network))}</pre>
<p>The solution takes points [N, {len(run.config["coordinates"])}] with the coordinates
{escape(", ".join(run.config["coordinates"]))} and returns values [N,
{len(run.config["outputs"])}] of {escape(", ".join(run.config["outputs"]))}.{
            f" Source of the problem: {escape(source)}." if source else ""
        }</p>
<h2>The run</h2>
{table(_facts(run))}
<details>
<summary>All settings</summary>
{table([name, _setting(value)] for name, value in run.config.items())}
</details>""",
    )


def page(title: str, body: str) -> str:
    """A self-contained HTML page in the reports' style; `body` is HTML, `title` text."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
</body>
</html>
"""


def _captions(run: Run) -> dict[str, str]:
    d, known = len(run.config["coordinates"]), run.result["errors"] is not None
    drawn = "Curves" if d == 1 else "Heat maps" if d == 2 else "Slices"
    beside = (
        "prediction and reference share one scale, the absolute error has its own"
        if known
        else "there is no reference to compare it with"
    )
    by = "lowest error on validation points" if known else "lowest total loss"
    errors = " and errors" if known else ""
    return {
        "solution": f"{drawn} of the selected solution on the test grid: {beside}.",
        "history": f"Losses{errors} on logarithmic axes; the star marks the selected parameters, "
        f"those of the {by}, which load returns.",
        "cosine": _COSINE if run.family("cosine") else "The length of each objective's gradient.",
        "sparsity": _SPARSITY,
    }


def _measures(run: Run) -> list[list[str]]:
    result = run.result
    values = {label: result["errors"][name] for name, label in ERRORS.items() if result["errors"]}
    values["total loss"] = result["loss"]
    if result["keep"]:
        values["share of weights kept"] = result["keep"]
    columns = list(next(iter(values.values())))
    head = ["", *(column.replace("_", " ") for column in columns)]
    return [
        head,
        *([n, *(number(of[c]) if c in of else "" for c in columns)] for n, of in values.items()),
    ]


def _facts(run: Run) -> list[list[str]]:
    result, timing = run.result, run.result["timing"]
    steps, polish = run.config["steps"], run.config["polish_steps"]
    return [
        *([f"unknown {name}", number(value)] for name, value in result["unknowns"].items()),
        ["steps", f"{steps:,}" + (f", then {polish:,} of L-BFGS polish" if polish else "")],
        ["selected step", f"{result['selected_step']:,}"],
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


def table(rows: Iterable[Sequence[str]]) -> str:
    """An HTML table whose rows start with their header."""
    lines = "\n".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return f'<div class="scroll"><table>\n{lines}\n</table></div>'


def figure(path: Path, name: str, caption: str) -> str:
    png = path.read_bytes()
    width = (
        int.from_bytes(png[16:20], "big") * 96 // _figures.DPI
    )  # its size in print, as CSS pixels
    data = base64.b64encode(png).decode()
    return (
        f'<figure><div class="card"><img alt="{name}" width="{width}" '
        f'src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
