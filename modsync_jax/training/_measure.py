"""What a run is measured by: errors on fixed points, time, and the summary of both."""

import functools
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax import sampling
from modsync_jax._version import __version__
from modsync_jax.problems import Problem
from modsync_jax.training._config import TrainConfig
from modsync_jax.training._folder import Row
from modsync_jax.training._solution import Solution
from modsync_jax.training._step import TrainState, weights_of

_GRID_POINTS = 2**14  # of the test grid, over all axes
_VALIDATION_POINTS = 2**12


class Clock:
    """Seconds of the training chunks; the first of each kind holds its compilation."""

    def __init__(self) -> None:
        self._seen: set[Any] = set()
        self.steps, self.seconds, self.startup = 0, 0.0, 0.0

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
    """Points of the test grid along each coordinate."""
    d = len(problem.coordinates)
    return (round(_GRID_POINTS ** (1 / d)),) * d


def references(problem: Problem, config: TrainConfig) -> dict[str, tuple[Array, Array]]:
    """Points and true values by their use: `validation` to select, `test`, a grid, to report."""
    if problem.reference is None:
        return {}
    key = jax.random.key(2**31 - 1)  # the same points for every run
    drawn = problem.domain.sample(key, _VALIDATION_POINTS, sampling.low_discrepancy, jnp.float32)
    sets = {
        "test": problem.domain.grid(grid_counts(problem)),
        "validation": np.asarray(drawn, np.float64),
    }
    dtype = jnp.dtype(config.dtype)
    return {
        name: (jnp.asarray(points, dtype), jnp.asarray(problem.reference(points), dtype))
        for name, points in sets.items()
    }


def on_grid(
    problem: Problem, solution: Solution, counts: tuple[int, ...] | None = None
) -> dict[str, np.ndarray]:
    """The solution on a grid, as `solution.npz` holds it.

    Args:
      problem: where the domain, its quantities and the reference come from.
      solution: what is evaluated.
      counts: points along each coordinate; those of the test grid if None.

    Returns:
      `coordinates` and `shape` of the grid; `points` [N, d], the last coordinate fastest;
      `outputs`, the names of the problem's quantities, their `prediction` [N, q] and, where there
      is one, `reference` [N, q], float64.
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
    if problem.reference is not None:
        arrays["reference"] = np.asarray(problem.reference(points), np.float64)
    return arrays


def summary(
    problem: Problem,
    config: TrainConfig,
    rows: list[Row],
    state: TrainState,
    clock: Clock,
) -> dict[str, Any]:
    """What `result.json` holds; all but `timing`, `device` and `versions` is reproducible."""
    best = int(state.best_step)
    selected = next(row for row in rows if row["step"] == best)
    final = rows[-1]
    result: dict[str, Any] = {
        "problem": problem.name,
        "method": config.method,
        "seed": config.seed,
        "steps": int(state.step),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(weights_of(state.params))),
        "selected_step": best,
        "loss": {"selected": selected["loss"], "final": final["loss"]},
        "keep": {"selected": selected["keep"], "final": final["keep"]} if "keep" in final else None,
        # Not by `export`: no mask is on a single number, and a sweep does this for every replica.
        "unknowns": {k: float(v) for k, v in weights_of(state.best_params)["unknowns"].items()},
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
    result["timing"] = {
        "steps_per_second": round(clock.rate, 3),
        "training_seconds": round(clock.seconds + clock.startup, 3),
        "first_chunks_seconds": round(clock.startup, 3),
    }
    device = jax.devices()[0]
    result["device"] = f"{jax.device_count()} × {device.platform} ({device.device_kind})"
    result["versions"] = versions()
    return result


def in_order(names: Iterable[str]) -> list[str]:
    """The columns of `metrics.csv` in the order of their kinds."""
    kinds = ["step", "loss", "grad_norm", "cosine", "test", "validation", "keep", "threshold"]
    return sorted(names, key=lambda name: kinds.index(name.partition("/")[0]))


def what_broke(step: int, losses: Iterable[float], objectives: Iterable[str]) -> str:
    """What was not finite in a step, by its number and the losses in it."""
    named = zip(objectives, map(float, losses), strict=True)
    broken = [f"loss {name!r} is {loss}" for name, loss in named if not np.isfinite(loss)]
    what = " and ".join(broken) or "all losses are finite, but the update is not"
    return f"step {step}: {what}"


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what numbers depend on."""
    return {"python": platform.python_version(), "modsync_jax": __version__, **_installed()}


@functools.cache  # it reads files, and every replica of a sweep asks
def _installed() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}


def headline(problem: Problem, config: TrainConfig) -> str:
    """What runs, on what, how precisely, in one line."""
    device = jax.devices()[0]
    return (
        f"modsync_jax {__version__}: {problem.name} by {config.method}, {config.depth}×"
        f"{config.width} {config.activation}, {jax.device_count()} × {device.device_kind}, "
        f"{config.dtype} (matrix products: {config.matmul_precision}), jax {jax.__version__}"
    )
