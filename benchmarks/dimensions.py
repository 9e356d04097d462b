"""Question: what do estimates of second derivatives save in many dimensions, and what do they cost?

Networks of 4×128 train on 1,000 points of the equation and 200 of each condition, in d dimensions:
with exact sums of second derivatives, and with estimates along 16 random directions. Each run is a
process of its own, so its peak memory is its own.

- `step`: time of a step over that of `poisson2d` with as many points, in the same process; median
  of rounds that run both, with its 95% interval.
- `spread`: the standard deviation of the gradient of the residual's loss over 32 draws of the
  directions, over the length of the exact gradient on the same points, with the trained network.
- `bias`: the mean of that loss over the draws, over the exact one.
- `error`: after 1,000 steps of Adam, rate 1e-3 times 0.9 every 100 steps.

The rows are in benchmarks/results/dimensions.json.

Usage: python -m benchmarks.dimensions [--problems=poisson_nd,...] [--dimensions=50,100]
       [--laplacians=exact,hutchinson:16,stde:16] [--seeds=0] [--cores=1]
"""

import dataclasses
import resource
import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

import modsync_jax
from modsync_jax import directions, problems
from modsync_jax.training import Solution, TrainConfig, _solution

from . import machine, rows
from .step_time import interval, ours, seconds_per_step

RESULTS = Path(__file__).parent / "results" / "dimensions.json"
WAYS = ("exact", *(f"{kind}:16" for kind in directions.KINDS))
EDGES = ("left", "right", "bottom", "top")
ROUNDS, DRAWS, STEPS = 15, 32, 1_000
SIZE: dict[str, Any] = {"method": "sum", "depth": 4, "width": 128}


def one(problem: str, dimension: str, laplacian: str, seed: int) -> rows.Row:
    """Trains a network, and measures its step and its gradient."""
    there = {"dimension": int(dimension)}
    began = time.time()
    u = modsync_jax.solve(
        problem,
        steps=STEPS,
        schedule="exponential",
        decay_steps=100,
        coefficients=there,
        laplacian=laplacian,
        seed=seed,
        progress=False,
        **SIZE,
    )
    seconds, peak = time.time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = problems.get(problem, **there)
    spread, bias = gradient(found, u, laplacian)
    config = TrainConfig(coefficients=there, laplacian=laplacian, **SIZE)
    flat = TrainConfig(points={"residual": 1000} | dict.fromkeys(EDGES, 50), **SIZE)
    with jax.default_matmul_precision("highest"):
        runs = {
            "many": ours(found, config)[0],
            "two": ours(problems.get("poisson2d"), flat)[0],
        }
        times = seconds_per_step(runs, ROUNDS)
    return {
        "step": interval([m / t for m, t in zip(times["many"], times["two"], strict=True)]),
        "milliseconds": 1e3 * statistics.median(times["many"]),
        "spread": spread,
        "bias": bias,
        "error": u.result["errors"]["relative_l2"]["selected"],
        "steps": STEPS,
        "seconds": round(seconds, 1),
        "megabytes": round(peak / 1024),
        "machine": machine.describe(),
    }


def gradient(problem: problems.Problem, u: Solution, laplacian: str) -> tuple[float, float]:
    """The spread of the gradient of the residual's loss, and the loss over the exact one.

    Directions are a function of the points, so each draw moves them by a millionth.
    """
    way = directions.read(laplacian)
    points = problem.sample(jax.random.key(1))["residual"]

    def loss(network: Any, points: Array, way: directions.Directions | None) -> Array:
        field = _solution.field_of(u.network, problem.coordinates, network)
        field = dataclasses.replace(field, directions=way)
        residuals = problem.term("residual")(field, {}, points)
        return sum((jnp.mean(r**2) for r in residuals.values()), jnp.zeros(()))

    @partial(jax.jit, static_argnums=1)
    def at(points: Array, way: directions.Directions | None) -> tuple[Array, Array]:
        value, slope = jax.value_and_grad(loss)(u.params["network"], points, way)
        return value, ravel_pytree(slope)[0]

    with jax.default_matmul_precision("highest"):
        true, slope = at(points, None)
        draws = [at(points * (1 + 1e-6 * k), way) for k in range(1, DRAWS + 1)]
    slopes = np.array([s for _, s in draws])
    spread = np.sqrt(np.mean(np.sum((slopes - slopes.mean(0)) ** 2, axis=1)))
    bias = np.mean([float(value) for value, _ in draws]) / float(true)
    return float(spread / np.linalg.norm(slope)), float(bias)


def table(found: Sequence[rows.Row]) -> list[list[str]]:
    """A row per problem, dimension and way."""
    head = ["problem", "d", "second derivatives", "step over 2D", "spread", "bias"]
    lines = [[*head, "error", "seconds", "peak MB"]]
    for row in sorted(
        found, key=lambda r: (rows.MANY_DIMENSIONS.index(r["problem"]), int(r["dimension"]))
    ):
        step, low, high = row["step"]
        noise = [f"{row['spread']:.2g}", f"{row['bias']:.3f}"]
        if row["laplacian"] == "exact":
            noise = ["", ""]
        cells = [f"{step:.2f} ({low:.2f} to {high:.2f})", *noise, f"{row['error']:.1e}"]
        cells += [f"{row['seconds']:,.0f}", f"{row['megabytes']:,}"]
        lines.append([f"`{row['problem']}`", row["dimension"], row["laplacian"], *cells])
    return lines


def main() -> None:
    """Trains what is missing, and shows the table."""
    runs, cores = rows.asked(
        __doc__, one, seeds=1, problem=rows.MANY_DIMENSIONS, dimension=["50"], laplacian=WAYS
    )
    rows.fill("benchmarks.dimensions", RESULTS, runs, cores, _line, table)


def _line(row: rows.Row) -> str:
    return (
        f"{row['problem']} {row['dimension']}D {row['laplacian']}: error {row['error']:.1e}, "
        f"step {row['step'][0]:.2f}, {row['seconds']:.0f} s, {row['megabytes']} MB"
    )


if __name__ == "__main__":
    main()
