"""The files of a table or figure."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from modsync_jax import reporting
from modsync_jax.studies import _pictures, _tables
from modsync_jax.studies._cells import Cell
from modsync_jax.studies._evidence import at_equal_time
from modsync_jax.studies._plan import VARIANTS, WHAT, variants
from modsync_jax.studies._results import Results

Table = list[list[str]]


def write(
    what: str, cells: Sequence[Cell], results: Results, preset: str = "default"
) -> Mapping[str, Table]:
    """Writes a table or figure of the cells that are trained, beside the results.

    Args:
      what: a name of `WHAT`; the files are `<what>-<preset>.md` and `.png`, without the preset
        where settings are compared.
      cells: its cells; those not trained are left out of figures and marked in tables.
      results: the study's.
      preset: as in `variants`.

    Returns:
      The tables by title; the first row of each is its head.
    """
    names = variants(what, preset)
    runs = results.final(cells)
    stem = results.folder / (what if WHAT[what].pairs else f"{what}-{preset}")
    draw: Mapping[str, Callable[[], Figure]] = {
        "fig1": partial(_pictures.draw_errors, runs, names),
        "fig2": partial(_pictures.draw_cosines, results.evaluations(cells), names[0]),
        "fig3": partial(_pictures.draw_interactions, runs, results.evaluations(cells), names),
        "fig4": partial(_pictures.draw_errors, runs, names),
    }
    if what in draw:
        reporting.save_figure(draw[what], stem, pdf=False)
    tables = _tables_of(what, cells, results, names)
    if tables:
        text = "\n\n".join(f"{title}\n\n{_markdown(rows)}" for title, rows in tables.items())
        text += "\n\n† The learning rate is at an end of the range." * ("†" in text)
        stem.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    return tables


def _tables_of(
    what: str, cells: Sequence[Cell], results: Results, names: Sequence[str]
) -> dict[str, Table]:
    runs = results.final(cells)
    widths = list(dict.fromkeys(cell.width for cell in cells))
    if what in ("fig1", "fig4"):
        of = [(n, n.removeprefix("modsync+").split(",")[0]) for n in names if "+" in n]
        found = {"Errors over all problems": _tables.means_table(runs, names, widths)}
        timed = _at_equal_time(runs, results, cells)
        for title, rows in (("", runs), (" at equal time", timed)):
            if of and rows:
                table = _tables.ratios_table(rows, of, widths)
                found[f"ModSync over its base{title}"] = table
        return found
    if pairs := WHAT[what].pairs:
        return {"Error over the base's": _tables.settings_table(runs, pairs)}
    if not what.startswith("table"):
        return {}
    problems = list(dict.fromkeys(cell.problem for cell in cells))
    kinds = {"selected": "relative L2 error", "mean_absolute": "mean absolute error"}
    return {
        f"{title}, width {width}": _tables.errors_table(
            [row for row in runs if row["width"] == width], problems, names, kind
        )
        for width in widths
        for kind, title in kinds.items()
    }


def _at_equal_time(
    runs: Sequence[Mapping[str, Any]], results: Results, cells: Sequence[Cell]
) -> list[dict[str, Any]]:
    """The runs of the widths whose costs are known, each cut where the fastest method ended."""
    costs = {
        (width, name): cost
        for (width, method), cost in results.costs().items()
        for name, variant in VARIANTS.items()
        if variant.method == method
    }
    timed = [row for row in runs if (row["width"], row["variant"]) in costs]
    return at_equal_time(timed, results.evaluations(cells), costs)


def _markdown(rows: Table) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
