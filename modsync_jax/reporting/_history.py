"""Figures over the steps of a run: losses, gradients, sparsity."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from modsync_jax.reporting._drawing import PALETTE, WIDTH, colour_bar
from modsync_jax.reporting._numbers import signed
from modsync_jax.reporting._run import ERRORS, Column, Run, layer_label, pair_of

MOST_PAIRS = 3  # pairs of objectives drawn as curves; more are drawn as a matrix
_MOST_WRITTEN = 10  # largest matrix with written numbers
_LEGEND_ROWS = 12  # entries of a legend that fit beside a panel
_FEW_ROWS = 12  # most rows for which a curve shows its points
_FAR = 30.0  # ratio of values from which their scale is logarithmic
_SMOOTHED = 10  # a running mean is taken over 1 / 10 of the rows
_FEWEST_SMOOTHED = 5


def history(run: Run) -> Figure:
    """Draws losses, errors, unknowns and rates against steps, and marks the selected step."""
    panels: list[tuple[float, Callable[[Axes], None]]] = [(2.7, partial(_losses, run))]
    if has_terms(run):
        panels.append((2.7, partial(_terms, run)))
    if run.result["errors"]:
        panels.append((2.7, partial(_errors, run)))
    panels += [(1.7, partial(_unknown, run, name)) for name in run.family("unknown")]
    if has_rates(run):
        panels.append((1.3, partial(_rates, run)))
    figure, axes = _stack([height for height, _ in panels])
    for axis, (_, draw) in zip(axes, panels, strict=True):
        draw(axis)
    return _finish(figure, axes, run)


def has_terms(run: Run) -> bool:
    """Whether the terms show more than the losses."""
    losses = run.family("loss").values()
    return "score" in run.metrics or any(
        not any(np.array_equal(term, loss, equal_nan=True) for loss in losses)
        for term in run.family("term").values()
    )


def has_rates(run: Run) -> bool:
    """Whether the learning rate is known and changes."""
    rates = run.metrics.get("learning_rate", np.zeros(0))[: np.count_nonzero(run.training)]
    return len(np.unique(rates[np.isfinite(rates)])) > 1


def cosine(run: Run) -> Figure:
    """Draws cosines between the objectives' gradients, and the gradients' norms, against steps."""
    pairs = run.family("cosine")
    if len(pairs) > MOST_PAIRS:
        return _conflict_of_many(run)
    opposed = run.family("opposed")
    figure, axes = _stack([2.8, *([1.6] if opposed else []), 2.8] if pairs else [2.8])
    for k, (pair, column) in enumerate(pairs.items()):
        colour, label = PALETTE[k], " · ".join(pair_of(pair))
        axes[0].plot(run.steps, column, ".", color=colour, alpha=0.35, markersize=4)
        smooth = running_mean(column, run.metrics.get("batches"))
        axes[0].plot(run.steps, smooth, color=colour, linestyle="-", label=label)
        if opposed:
            curve(axes[1], run.steps, opposed[pair], None, color=colour, linestyle="-")
    if pairs:
        axes[0].axhline(0, color="black", linewidth=0.8)
        axes[0].set(ylim=(-1.05, 1.05), ylabel="cosine of gradients")
    if opposed and pairs:
        axes[1].set(ylim=(-0.03, 1.03), ylabel="batches\nopposed")
        axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    _norms(run, axes[-1])
    return _finish(figure, axes, run)


def running_mean(values: Column, weights: Column | None = None) -> Column:
    """Returns the mean of the finite rows around each row, `[rows]`.

    Args:
      values: `[rows]`.
      weights: the number of batches behind each row, `[rows]`; one by default.
    """
    weights = np.ones_like(values) if weights is None else weights
    known = np.isfinite(values) & np.isfinite(weights)
    weights = np.where(known, weights, 0.0)
    half = max(len(values) // _SMOOTHED, _FEWEST_SMOOTHED) // 2
    window = np.ones(2 * half + 1)
    cut = slice(half, half + len(values))
    total = np.convolve(np.where(known, values, 0.0) * weights, window)[cut]
    weight = np.convolve(weights, window)[cut]
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


def measures(run: Run) -> Figure:
    """Draws each family of measures without a figure of its own against steps."""
    families = measured(run)
    heights = [max(1.5, 0.16 * len(c)) if len(c) > _LEGEND_ROWS else 1.5 for c in families.values()]
    figure, axes = _stack(heights)
    for axis, (family, columns) in zip(axes, families.items(), strict=True):
        if len(columns) > _LEGEND_ROWS:
            _image(axis, run.steps, columns)
        else:
            for member, column in columns.items():
                label = member.replace("~", " · ") or None
                curve(axis, run.steps, column, label)
            _scaled(axis, np.array(list(columns.values())))
        axis.set_ylabel(family.replace("_", " "))
    return _finish(figure, axes, run)


def measured(run: Run) -> dict[str, dict[str, Column]]:
    """The families of measures that no other figure shows, with any finite number."""
    return {
        family: columns
        for family, columns in run.families().items()
        if family not in ("cosine", "opposed") and np.isfinite(list(columns.values())).any()
    }


def sparsity(run: Run) -> Figure:
    """Draws each layer's share of kept weights and each objective's thresholds against steps."""
    keep, thresholds = run.family("keep"), run.thresholds()
    colours = dict(zip(keep, colormaps["viridis"](np.linspace(0, 0.9, len(keep))), strict=True))
    figure, axes = _stack([2.8, *[2.2] * len(thresholds)])
    for layer, column in keep.items():
        curve(axes[0], run.steps, column, layer_label(layer), color=colours[layer], linestyle="-")
    curve(axes[0], run.steps, run.metrics["keep"], "all layers", color="black", linestyle="--")
    axes[0].set(ylabel="share of weights kept", ylim=(-0.03, 1.03))
    rows = run.training  # later phases fold the masks into the weights and have no thresholds
    for axis, (objective, columns) in zip(axes[1:], thresholds.items(), strict=True):
        for layer, column in columns.items():
            style = {"color": colours[layer], "linestyle": "-"}
            curve(axis, run.steps[rows], column[rows], None, **style)  # as in the legend above
        axis.set(ylabel=f"mean threshold,\n{objective}")
        axis.sharey(axes[1])
    return _finish(figure, axes, run)


def _image(axis: Axes, steps: Column, columns: Mapping[str, Column]) -> None:
    """Draws many columns as rows of colours against steps."""
    values = np.array(list(columns.values()))
    edge = np.nanmax(np.abs(values))
    shown = {"cmap": "RdBu", "vmin": -edge, "vmax": edge} if (values < 0).any() else {}
    mesh = axis.pcolormesh(steps, np.arange(len(columns)), values, shading="nearest", **shown)
    axis.set_yticks(range(len(columns)), list(columns), fontsize=7)
    axis.grid(False)
    colour_bar(axis, mesh)


def _losses(run: Run, axis: Axes) -> None:
    _sum(axis, run.steps, run.metrics["loss"], "total")
    _named_curves(run, axis, "loss")
    if run.result["errors"] or not run.family("term"):
        _star(run, axis, run.metrics["loss"])
    _logarithmic(axis, "loss")


def _terms(run: Run, axis: Axes) -> None:
    held_out = run.metrics.get("score")
    selecting = run.outcome if held_out is None and not run.result["errors"] else held_out
    if selecting is not None:
        label = "sum" if held_out is None else "sum, held out"
        _sum(axis, run.steps, selecting, label)
    _named_curves(run, axis, "term")
    if selecting is not None:
        _star(run, axis, selecting)
    _logarithmic(axis, "mean square")


def _errors(run: Run, axis: Axes) -> None:
    for measure, label in ERRORS.items():
        curve(axis, run.steps, run.metrics[f"test/{measure}"], label)
    _star(run, axis, run.outcome)
    _logarithmic(axis, "error")


def _unknown(run: Run, name: str, axis: Axes) -> None:
    column = run.family("unknown")[name]
    curve(axis, run.steps, column, None, color=PALETTE[0])
    axis.plot(run.steps[run.selected], column[run.selected], "k*", markersize=13, zorder=3)
    axis.set_ylabel(f"unknown\n{name}")


def _rates(run: Run, axis: Axes) -> None:
    rows = run.training
    curve(axis, run.steps[rows], run.metrics["learning_rate"][rows], None, color="0.35")
    axis.set_ylabel("learning\nrate")
    axis.set_ylim(bottom=0)
    axis.ticklabel_format(axis="y", scilimits=(-2, 2))


def _norms(run: Run, axis: Axes) -> None:
    _named_curves(run, axis, "grad_norm")
    _logarithmic(axis, "gradient norm")


def _conflict_of_many(run: Run) -> Figure:
    """Draws the cosine and the share of opposed gradients of each pair as matrices."""
    names = list(run.family("grad_norm"))
    k = len(names)
    size = min(1.0 + 0.42 * k, 4.2)
    figure = Figure(figsize=(WIDTH, size + 2.8 + 0.5))
    panels = figure.subplot_mosaic(
        [["cosine", "opposed"], ["norm", "norm"]], height_ratios=[size, 2.8]
    )
    means, opposed = np.full((2, k, k), np.nan)
    for pair, conflict in run.conflicts().items():
        i, j = map(names.index, pair)
        means[i, j] = means[j, i] = conflict.cosine
        opposed[i, j] = opposed[j, i] = conflict.share
    shown = {"cmap": "RdBu", "vmin": -1, "vmax": 1}
    _matrix(panels["cosine"], names, means, "mean cosine", "z.2f", shown)
    shown = {"cmap": "Reds", "vmin": 0, "vmax": 1}
    _matrix(panels["opposed"], names, opposed, "share of opposed gradients", "z.0%", shown)
    panels["opposed"].set_yticklabels([])
    _norms(run, panels["norm"])
    return _finish(figure, [panels["norm"]], run)


def _matrix(
    axis: Axes,
    names: list[str],
    values: NDArray,
    title: str,
    style: str,
    colours: Mapping[str, Any],
) -> None:
    mesh = axis.imshow(values, **colours)
    axis.set_title(title)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.grid(False)
    colour_bar(axis, mesh, format=lambda value, _: signed(value, style))
    if len(names) > _MOST_WRITTEN:
        return
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.6 else "black"
            axis.text(
                j, i, signed(value, style), color=colour, ha="center", va="center", fontsize=8
            )


def _stack(heights: list[float]) -> tuple[Figure, list[Axes]]:
    """Returns panels above each other on one axis of steps, with room for legends beside them."""
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.3))
    ratios = {"height_ratios": heights}
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw=ratios)
    return figure, list(axes[:, 0])


def curve(axis: Axes, steps: Column, values: Column, label: str | None, **style: Any) -> None:
    """Draws a column against steps; few rows show their points."""
    marker = "o" if len(steps) <= _FEW_ROWS else None
    axis.plot(steps, values, label=label, marker=marker, markersize=4, **style)


def _named_curves(run: Run, axis: Axes, kind: str) -> None:
    """Draws the columns of a kind; a term or an objective looks the same in every panel."""
    others = sorted({*run.family("loss"), *run.family("term")})
    order = list(dict.fromkeys(("boundary", "residual", *others)))
    for name, column in run.family(kind).items():
        turn, colour = divmod(order.index(name), len(PALETTE))
        style = {"color": PALETTE[colour], "linestyle": ("-", "--", ":")[turn % 3]}
        curve(axis, run.steps, column, name, **style)


def _sum(axis: Axes, steps: Column, values: Column, label: str) -> None:
    curve(axis, steps, values, label, color="0.75", linestyle="-", linewidth=4)


def _star(run: Run, axis: Axes, values: Column) -> None:
    note = f"selected, step {run.result['selected_step']:,}"
    place = (run.steps[run.selected], values[run.selected])
    axis.plot(*place, "k*", markersize=13, label=note, zorder=3)


def _scaled(axis: Axes, values: Column) -> None:
    """A logarithmic scale for positive values far apart."""
    finite = values[np.isfinite(values)]
    if finite.min() > 0 and finite.max() > _FAR * finite.min():
        axis.set_yscale("log")


def _logarithmic(axis: Axes, label: str) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axis.get_lines()])
    if (np.isfinite(values) & (values > 0)).any():  # without it Matplotlib can't place ticks
        axis.set_yscale("log")
    axis.set_ylabel(label)


def _finish(figure: Figure, axes: list[Axes], run: Run) -> Figure:
    for axis in axes:
        if entries := len(axis.get_legend_handles_labels()[0]):
            axis.legend(
                loc="upper left",
                bbox_to_anchor=(1.01, 1.02),
                borderaxespad=0,
                ncols=math.ceil(entries / _LEGEND_ROWS),
            )
        for _, start, _ in run.phases[1:]:
            axis.axvline(start, color="0.35", linewidth=0.9, linestyle=(0, (4, 3)))
    for name, start, end in run.phases if len(run.phases) > 1 else []:
        axes[0].annotate(
            name,
            ((start + end) / 2, 1),
            (0, 3),
            xycoords=axes[0].get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes[-1].xaxis.set_major_formatter("{x:,.0f}")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes[-1].set_xlabel("step")
    figure.align_ylabels([axis for axis in axes if axis.get_ylabel()])
    return figure
