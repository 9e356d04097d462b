"""Question: how much faster is a step when derivatives pass through the layers together?

Every problem of the package with its default points and settings, tanh networks of 4×50 and 5×128,
DCGD, float32: jets against nested forward mode, `jax.jvp`, of the same network. Every round runs
both, in random order. The result is the median of the rounds' ratios with its 95% interval.

Usage: python -m benchmarks.jets [--problems=burgers,...] [--sizes=4x50,5x128] [--rounds=31]
The table is printed and written to benchmarks/results/jets_<platform>.json.
"""

import argparse
import dataclasses
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax import Array

from benchmarks import machine
from benchmarks.rows import PROBLEMS
from benchmarks.step_time import interval, ours, seconds_per_step
from modsync_jax import problems
from modsync_jax.calculus import Field
from modsync_jax.problems import Problem
from modsync_jax.training import TrainConfig

RESULTS = Path(__file__).parent / "results"


def nested(problem: Problem) -> Problem:
    """The same problem with a field that takes no jets."""

    def residual(u: Field, x: Array, **unknowns: Array) -> Mapping[str, Array]:
        return problem.residual(dataclasses.replace(u, takes_jets=False), x, **unknowns)

    return dataclasses.replace(problem, residual=residual)


def measure(name: str, depth: int, width: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step in both ways, and their ratio."""
    problem = problems.get(name)
    config = TrainConfig(method="dcgd", depth=depth, width=width)
    runs = {"jets": ours(problem, config)[0], "nested": ours(nested(problem), config)[0]}
    times = seconds_per_step(runs, rounds)
    gain = interval([n / j for n, j in zip(times["nested"], times["jets"], strict=True)])
    milliseconds = {way: 1e3 * statistics.median(own) for way, own in times.items()}
    row = {"problem": name, "size": f"{depth}x{width}", **milliseconds}
    return row | {"times_faster": gain[0], "times_faster_95": gain[1:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--sizes", default="4x50,5x128")
    parser.add_argument("--rounds", type=int, default=31)
    args = parser.parse_args()

    rows = []
    with jax.default_matmul_precision("highest"):
        for name in args.problems.split(","):
            for size in args.sizes.split(","):
                depth, width = map(int, size.split("x"))
                row = measure(name, depth, width, args.rounds)
                low, high = row["times_faster_95"]
                line = f"{name:20}{size:7}{row['jets']:9.2f}{row['nested']:9.2f} ms"
                print(f"{line}{row['times_faster']:8.2f} [{low:.2f}, {high:.2f}]", flush=True)
                rows.append(row)
    path = RESULTS / f"jets_{jax.default_backend()}.json"
    path.write_text(json.dumps({"machine": machine.describe(), "rows": rows}, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
