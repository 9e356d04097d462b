"""Question: what do measures of the training batches add to a step?

Burgers' equation by DCGD, 1280 residual and 126 condition points drawn anew every step, tanh
networks of 3×50 and 5×128, float32. The same step without any measure, with the cosines of every
batch, with the default measures beside them in every 25th batch, and with each other measure there.
Every round runs 100 steps of each once, in random order. A ratio is taken within its round, and the
result is the median over the rounds with its 95% interval (order statistics).

Usage: python -m benchmarks.measures [--sizes=3x50,5x128] [--rounds=31]
The numbers are written to benchmarks/results/measures_<platform>.json.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

import jax

from benchmarks import machine
from benchmarks.step_time import Run, interval, ours
from modsync_jax import diagnostics, problems
from modsync_jax.training import TrainConfig

RESULTS = Path(__file__).parent / "results"
NONE, ALONE, DEFAULT = "none", "cosines alone", "the default"
STEPS = 100


_watch = diagnostics.watch  # which `run_of` replaces for a while


def unwatched(*measures: diagnostics.Measure) -> diagnostics.Watch:
    """A watch that sees nothing."""
    return _watch(*measures)._replace(update=lambda sums, seen, sampled: sums)


def run_of(name: str, **size: Any) -> Run:
    """Our step with some measures."""
    default = TrainConfig().measures
    chosen = {NONE: default, DEFAULT: default, ALONE: ""}.get(name, name)
    config = TrainConfig("dcgd", measures=chosen, **size)
    with mock.patch.object(diagnostics, "watch", unwatched if name == NONE else _watch):
        return ours(problems.get("burgers"), config)[0]


def measure(depth: int, width: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each choice of measures at one size."""
    default = TrainConfig().measure_names
    others = [name for name in diagnostics.MEASURES if name not in default]
    names = [NONE, ALONE, DEFAULT, *others]
    runs = {name: run_of(name, depth=depth, width=width) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    for run in runs.values():
        run(STEPS)
    for _ in range(rounds):
        for name in order.sample(names, len(names)):
            start = time.perf_counter()
            runs[name](STEPS)
            times[name].append((time.perf_counter() - start) / STEPS)
    rows = []
    for name in names:
        ratio, *bounds = interval([t / a for t, a in zip(times[name], times[NONE], strict=True)])
        milliseconds = 1e3 * statistics.median(times[name])
        row = {"size": f"{depth}x{width}", "measures": name, "milliseconds": milliseconds}
        rows.append(row | {"over_none": ratio, "over_none_95": bounds})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sizes", default="3x50,5x128")
    parser.add_argument("--rounds", type=int, default=31)
    args = parser.parse_args()
    rows = []
    for size in args.sizes.split(","):
        depth, width = map(int, size.split("x"))
        for row in measure(depth, width, args.rounds):
            print(f"{row['size']:7} {row['measures']:24} {row['milliseconds']:8.3f} ms "
                  f"{row['over_none']:.3f} {row['over_none_95']}", flush=True)  # fmt: skip
            rows.append(row)
    platform = jax.devices()[0].platform
    content = {"machine": machine.describe(), "rounds": args.rounds, "rows": rows}
    (RESULTS / f"measures_{platform}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
