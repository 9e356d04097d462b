"""Question: how far is a solution from the exact one, if no reference tells?

Each network that `benchmarks.frontier` left under runs/frontier is asked without its reference, and
the answer is compared with its error on the test grid. With the residuals r of fresh points, their
Jacobian J by the weights, A = JᵀJ + λI, and the Jacobian U of the solution at points of the domain:

- `score`: the square root of the loss, over the norm of the solution.
- `step`: |U A⁻¹ Jᵀ r|, the change by one Gauss-Newton step; without weights this is the estimate
  that runs show.
- `noise`: √(|r|² tr(A⁻¹UᵀU) / tr(A⁻¹JᵀJ)), the error if residuals are noise, equal in all rows
  (Laplace's approximation).
- `both`: the geometric mean of the two.
- `seeds`: the difference from the solution of another seed, over √2.

`weighed` are the same with the weights of the run's losses, the others have no weights.

Usage: python -m benchmarks.estimate [RUN ...]
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from modsync_jax import problems
from modsync_jax.problems import Problem
from modsync_jax.training import TrainConfig, _estimate, _losses, load, read_config

from . import machine
from .frontier import RUNS

RESULTS = Path(__file__).parent / "results" / "estimate.json"
PyTree = Any


def main() -> None:
    """Asks each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    runs = options.runs or sorted(path.parent for path in RUNS.glob("*/result.json"))
    rows = []
    for run in runs:
        found = one(run)
        true = found["error"]
        shown = "  ".join(f"{k} {v / true:.2g}" for k, v in found["estimates"].items())
        print(f"{run.name:40} {true:.1e}  {shown}", flush=True)
        rows.append({"run": run.name, **found})
    for name in dict.fromkeys(name for row in rows for name in row["estimates"]):
        print(f"{name:16} within a factor of three {near(rows, name)} of {len(rows)}")
    lines = ",\n".join(map(json.dumps, rows))
    content = f'{{"machine": {json.dumps(machine.describe())},\n"rows": [\n{lines}\n]}}\n'
    RESULTS.write_text(content, encoding="utf-8")


def near(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    """How many runs' errors lie within a factor of three of an estimate."""
    ratios = [row["estimates"].get(name, 0.0) / row["error"] for row in rows]
    return sum(1 / 3 <= ratio <= 3 for ratio in ratios)


def one(run: Path) -> dict[str, Any]:
    """The error of a run's solution, and estimates of it, all over the norm of the solution."""
    solution = load(run)
    config = TrainConfig.from_stored(read_config(run))
    problem = problems.get(solution.result["problem"], **config.coefficients)
    key = jax.random.key(12345)
    plain = config.with_numbers({"loss_weights": {}})
    weighed = config.with_numbers({"loss_weights": solution.result["loss_weights"]})
    estimates: dict[str, float] = {}
    for suffix, settings in {"": plain, " weighed": weighed}.items():
        losses = _losses.build(problem, solution.network, settings, lambda points: points)
        step = float(jax.jit(_estimate.build(problem, losses))(solution.params))
        score, noise = map(float, jax.jit(partial(_asked, problem, losses))(solution.params, key))
        if settings is plain:
            estimates["score"] = score
        found = {"step": step, "noise": noise, "both": float(np.sqrt(step * noise))}
        estimates |= {name + suffix: value for name, value in found.items()}
    stem = run.name.rpartition("-")[0]
    for other in sorted(path for path in run.parent.glob(f"{stem}-*") if path != run)[:1]:
        points = problem.sample(key, {"residual": _estimate.POINTS}, "uniform", jnp.float64)[
            "residual"
        ]
        one, two = solution(points), load(other)(points)
        difference = jnp.linalg.norm(one - two) / jnp.linalg.norm(one)
        estimates["seeds"] = float(difference / np.sqrt(2))
    return {"error": solution.result["errors"]["relative_l2"]["selected"], "estimates": estimates}


def _asked(problem: Problem, losses: _losses.Losses, params: PyTree, key: Array) -> Any:
    """The estimates `score` and `noise` of parameters."""
    flat, unravel = ravel_pytree(params)
    batch = losses.sample(key, _estimate.TIMES, flat.dtype)
    points = problem.sample(key, {"residual": _estimate.POINTS}, "uniform", flat.dtype)["residual"]

    def values(flat: Array, x: Array) -> Array:
        u, unknowns = losses.fields(unravel(flat))
        return problem.observed(u, unknowns, x[None])[0]

    rows = jax.lax.map(lambda x: jax.jacrev(values)(flat, x), points, batch_size=100)
    rows = rows.reshape(-1, flat.size)
    norm = jnp.linalg.norm(jax.vmap(lambda x: values(flat, x))(points))
    r, jacobian = losses.jacobian(params, batch)
    product = jacobian.T @ jacobian
    factor = jnp.linalg.cholesky(
        product + _estimate.DAMPING * jnp.trace(product) * jnp.eye(flat.size)
    )

    def trace(rows: Array) -> Array:
        return jnp.square(jax.scipy.linalg.solve_triangular(factor, rows.T, lower=True)).sum()

    noise = jnp.sqrt(r @ r * trace(rows) / trace(jacobian))
    return jnp.sqrt(r @ r * len(points)) / norm, noise / norm


if __name__ == "__main__":
    main()
