"""Measures of a run: errors on fixed points, time, and the summary of both."""

import functools
import math
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax import gradients, reporting, sampling
from modsync_jax._version import __version__
from modsync_jax.loss_indexed import Kind
from modsync_jax.problems import Problem
from modsync_jax.training._config import TrainConfig
from modsync_jax.training._folder import Row
from modsync_jax.training._solution import Solution
from modsync_jax.training._state import TrainState, weights_of

PyTree = Any
_GRID_POINTS = 2**14  # points of the test grid, over all axes
_GRID_DIMENSIONS = 4  # with more coordinates, errors are those at random points
_GRID_PLANES = 5  # planes of a grid in more dimensions
_VALIDATION_POINTS = 2**12
_DRAWN = 2_000  # points of a term to keep for its picture
_BLOCKS = 64  # blocks of a layer's mask along each axis, for its picture
_BINS = np.linspace(-8.0, 2.0, 61)  # of log10 |w|


class Clock:
    """Seconds of a run from its start, and of its training chunks apart.

    The first chunk of each kind includes its compilation and does not count for the rate.

    Args:
      share: the number of runs that train at once and share the time.
    """

    def __init__(self, share: int = 1) -> None:
        self._seen: set[Any] = set()
        self._began = time.perf_counter()
        self._share, self._marks = share, dict[int, float]()
        self.steps, self.seconds, self.startup = 0, 0.0, 0.0

    def mark(self, step: int) -> None:
        """Notes the time at which a run was evaluated at a step."""
        self._marks[step] = self.elapsed / self._share

    def at(self, steps: Iterable[float]) -> list[float | None]:
        """The seconds of a run until it was evaluated at each step; None for steps not marked."""
        found = [self._marks.get(int(step)) for step in steps]
        return [None if seconds is None else round(seconds, 3) for seconds in found]

    @property
    def elapsed(self) -> float:
        """Seconds since the start, with compilation and evaluations."""
        return time.perf_counter() - self._began

    @property
    def rate(self) -> float:
        """Steps per second, 0 before the second chunk."""
        return self.steps / self.seconds if self.steps else 0.0

    @contextmanager
    def measure(self, kind: Any, steps: int) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        if kind in self._seen:
            self.steps, self.seconds = self.steps + steps, self.seconds + seconds
        else:
            self._seen.add(kind)
            self.startup += seconds


def grid_counts(problem: Problem) -> tuple[int, ...]:
    """Points of the grid along each coordinate.

    In more than four dimensions no grid fills the domain. It then lies on planes of two
    coordinates, at five values of t (the last one if there is no t), the rest in the middle.
    """
    d = len(problem.coordinates)
    if d <= _GRID_DIMENSIONS:
        return (round(_GRID_POINTS ** (1 / d)),) * d
    held = problem.coordinates.index("t") if "t" in problem.coordinates else d - 1
    free = [axis for axis in range(d) if axis != held][:2]
    side = math.isqrt(_GRID_POINTS // _GRID_PLANES)
    return tuple(_GRID_PLANES if k == held else side if k in free else 1 for k in range(d))


def references(problem: Problem, config: TrainConfig) -> dict[str, tuple[Array, Array]]:
    """Returns points and true values: `validation` points to select, `test` points to report."""
    if problem.reference is None:
        return {}
    key = jax.random.key(2**31 - 1)  # the same points for every run
    drawn = problem.domain.sample(key, _VALIDATION_POINTS, sampling.low_discrepancy, jnp.float32)
    sets = {
        "test": _test_points(problem),
        "validation": np.asarray(drawn, np.float64),
    }
    dtype = jnp.dtype(config.widest_dtype)
    return {
        name: (jnp.asarray(points, dtype), jnp.asarray(problem.reference(points), dtype))
        for name, points in sets.items()
    }


def like_references(problem: Problem, config: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Returns the shapes and dtypes of the values of `references`."""
    if problem.reference is None:
        return {}
    described = partial(jax.ShapeDtypeStruct, dtype=jnp.dtype(config.widest_dtype))
    counts = {"test": len(_test_points(problem)), "validation": _VALIDATION_POINTS}
    d, q = len(problem.coordinates), len(problem.quantities)
    return {name: (described((n, d)), described((n, q))) for name, n in counts.items()}


def _test_points(problem: Problem) -> np.ndarray:
    """Points of the test grid in the domain, `[N, d]`; in many dimensions random ones."""
    d = len(problem.coordinates)
    if d > _GRID_DIMENSIONS:
        key = jax.random.key(2**31 - 2)
        drawn = problem.domain.sample(key, _GRID_POINTS, sampling.uniform, jnp.float32)
        return np.asarray(drawn, np.float64)
    points = problem.domain.grid(grid_counts(problem))
    return points[np.asarray(problem.domain.contains(points))]


def on_grid(
    problem: Problem, solution: Solution, counts: tuple[int, ...] | None = None
) -> dict[str, np.ndarray]:
    """The solution on a grid, as `solution.npz` holds it.

    Args:
      problem: the problem, for its domain, quantities and reference.
      solution: the solution to evaluate.
      counts: points along each coordinate; those of the test grid if None.

    Returns:
      `coordinates` and `shape` of the grid; `points` [N, d], the last coordinate fastest;
      `outputs`, the names of the problem's quantities, their `prediction` [N, q] and, if there is
      one, their `reference` [N, q]; `equations`, the names of the residual's values, and the values
      `residuals` [N, e]. All numbers are float64, and NaN outside the domain.
    """
    counts = counts or grid_counts(problem)
    points = problem.domain.grid(counts)
    arrays = {
        "coordinates": np.array(problem.coordinates),
        "outputs": np.array(problem.quantities),
        "shape": np.array(counts),
        "points": points,
        "prediction": np.asarray(solution.observed(problem, points), np.float64),
    }
    residuals = solution.residuals(problem, points)
    arrays["equations"] = np.array(list(residuals))
    arrays["residuals"] = np.stack([np.asarray(r, np.float64) for r in residuals.values()], axis=1)
    if problem.reference is not None:
        arrays["reference"] = np.asarray(problem.reference(points), np.float64)
    inside = np.asarray(problem.domain.contains(points))
    for name in ("prediction", "residuals", "reference"):
        if name in arrays and not inside.all():
            arrays[name] = np.where(inside[:, None], arrays[name], np.nan)
    return arrays


def drawn(problem: Problem, config: TrainConfig) -> dict[str, np.ndarray]:
    """Returns up to 2,000 points `[n, d]` of each term in a batch, as `drawn/<term>`."""

    @jax.jit
    def batch_of(key: Array) -> Any:
        return problem.sample(key, config.points, config.sampler_name, jnp.dtype(config.dtype))

    batch = batch_of(jax.random.key(config.seed))
    points = {n: b["point"] if isinstance(b, dict) else b for n, b in batch.items()}
    return {f"drawn/{name}": np.asarray(p[:_DRAWN], np.float64) for name, p in points.items()}


def layers(trained: PyTree, kind: Kind) -> dict[str, np.ndarray]:
    """Summarises the kernels of a network for pictures, as `layers.npz` holds them.

    Args:
      trained: its trained parameters.
      kind: their parameters of single losses, which may cut weights.

    Returns:
      `layers` [L], their names; `edges` [B + 1] of bins of log10 |w|; `kept` and `pruned` [L, B],
      the numbers of weights in each bin that the masks keep and cut; `mask/<i>` [a, b], the share
      of weights kept in blocks of layer i, inputs down, outputs across.
    """
    weights, own = kind.split(trained)
    masks = kind.kept(weights, own) if kind.kept else jax.tree.map(lambda _: None, weights)
    kernels = {
        gradients.path_name(path).removeprefix("params/"): (
            np.asarray(weight, np.float64),
            np.ones(weight.shape) if mask is None else np.asarray(mask, np.float64),
        )
        for (path, weight), mask in zip(
            jax.tree.leaves_with_path(weights["network"]),
            jax.tree.leaves(masks["network"], is_leaf=lambda leaf: leaf is None),
            strict=True,
        )
        if weight.ndim == 2
    }
    arrays = {"layers": np.array(list(kernels)), "edges": _BINS}
    logs = {
        name: np.clip(np.log10(np.maximum(np.abs(w), 1e-300)), _BINS[0], _BINS[-1])
        for name, (w, _) in kernels.items()
    }
    for name, kept in (("kept", 1.0), ("pruned", 0.0)):
        counts = [np.histogram(logs[n][m == kept], _BINS)[0] for n, (_, m) in kernels.items()]
        arrays[name] = np.array(counts)
    for index, (_, mask) in enumerate(kernels.values()):
        rows, columns = (
            np.linspace(0, n, min(n, _BLOCKS) + 1).astype(int)[:-1] for n in mask.shape
        )
        sums = np.add.reduceat(np.add.reduceat(mask, rows, axis=0), columns, axis=1)
        sizes = np.outer(np.diff([*rows, mask.shape[0]]), np.diff([*columns, mask.shape[1]]))
        arrays[f"mask/{index}"] = sums / sizes
    return arrays


def scored_by(problem: Problem, config: TrainConfig) -> str:
    """What selects a run's best parameters."""
    by_error = problem.reference is not None and config.selection == "auto"
    return "validation error" if by_error else "unweighted loss"


def summary(
    problem: Problem,
    config: TrainConfig,
    rows: list[Row],
    state: TrainState,
    clock: Clock,
) -> dict[str, Any]:
    """Returns the content of `result.json`, reproducible but for times, device and versions."""
    selected = next(row for row in rows if row["step"] == int(state.best_step))
    final = rows[-1]
    result: dict[str, Any] = {
        "problem": problem.name,
        "method": str(config.method),
        "trained_by": config.trained_by,
        "seed": config.seed,
        "loss_weights": {name: float(weight) for name, weight in config.loss_weights.items()},
        "steps": int(state.step),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(weights_of(state.params))),
        "selected_step": int(state.best_step),
        "score": float(state.best_score),
        "scored_by": scored_by(problem, config),
        "loss": {"selected": selected["loss"], "final": final["loss"]},
        "keep": {"selected": selected["keep"], "final": final["keep"]} if "keep" in final else None,
        "unknowns": reporting.unknowns(selected),
        "truths": problem.truths,
        "errors": None,
    }
    if problem.reference is not None:
        result["errors"] = {
            measure: {
                "selected": selected[f"test/{measure}"],
                "smallest": min(row[f"test/{measure}"] for row in rows),
                "final": final[f"test/{measure}"],
                "median_of_last_ten": float(np.median([r[f"test/{measure}"] for r in rows[-10:]])),
            }
            for measure in ("relative_l2", "mean_absolute")
        }
    result["measured"] = _measured(rows)
    result["timing"] = {
        "steps_per_second": round(clock.rate, 3),
        "training_seconds": round(clock.seconds + clock.startup, 3),
        "first_chunks_seconds": round(clock.startup, 3),
        "seconds_at_rows": clock.at(row["step"] for row in rows),
    }
    device = jax.devices()[0]
    result["device"] = f"{jax.device_count()} × {device.platform} ({device.device_kind})"
    result["versions"] = versions()
    return result


def _measured(rows: list[Row]) -> dict[str, float]:
    """What measures found over all batches of a run, by column: means, and the longest stretch."""
    found = {}
    for name in reporting.measured(rows[-1]):
        known = (row for row in rows if math.isfinite(row.get(name, math.nan)))
        pairs = [(row[name], row.get("batches", 1.0)) for row in known]  # older rows: one batch
        if not pairs:
            continue
        values, batches = np.array(pairs).T
        longest = name.startswith("stretch/")
        found[name] = float(values.max() if longest else np.average(values, weights=batches))
    return found


def what_broke(step: int, losses: Iterable[float], objectives: Iterable[str]) -> str:
    """Names the losses that were not finite in a step, or else the update."""
    named = zip(objectives, map(float, losses), strict=True)
    broken = [f"loss {name!r} is {loss}" for name, loss in named if not np.isfinite(loss)]
    what = " and ".join(broken) or "all losses are finite, but the update is not"
    return f"step {step}: {what}"


def where_it_broke(problem: Problem, points: Any, residuals: dict[str, dict[str, Array]]) -> str:
    """The first point where a residual is not finite: `; 'heat' of residual is nan at t=0, x=1`."""
    for term, values in residuals.items():
        for name, column in values.items():
            broken = np.flatnonzero(~np.isfinite(np.asarray(column)))
            if not broken.size:
                continue
            of_term = points[term]["point"] if isinstance(points[term], dict) else points[term]
            first = zip(problem.coordinates, np.asarray(of_term)[broken[0]], strict=True)
            where = ", ".join(f"{letter}={value:.6g}" for letter, value in first)
            what = f"{name!r} of {term} is {float(column[broken[0]])} at {where}"
            return f"; {what} ({broken.size} of {len(column)} points of the batch)"
    return ""


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the packages that numbers depend on."""
    return {"python": platform.python_version(), "modsync_jax": __version__, **_installed()}


@functools.cache  # cached, because it reads files for every replica of a sweep
def _installed() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}


def headline(problem: Problem, config: TrainConfig) -> str:
    """Returns one line about the problem, method, network, device and precision of a run."""
    device = jax.devices()[0]
    return (
        f"modsync_jax {__version__}: {problem.name} by {config.trained_by}; {config.depth}×"
        f"{config.width} {config.activation}, {jax.device_count()} × {device.device_kind}, "
        f"{config.dtype} (matrix products: {config.matmul_precision}), jax {jax.__version__}"
    )
