"""Figures over the domain: the solution, residuals, and the points of training."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from modsync_jax.reporting._drawing import PALETTE, WIDTH, colour_bar, limits, save

_TIMES = 4  # times at which curves over space are drawn
_ACROSS = 3  # panels of a figure without a reference, and methods of a comparison
_MANY = 6  # coordinates, from which on not all of those that are held are named
_SIGNED = 0.05  # share of the range below zero, or above, from which a field counts as signed
_CLIPPED = 0.99  # quantile of absolute residuals, at which their colours end
_DECADES = 4  # largest range of the colours for the errors of several methods


class Plane(NamedTuple):
    """Two coordinates of a grid, with the others held fixed.

    Attributes:
      free: the indices of the two.
      names: the names of the two.
      where: the values of the others, as text.
      shape: the shape of the whole grid, without axes of a single point.
      at: the plane's index in the grid.
      grid: the two coordinates on the plane, `[a, b]` each.
    """

    free: list[int]
    names: tuple[str, str]
    where: str
    shape: tuple[int, ...]
    at: tuple[slice | int, ...]
    grid: tuple[NDArray, NDArray]

    def of(self, values: NDArray) -> NDArray:
        """Returns the plane's part, `[a, b]`, of values `[N]` on the grid."""
        return values.reshape(self.shape)[self.at]


def planes(arrays: Mapping[str, NDArray]) -> list[Plane]:
    """Returns the planes on which a field is drawn.

    With more than two coordinates, t (the last one if there is no t) is held at three places, and
    any further coordinate in the middle of its range.
    """
    names, counts = [str(name) for name in arrays["coordinates"]], arrays["shape"]
    axes = [axis for axis, count in enumerate(counts) if count > 1]
    shape = tuple(counts[axes])
    grid = arrays["points"].reshape(*shape, len(names))
    held = names.index("t") if "t" in names else len(names) - 1
    others = [axis for axis in axes if axis != held]
    free = [0, 1] if len(names) == 2 else others[:2]
    places = [counts[held] // 4, counts[held] // 2, 3 * counts[held] // 4]
    made = []
    for place in places if len(names) > 2 else [0]:
        at = tuple(
            slice(None) if axis in free else place if axis == held else counts[axis] // 2
            for axis in axes
        )
        plane = grid[at]
        fixed = [
            f"{n} = {plane[0, 0, k]:.3g}"
            for k, n in enumerate(names)
            if k not in free and (k == held or len(names) < _MANY)
        ]
        fixed += ["the others in the middle"] if len(names) >= _MANY else []
        made.append(
            Plane(
                free=free,
                names=(names[free[0]], names[free[1]]),
                where=", ".join(fixed),
                shape=shape,
                at=at,
                grid=(plane[..., free[0]], plane[..., free[1]]),
            )
        )
    return made


def draw_solution(arrays: Mapping[str, ArrayLike], stem: str | os.PathLike) -> Path:
    """Draws a field on a grid: curves, heat maps or slices for one, two or more coordinates.

    Args:
      arrays: as in a run's `solution.npz`: `coordinates` [d] and `outputs` [m], their names;
        `shape` [d], the grid's counts; `points` [N, d], in the order of a raveled grid whose last
        coordinate runs fastest; `prediction` [N, m]; `reference` [N, m], if it is known; and
        optionally `residuals` [N, e] of the `equations` [e], which are drawn if there is no
        reference.
      stem: the path without a suffix, of `<stem>.png` and `<stem>.pdf`.

    Returns:
      The path of the PNG.

    Raises:
      ValueError: an array is missing, or its shape does not fit; the message says which.
    """
    given = {name: np.asarray(array) for name, array in arrays.items()}
    return save(lambda: solution(given), stem)


def solution(arrays: Mapping[str, NDArray]) -> Figure:
    """Draws prediction, reference and absolute error; without a reference, prediction and residual.

    Arguments and errors as of `draw_solution`.
    """
    _check(arrays)
    if len(arrays["coordinates"]) == 1:
        return _curves(arrays)
    if "reference" not in arrays:
        return _maps(arrays, [*_quantities(arrays, "prediction"), *_residuals(arrays)])
    views = [(q, plane) for q in _quantities(arrays, "prediction") for plane in planes(arrays)]
    heights = [_height(WIDTH / 3, plane) for _, plane in views]
    figure = Figure(figsize=(WIDTH, sum(heights)))
    panels = figure.subplots(len(views), 3, squeeze=False, height_ratios=heights)
    references = {q.name: q.values for q in _quantities(arrays, "reference")}
    for axes, (quantity, plane) in zip(panels, views, strict=True):
        predicted, true = plane.of(quantity.values), plane.of(references[quantity.name])
        colours = _colours(predicted, true=true)
        _heat_map(axes[0], plane, predicted, f"{quantity.name}, prediction", **colours)
        mesh = _heat_map(axes[1], plane, true, f"{quantity.name}, reference", **colours)
        colour_bar(axes[1], mesh)
        error = np.abs(predicted - true)
        shown = {"cmap": "magma", "vmin": 0, "vmax": limits(error)[1]}
        mesh = _heat_map(axes[2], plane, error, f"{quantity.name}, absolute error", **shown)
        colour_bar(axes[2], mesh)
    return figure


def residuals(arrays: Mapping[str, NDArray]) -> Figure:
    """Draws the signed residual of each equation over the domain."""
    quantities = _residuals(arrays)
    if len(arrays["coordinates"]) > 1:
        return _maps(arrays, quantities)
    figure = Figure(figsize=(WIDTH, 2.6 * len(quantities)))
    axes = figure.subplots(len(quantities), 1, squeeze=False)[:, 0]
    for axis, quantity in zip(axes, quantities, strict=True):
        _residual_curve(axis, arrays, quantity)
    return figure


def slices(arrays: Mapping[str, NDArray]) -> Figure:
    """Draws prediction and reference over x at some times; for t and one coordinate x."""
    names = [str(name) for name in arrays["coordinates"]]
    time = names.index("t")
    shape = tuple(arrays["shape"])
    places = np.unique(np.linspace(0, shape[time] - 1, _TIMES).round().astype(int))
    points = np.moveaxis(arrays["points"].reshape(*shape, 2), time, 0)
    predicted = _quantities(arrays, "prediction")
    known = {q.name: q.values for q in _quantities(arrays, "reference")}
    figure = Figure(figsize=(WIDTH, 2.7 * len(predicted)))
    panels = figure.subplots(len(predicted), len(places), squeeze=False, sharex=True, sharey="row")
    for axes, quantity in zip(panels, predicted, strict=True):
        for axis, place in zip(axes, places, strict=True):
            x = points[place, :, 1 - time]
            if known:
                true = np.moveaxis(known[quantity.name].reshape(shape), time, 0)[place]
                axis.plot(x, true, **_REFERENCE)
            values = np.moveaxis(quantity.values.reshape(shape), time, 0)[place]
            line = "--" if known else "-"  # dashed, so that the reference shows through
            axis.plot(x, values, color=PALETTE[1], linestyle=line, label="prediction")
            axis.set_title(f"t = {points[place, 0, time]:.3g}")
            axis.set_xlabel(names[1 - time])
        axes[0].set_ylabel(quantity.name)
    if known:
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def points(arrays: Mapping[str, NDArray]) -> Figure:
    """Draws the points of one batch, by term; for two coordinates."""
    drawn = {n.removeprefix("drawn/"): p for n, p in arrays.items() if n.startswith("drawn/")}
    plane = planes(arrays)[0]
    width = 0.6 * WIDTH
    figure = Figure(figsize=(width, _height(width - 2, plane)))
    axis = figure.subplots()
    for k, (term, where) in enumerate(drawn.items()):
        inside = term == "residual"
        axis.plot(
            *where[:, plane.free].T,
            linestyle="none",
            color="0.55" if inside else PALETTE[(k - 1) % len(PALETTE)],
            marker="." if inside else "oxs^v+"[(k - 1) // len(PALETTE) % 6],
            markersize=3 if inside else 4,
            label=f"{term} ({len(where):,})",
            clip_on=False,
        )
    _frame(axis, plane)
    axis.grid(False)
    axis.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), borderaxespad=0, markerscale=1.6)
    return figure


def side_by_side(solutions: Mapping[str, Mapping[str, NDArray]]) -> Figure:
    """Draws solutions of one problem on one grid, by name, each above its error.

    All predictions share one scale of colours; all errors share a second, logarithmic one. Without
    a reference, the size of the residual replaces the error.
    """
    if len(next(iter(solutions.values()))["coordinates"]) == 1:
        return _curves_together(solutions)
    plane, bands = _bands(solutions)
    labels = list(solutions)
    blocks = [labels[k : k + _ACROSS] for k in range(0, len(labels), _ACROSS)]
    left = int(bands[0].reference is not None)
    across, down = left + min(len(labels), _ACROSS), len(blocks) * len(bands)
    figure = Figure(figsize=(WIDTH, _height(WIDTH / across, plane) * down))
    panels = figure.subplots(down, across, squeeze=False)
    for axis in panels.flat:
        _frame(axis, plane)  # also for empty panels, the last of which holds the colour bar
        axis.set_axis_off()
    for axes, (block, band) in zip(panels, itertools.product(blocks, bands), strict=True):
        if band.reference is not None:
            _heat_map(axes[0], plane, band.reference, f"{band.name}, reference", **band.colours)
        for axis, label in zip(axes[left:], block, strict=False):
            title = f"{band.name}, {label}"
            mesh = _heat_map(axis, plane, band.fields[label], title, **band.colours)
        colour_bar(axes[-1], mesh)
    return figure


class _Band(NamedTuple):
    """One row of panels: a field `[a, b]` of each solution, on one scale."""

    name: str
    fields: Mapping[str, NDArray]
    reference: NDArray | None
    colours: Mapping[str, Any]


def _bands(solutions: Mapping[str, Mapping[str, NDArray]]) -> tuple[Plane, list[_Band]]:
    arrays = next(iter(solutions.values()))
    everywhere = planes(arrays)
    plane = everywhere[len(everywhere) // 2]
    bands = []
    for k, output in enumerate(map(str, arrays["outputs"])):
        fields = {label: plane.of(of["prediction"][:, k]) for label, of in solutions.items()}
        if "reference" not in arrays:
            bands.append(_Band(output, fields, None, _colours(*fields.values())))
            continue
        true = plane.of(arrays["reference"][:, k])
        errors = {label: np.abs(field - true) for label, field in fields.items()}
        bands.append(_Band(output, fields, true, _colours(*fields.values(), true=true)))
        bands.append(_Band(f"error of {output}", errors, None, _log_colours(*errors.values())))
    if "reference" not in arrays and all("residuals" in of for of in solutions.values()):
        sizes = {
            label: plane.of(np.linalg.norm(of["residuals"], axis=1))
            for label, of in solutions.items()
        }
        bands.append(_Band("residual", sizes, None, _log_colours(*sizes.values())))
    return plane, bands


class _Quantity(NamedTuple):
    """Values `[N]` on the grid: `prediction` or `reference` of an output, or a `residual`."""

    name: str
    kind: str
    values: NDArray


_REFERENCE: dict[str, Any] = {
    "color": "black",
    "linewidth": 2.5,
    "alpha": 0.4,
    "label": "reference",
    "linestyle": "-",
}


def _quantities(arrays: Mapping[str, NDArray], kind: str) -> list[_Quantity]:
    if kind not in arrays:
        return []
    names = (str(name) for name in arrays["outputs"])
    return [_Quantity(n, kind, v) for n, v in zip(names, arrays[kind].T, strict=True)]


def _residuals(arrays: Mapping[str, NDArray]) -> list[_Quantity]:
    if "residuals" not in arrays:
        return []
    names = (str(name) for name in arrays["equations"])
    pairs = zip(names, arrays["residuals"].T, strict=True)
    return [_Quantity(name, "residual", values) for name, values in pairs]


def _maps(arrays: Mapping[str, NDArray], quantities: Sequence[_Quantity]) -> Figure:
    """Draws heat maps of quantities; with several planes, each quantity has its own row."""
    views = [(quantity, plane) for quantity in quantities for plane in planes(arrays)]
    across = min(_ACROSS, len(views))
    down = -(-len(views) // across)
    width = WIDTH / across if across > 1 else 0.6 * WIDTH
    figure = Figure(figsize=(width * across, _height(width, views[0][1]) * down))
    panels = figure.subplots(down, across, squeeze=False)
    for axis in panels.flat[len(views) :]:
        axis.set_axis_off()
    for axis, (quantity, plane) in zip(panels.flat, views, strict=False):
        values, residual = plane.of(quantity.values), quantity.kind == "residual"
        colours = _residual_colours(values) if residual else _colours(values)
        mesh = _heat_map(axis, plane, values, f"{quantity.name}, {quantity.kind}", **colours)
        colour_bar(axis, mesh, extend="both" if residual else "neither")
    return figure


def _curves(arrays: Mapping[str, NDArray]) -> Figure:
    outputs, (coordinate,) = arrays["outputs"], arrays["coordinates"]
    x, known = arrays["points"][:, 0], "reference" in arrays
    left = [] if known else _residuals(arrays)
    figure = Figure(figsize=(WIDTH, 3.2 * (len(outputs) + len(left))))
    panels = figure.subplots(len(outputs) + len(left), 1 + known, squeeze=False)
    for k, name in enumerate(outputs):
        predicted, axis = arrays["prediction"][:, k], panels[k, 0]
        if known:
            true = arrays["reference"][:, k]
            axis.plot(x, true, **_REFERENCE)
            panels[k, 1].plot(x, np.abs(predicted - true), color=PALETTE[1])
            panels[k, 1].set(xlabel=coordinate, ylabel=f"absolute error of {name}")
        axis.plot(x, predicted, color=PALETTE[0], label="prediction")
        axis.set(xlabel=coordinate, ylabel=name)
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    for axis, quantity in zip(panels[len(outputs) :, 0], left, strict=True):
        _residual_curve(axis, arrays, quantity)
    return figure


def _residual_curve(axis: Axes, arrays: Mapping[str, NDArray], quantity: _Quantity) -> None:
    axis.axhline(0, color="black", linewidth=0.8)
    axis.plot(arrays["points"][:, 0], quantity.values, color=PALETTE[1])
    axis.set(xlabel=arrays["coordinates"][0], ylabel=f"residual of {quantity.name}")


def _curves_together(solutions: Mapping[str, Mapping[str, NDArray]]) -> Figure:
    arrays = next(iter(solutions.values()))
    outputs, known = _quantities(arrays, "prediction"), _quantities(arrays, "reference")
    x, coordinate = arrays["points"][:, 0], str(arrays["coordinates"][0])
    figure = Figure(figsize=(WIDTH, 3.4 * len(outputs)))
    panels = figure.subplots(len(outputs), 1 + bool(known), squeeze=False)
    for k, (axes, output) in enumerate(zip(panels, outputs, strict=True)):
        if known:
            axes[0].plot(x, known[k].values, **_REFERENCE)
            axes[1].set(xlabel=coordinate, ylabel=f"absolute error of {output.name}", yscale="log")
        for name, of in solutions.items():
            predicted = of["prediction"][:, k]
            (line,) = axes[0].plot(x, predicted, label=name)
            if known:
                style = {"color": line.get_color(), "linestyle": line.get_linestyle()}
                axes[1].plot(x, np.abs(predicted - known[k].values), **style)
        axes[0].set(xlabel=coordinate, ylabel=output.name)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure


def _heat_map(axis: Axes, plane: Plane, values: NDArray, title: str, **colours: Any) -> QuadMesh:
    # Rasterized, because a PDF of a fine grid in vectors takes seconds to open.
    mesh = axis.pcolormesh(*plane.grid, values, shading="nearest", rasterized=True, **colours)
    axis.set_title(f"{title}\n{plane.where}" if plane.where else title)
    axis.set_axis_on()
    _frame(axis, plane)
    axis.grid(False)
    return mesh


def _frame(axis: Axes, plane: Plane) -> None:
    horizontal, vertical = plane.grid
    axis.set(
        xlabel=plane.names[0],
        ylabel=plane.names[1],
        xlim=(horizontal.min(), horizontal.max()),
        ylim=(vertical.min(), vertical.max()),
    )
    if _is_space(plane):
        axis.set_aspect("equal")


def _is_space(plane: Plane) -> bool:
    """Whether both coordinates are lengths, so that the picture needs an equal aspect."""
    return "t" not in plane.names


def _height(width: float, plane: Plane) -> float:
    """Returns the height in inches of a panel whose width includes labels and colour bar."""
    if not _is_space(plane):
        return min(3.0, 0.9 * width)
    across, down = (float(np.ptp(values)) for values in plane.grid)
    return float(np.clip((width - 1.2) * down / across + 0.9, 1.5, 6.0))


def _colours(*fields: NDArray, true: NDArray | None = None) -> dict[str, Any]:
    """Returns one scale for fields: centred at 0 if they have both signs, else from end to end.

    The true field decides if it is known, because a prediction of a positive field may be negative
    by its error. Values slightly below zero do not count.
    """
    low, high = limits(*(fields if true is None else (true,)))
    signed = min(-low, high) > _SIGNED * (high - low)
    low, high = limits(*fields, *(() if true is None else (true,)))
    if signed:
        top = max(-low, high)
        return {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
    return {"cmap": "viridis", "vmin": low, "vmax": high}


def _residual_colours(values: NDArray) -> dict[str, Any]:
    """Returns a scale centred at 0 on which a few large values at corners hide no others."""
    finite = np.abs(values[np.isfinite(values)])
    top = float(np.quantile(finite, _CLIPPED)) if finite.size else 1.0
    return {"cmap": "RdBu_r", "vmin": -top, "vmax": top}


def _log_colours(*fields: NDArray) -> dict[str, Any]:
    """Returns a logarithmic scale for sizes; it ends at the largest."""
    positive = np.concatenate([field[np.isfinite(field) & (field > 0)] for field in fields])
    if not positive.size:
        return {"cmap": "magma", "vmin": 0, "vmax": 1}
    top = float(positive.max())
    low = max(float(np.quantile(positive, 1 - _CLIPPED)), top / 10**_DECADES)
    return {"cmap": "magma", "norm": LogNorm(min(low, 0.9 * top), top, clip=True)}


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
    if "residuals" in arrays:
        expected["residuals"] = (count, len(arrays.get("equations", ())))
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"{name} has the shape {list(arrays[name].shape)}; {d} coordinates, {m} outputs "
                f"and a grid of {count} points need {list(shape)}"
            )
