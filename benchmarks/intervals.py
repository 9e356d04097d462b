"""Question: how often is the true coefficient within its confidence interval?

Six problems of the package have an unknown coefficient and 200 measurements with a noise of 2% of
the root mean square of the solution. A seed fixes the measurements, the first weights and all
points. The noise is not told: it is estimated from the misfit.

The rows are in benchmarks/results/intervals.json.

Usage: python -m benchmarks.intervals [--problems=heat,wave] [--seeds=0,1] [--cores=1]
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import modsync_jax
from modsync_jax import problems
from modsync_jax.problems import Problem, Unknown, data

from . import machine, rows

RESULTS = Path(__file__).parent / "results" / "intervals.json"
NOISE, MEASUREMENTS = 0.02, 200
# The unknown coefficient of each problem, and where the search starts.
SOUGHT = {
    "burgers": ("viscosity", 0.05),
    "convection": ("speed", 25.0),
    "heat": ("diffusivity", 1.0),
    "korteweg_de_vries": ("dispersion", 0.005),
    "reaction": ("rate", 3.0),
    "wave": ("speed", 1.5),
}
SETTINGS: dict[str, Any] = {"width": 16, "depth": 3, "steps": 0, "then": "ssbroyden:1000"}


def measured(name: str, seed: int) -> Problem:
    """A problem with an unknown coefficient and noisy measurements."""
    coefficient, start = SOUGHT[name]
    true = float(problems.get(name).coefficients[coefficient])  # type: ignore[arg-type]
    problem = problems.get(name, **{coefficient: Unknown(start, truth=true)})
    corners = problem.domain.grid((2,) * len(problem.coordinates))
    generator = np.random.default_rng(seed)
    points = generator.uniform(corners.min(0), corners.max(0), (MEASUREMENTS, len(corners[0])))
    assert problem.reference is not None
    exact = np.asarray(problem.reference(points))
    noise = NOISE * np.sqrt(np.mean(exact**2))
    return problem.adding(
        measurements=data(points, exact + noise * generator.normal(size=exact.shape))
    )


def one(problem: str, seed: int) -> rows.Row:
    """Trains a network, and returns what it found about the coefficient."""
    jax.config.update("jax_enable_x64", True)
    began = time.time()
    u = modsync_jax.solve(
        measured(problem, seed),
        "sum",
        seed=seed,
        points={"residual": 512},
        balance=10.0,
        progress=False,
        **SETTINGS,
    )
    (name, (low, high)), *_ = u.intervals.items()
    return {
        "found": u.unknowns[name],
        "low": low,
        "high": high,
        "truth": u.result["truths"][name],
        "error": u.result["errors"]["relative_l2"]["selected"],
        "seconds": round(time.time() - began, 1),
        "machine": machine.describe(),
    }


def table(found: Sequence[rows.Row]) -> list[list[str]]:
    """A row per problem: how many intervals hold the truth, their half width, and the miss."""
    head = ["problem", "unknown", "truth", "truth within 95%", "half width", "miss"]
    lines = [head]
    for name, (coefficient, start) in SOUGHT.items():
        own = [row for row in found if row["problem"] == name]
        if not own:
            continue
        truth = own[0]["truth"]
        within = sum(row["low"] <= truth <= row["high"] for row in own)
        half = np.median([(row["high"] - row["low"]) / 2 / truth for row in own])
        miss = np.median([abs(row["found"] - truth) / truth for row in own])
        cells = [f"{coefficient}, from {start:g}", f"{truth:.4g}", f"{within} of {len(own)}"]
        lines.append([f"`{name}`", *cells, f"{half:.2%}", f"{miss:.2%}"])
    return lines


def main() -> None:
    """Trains what is missing, and shows the table."""
    runs, cores = rows.asked(__doc__, one, seeds=20, problem=SOUGHT)
    rows.fill("benchmarks.intervals", RESULTS, runs, cores, _line, table)


def _line(row: rows.Row) -> str:
    return (
        f"{row['problem']} {row['seed']}: {row['found']:.5g} ({row['low']:.5g} to "
        f"{row['high']:.5g}), truth {row['truth']:.5g}, {row['seconds']} s"
    )


if __name__ == "__main__":
    main()
