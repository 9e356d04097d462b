"""The figures of a run, each a function from what it shows to a Matplotlib figure."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from modsync_jax.reporting._run import ERRORS, Column, Run, layer_label

_WIDTH = 10.0  # inches
DPI = 150
_MOST_PAIRS = 3  # of cosines drawn as curves; more are rows of a heat map
_LEGEND_ROWS = 12  # that fit beside a panel
_FEW_ROWS = 12  # up to which a curve shows its points

# Okabe and Ito's colours without their yellow, which vanishes on white.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLE = {
    "axes.grid": True,
    "axes.prop_cycle": cycler(linestyle=["-", "--", ":"]) * cycler(color=_PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.xmargin": 0.02,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "font.size": 10.5,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,
}


def save(make: Callable[[], Figure], stem: str | os.PathLike, *, pdf: bool = True) -> Path:
    """Makes a figure in the reports' style and writes `<stem>.png` and, if asked, `<stem>.pdf`.

    Returns:
      The path of the PNG.
    """
    path = Path(stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = make()
        png = path.with_name(f"{path.name}.png")
        figure.savefig(png, dpi=DPI)
        if pdf:  # same run, same bytes
            same = {"CreationDate": None}
            figure.savefig(path.with_name(f"{path.name}.pdf"), dpi=DPI, metadata=same)
    return png


def draw_solution(arrays: Mapping[str, ArrayLike], stem: str | os.PathLike) -> Path:
    """Draws a field on a grid: curves, heat maps or slices for one, two or more coordinates.

    Args:
      arrays: as in a run's `solution.npz`: `coordinates` [d] and `outputs` [m], their names;
        `shape` [d], the grid's counts; `points` [N, d], in the order of a raveled grid whose last
        coordinate runs fastest; `prediction` [N, m]; and `reference` [N, m], if it is known.
      stem: where to write, without a suffix; `<stem>.png` and `<stem>.pdf` come out.

    Returns:
      The path of the PNG.

    Raises:
      ValueError: an array is missing, or its shape does not fit; the message says which.
    """
    given = {name: np.asarray(array) for name, array in arrays.items()}
    _check(given)
    return save(lambda: solution(given), stem)


def solution(arrays: Mapping[str, NDArray]) -> Figure:
    """Prediction, reference and absolute error; a row of panels for each output and slice."""
    return _curves(arrays) if len(arrays["coordinates"]) == 1 else _heat_maps(arrays)


def history(run: Run) -> Figure:
    """Losses, and errors if there is a reference, against steps; the selected step is marked."""
    errors = ERRORS if run.result["errors"] else {}
    figure, axes = _stack([2.8, 2.8] if errors else [2.8])
    _curve(
        axes[0], run.steps, run.metrics["loss"], "total", color="0.75", linestyle="-", linewidth=4
    )
    for name, column in run.family("loss").items():
        _curve(axes[0], run.steps, column, name)
    for measure, label in errors.items():
        _curve(axes[1], run.steps, run.metrics[f"test/{measure}"], label)
    marked = ("loss", "test/relative_l2")
    for axis, name, label in zip(axes, marked, ("loss", "error"), strict=False):
        point = (run.steps[run.selected], run.metrics[name][run.selected])
        note = f"selected, step {run.result['selected_step']:,}"
        axis.plot(*point, "k*", markersize=13, label=note, zorder=3)
        _logarithmic(axis, label)
    return _finish(figure, axes, run)


def cosine(run: Run) -> Figure:
    """Cosines between the objectives' gradients, and the gradients' norms, against steps."""
    pairs = {name.replace("~", " · "): column for name, column in run.family("cosine").items()}
    as_curves = len(pairs) <= _MOST_PAIRS
    figure, axes = _stack([2.8 if as_curves else 0.8 + 0.24 * len(pairs), 2.8] if pairs else [2.8])
    if pairs and as_curves:
        for name, column in pairs.items():
            _curve(axes[0], run.steps, column, name)
        axes[0].axhline(0, color="black", linewidth=0.8)
        axes[0].set(ylim=(-1.05, 1.05), ylabel="cosine of gradients")
    elif pairs:
        _pair_map(axes[0], run.steps, pairs)
    for name, column in run.family("grad_norm").items():
        _curve(axes[-1], run.steps, column, name)
    _logarithmic(axes[-1], "gradient norm")
    return _finish(figure, axes, run)


def sparsity(run: Run) -> Figure:
    """Shares of weights kept, and each objective's thresholds, by layer, against steps."""
    keep, thresholds = run.family("keep"), run.thresholds()
    colours = dict(zip(keep, colormaps["viridis"](np.linspace(0, 0.9, len(keep))), strict=True))
    figure, axes = _stack([2.8, *[2.2] * len(thresholds)])
    for layer, column in keep.items():
        _curve(axes[0], run.steps, column, layer_label(layer), color=colours[layer], linestyle="-")
    _curve(axes[0], run.steps, run.metrics["keep"], "all layers", color="black", linestyle="--")
    axes[0].set(ylabel="share of weights kept", ylim=(-0.03, 1.03))
    rows = run.training  # the polish folds the masks into the weights and has no thresholds
    for axis, (objective, columns) in zip(axes[1:], thresholds.items(), strict=True):
        for layer, column in columns.items():
            style = {"color": colours[layer], "linestyle": "-"}
            _curve(axis, run.steps[rows], column[rows], None, **style)  # as in the legend above
        axis.set(ylabel=f"mean threshold,\n{objective}")
        axis.sharey(axes[1])
    return _finish(figure, axes, run)


def _stack(heights: list[float]) -> tuple[Figure, list[Axes]]:
    """Panels above each other on one axis of steps; full width leaves room for legends beside."""
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.3))
    ratios = {"height_ratios": heights}
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw=ratios)
    return figure, list(axes[:, 0])


def _curve(axis: Axes, steps: Column, values: Column, label: str | None, **style: Any) -> None:
    marker = "o" if len(steps) <= _FEW_ROWS else None
    axis.plot(steps, values, label=label, marker=marker, markersize=4, **style)


def _logarithmic(axis: Axes, label: str) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axis.get_lines()])
    if (np.isfinite(values) & (values > 0)).any():  # else Matplotlib can't place ticks
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
        if run.config["polish_steps"]:
            axis.axvline(run.config["steps"], color="0.35", linewidth=0.9, linestyle=(0, (4, 3)))
    if run.config["polish_steps"]:
        axes[0].annotate(
            "L-BFGS polish",
            (run.config["steps"], 1),
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


def _pair_map(axis: Axes, steps: Column, pairs: Mapping[str, Column]) -> None:
    """Many pairs as rows of colour: as curves they would hide one another."""
    mesh = axis.pcolormesh(
        steps,
        np.arange(len(pairs)),
        np.stack(list(pairs.values())),
        shading="nearest",
        cmap="RdBu",
        vmin=-1,
        vmax=1,
        rasterized=True,
    )
    axis.set_yticks(range(len(pairs)), list(pairs))
    axis.invert_yaxis()
    axis.grid(False)
    bar = axis.inset_axes((1.015, 0, 0.015, 1))  # beside, so that the panels keep one width
    axis.figure.colorbar(mesh, cax=bar, label="cosine of gradients")


def _curves(arrays: Mapping[str, NDArray]) -> Figure:
    outputs, (coordinate,) = arrays["outputs"], arrays["coordinates"]
    x, known = arrays["points"][:, 0], "reference" in arrays
    figure = Figure(figsize=(_WIDTH, 3.2 * len(outputs)))
    panels = figure.subplots(len(outputs), 1 + known, squeeze=False)
    for k, name in enumerate(outputs):
        predicted, axis = arrays["prediction"][:, k], panels[k, 0]
        if known:
            true = arrays["reference"][:, k]
            axis.plot(x, true, color="black", linewidth=2.5, alpha=0.4, label="reference")
            panels[k, 1].plot(x, np.abs(predicted - true), color=_PALETTE[1])
            panels[k, 1].set(xlabel=coordinate, ylabel=f"absolute error of {name}")
        axis.plot(x, predicted, color=_PALETTE[0], label="prediction")
        axis.set(xlabel=coordinate, ylabel=name)
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    return figure


def _heat_maps(arrays: Mapping[str, NDArray]) -> Figure:
    views = list(_views(arrays))
    outputs, images = len(arrays["outputs"]), 3 if "reference" in arrays else 1
    down, across = (len(views), 3) if images == 3 else (outputs, len(views) // outputs)
    panel = (_WIDTH / across, 3.0) if across > 1 else (0.6 * _WIDTH, 4.2)
    figure = Figure(figsize=(panel[0] * across, panel[1] * down))
    panels = figure.subplots(down, across, squeeze=False).reshape(len(views), images)
    for axes, view in zip(panels, views, strict=True):
        _draw_view(figure, axes, view)
    return figure


class _View(NamedTuple):
    """One output on one plane: what it is called, and arrays of its shape `[a, b]`."""

    output: str
    where: str
    names: tuple[str, str]
    grid: tuple[NDArray, NDArray]
    prediction: NDArray
    reference: NDArray | None


def _views(arrays: Mapping[str, NDArray]) -> Iterator[_View]:
    """Each output on each plane.

    Beyond two coordinates, t, or the last one if there is no t, is held at three places, and what
    is still too many in the middle of its range.
    """
    names, shape = [str(name) for name in arrays["coordinates"]], tuple(arrays["shape"])
    grid = arrays["points"].reshape(*shape, len(names))
    held = names.index("t") if "t" in names else len(names) - 1
    others = [axis for axis in range(len(names)) if axis != held]
    free = (0, 1) if len(names) == 2 else others[:2]
    places = [shape[held] // 4, shape[held] // 2, 3 * shape[held] // 4]
    for k, output in enumerate(arrays["outputs"]):
        for place in places if len(names) > 2 else [0]:
            index = tuple(
                slice(None) if axis in free else place if axis == held else shape[axis] // 2
                for axis in range(len(names))
            )
            plane = grid[index]
            fixed = [
                f"{name} = {plane[0, 0, axis]:.3g}"
                for axis, name in enumerate(names)
                if axis not in free
            ]

            def on_plane(name: str, k: int = k, index: tuple = index) -> NDArray:
                return arrays[name][:, k].reshape(shape)[index]

            yield _View(
                output=str(output),
                where=f"\n{', '.join(fixed)}" if fixed else "",
                names=(names[free[0]], names[free[1]]),
                grid=(plane[..., free[0]], plane[..., free[1]]),
                prediction=on_plane("prediction"),
                reference=on_plane("reference") if "reference" in arrays else None,
            )


def _draw_view(figure: Figure, axes: NDArray, view: _View) -> None:
    fields = {"prediction": view.prediction}
    if view.reference is not None:
        fields["reference"] = view.reference
    low, high = _range(*fields.values())
    for axis, (name, values) in zip(axes, fields.items(), strict=False):
        mesh = _heat_map(axis, view, name, values, cmap="viridis", vmin=low, vmax=high)
    figure.colorbar(mesh, ax=list(axes[: len(fields)]))
    if view.reference is not None:
        error = np.abs(view.prediction - view.reference)
        top = _range(error)[1]
        mesh = _heat_map(axes[2], view, "absolute error", error, cmap="magma", vmin=0, vmax=top)
        figure.colorbar(mesh, ax=axes[2])


def _heat_map(axis: Axes, view: _View, name: str, values: NDArray, **colours: Any) -> QuadMesh:
    # Rasterized: as vectors, a PDF of a fine grid takes seconds to open.
    mesh = axis.pcolormesh(*view.grid, values, shading="nearest", rasterized=True, **colours)
    horizontal, vertical = view.grid
    axis.set(
        title=f"{view.output}, {name}{view.where}",
        xlabel=view.names[0],
        ylabel=view.names[1],
        xlim=(horizontal.min(), horizontal.max()),
        ylim=(vertical.min(), vertical.max()),
    )
    axis.grid(False)
    return mesh


def _range(*fields: NDArray) -> tuple[float, float]:
    finite = np.concatenate([field[np.isfinite(field)] for field in fields])
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _check(arrays: Mapping[str, NDArray]) -> None:
    for name in ("coordinates", "outputs", "shape", "points", "prediction"):
        if name not in arrays:
            raise ValueError(
                f"the solution has no array {name!r} (it has: {', '.join(arrays) or 'none'}); give "
                "the arrays of a run's solution.npz"
            )
    count, d, m = int(np.prod(arrays["shape"])), len(arrays["coordinates"]), len(arrays["outputs"])
    expected = {"shape": (d,), "points": (count, d), "prediction": (count, m)}
    if "reference" in arrays:
        expected["reference"] = (count, m)
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"{name} has the shape {list(arrays[name].shape)}; {d} coordinates, {m} outputs "
                f"and a grid of {count} points need {list(shape)}"
            )
