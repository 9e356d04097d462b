"""The figures of a study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from modsync_jax.studies._evidence import error_of, mean_error

Row = Mapping[str, Any]
_PAIR = "boundary~residual"


def draw_errors(runs: Sequence[Row], variants: Sequence[str]) -> Figure:
    """Draws errors against width (Fig. 1 and 4 of the paper): means over problems, then each one.

    Bands are 95% intervals over seeds.
    """
    problems = list(dict.fromkeys(row["problem"] for row in runs))
    panels = [("all problems", problems), *((name, [name]) for name in problems)]
    panels = panels[len(problems) == 1 :]
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(3.0 * across + 2.0, 2.9 * down))
    axes = figure.subplots(down, across, squeeze=False, sharex=True).ravel()
    for axis, (title, of) in zip(axes, panels, strict=False):
        rows = [row for row in runs if row["problem"] in of]
        for name in variants:
            widths = sorted({row["width"] for row in rows if row["variant"] == name})
            found = [mean_error(rows, name, width) for width in widths]
            whole = [k for k, ratio in enumerate(found) if ratio.seeds]
            xs, ys = [widths[k] for k in whole], [found[k] for k in whole]
            (line,) = axis.plot(xs, [ratio.mean for ratio in ys], marker="o", markersize=3.5)
            line.set_label(name)
            ends = [ratio.low for ratio in ys], [ratio.high for ratio in ys]
            axis.fill_between(xs, *ends, color=line.get_color(), alpha=0.12)
        axis.set(title=title, yscale="log")
        _width_axis(axis, rows)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for column in range(across):
        last = max(k for k in range(len(panels)) if k % across == column)
        axes[last].tick_params(labelbottom=True)
    figure.supxlabel("width", fontsize=10.5)
    figure.supylabel("relative L2 error", fontsize=10.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def draw_cosines(history: Sequence[Row], variant: str) -> Figure:
    """Draws the cosine of the two gradients against steps, a line for each width (Fig. 2).

    Above, its mean over the batches since the evaluation before; below, its standard deviation
    between them. Bands span the seeds.
    """
    figure = Figure(figsize=(10, 5.6))
    axes = figure.subplots(2, 1, sharex=True)
    rows = [row for row in history if row["variant"] == variant and row["step"]]
    widths = sorted({row["width"] for row in rows})
    for width, colour in zip(widths, _colours(len(widths)), strict=True):
        of_width = [row for row in rows if row["width"] == width]
        steps = sorted({row["step"] for row in of_width})
        for axis, kind in zip(axes, ("cosine", "spread"), strict=True):
            values = [
                [row[f"{kind}/{_PAIR}"] for row in of_width if row["step"] == step]
                for step in steps
            ]
            axis.plot(steps, list(map(np.mean, values)), color=colour, label=f"width {width}")
            ends = list(map(np.min, values)), list(map(np.max, values))
            axis.fill_between(steps, *ends, color=colour, alpha=0.12)
    axes[0].axhline(0, color="black", linewidth=0.8)
    axes[0].set(ylabel="cosine, mean", ylim=(-1.05, 1.05))
    axes[1].set(xlabel="step", ylabel="between batches", ylim=(0, 1.05))
    axes[1].xaxis.set_major_formatter("{x:,.0f}")
    axes[0].legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
    return figure


def draw_interactions(
    runs: Sequence[Row], history: Sequence[Row], variants: Sequence[str]
) -> Figure:
    """Draws shares of interacting points against width, coloured by the error (Fig. 3).

    Shares are those of the last part of the training.
    """
    figure = Figure(figsize=(7.5, 3.8))
    axis = figure.subplots()
    errors = {_run(row): error_of(row) for row in runs}
    norm = LogNorm(min(errors.values()), max(errors.values()))
    last = max(row["step"] for row in history)
    shown = [row for row in history if row["step"] == last and _run(row) in errors]
    for shift, name, marker in zip((-1, 0, 1), variants, "os^", strict=False):
        rows = [row for row in shown if row["variant"] == name]
        mesh = axis.scatter(
            [row["width"] * 1.1**shift for row in rows],
            [row["interaction/residual>boundary"] for row in rows],
            c=[errors[_run(row)] for row in rows],
            norm=norm, cmap="plasma", marker=marker, edgecolors="0.3", label=name,
        )  # fmt: skip
    axis.set(ylabel="share of the residual's points", xlabel="width", ylim=(-0.05, 1.05))
    _width_axis(axis, shown)
    figure.colorbar(mesh, ax=axis, label="relative L2 error")
    figure.legend(loc="outside right upper")
    return figure


def _run(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("problem", "width", "variant", "seed"))


def _width_axis(axis: Axes, rows: Sequence[Row]) -> None:
    widths = sorted({row["width"] for row in rows})
    axis.set_xscale("log")
    axis.set_xticks(widths, widths)
    axis.set_xticks([], minor=True)


def _colours(count: int) -> Any:
    return colormaps["viridis"](np.linspace(0, 0.9, count))
