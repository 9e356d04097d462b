"""Question: how much memory and time does a step take, by the number of points and block size?

Burgers' equation, tanh networks, float32, Adam and ModSync+DCGD: 5×128 with ten thousand to a
million residual points, in blocks of several sizes and all at once, and 5×512 with 1280. Every case
runs in its own process. The memory is the peak resident size, including Python, JAX and the
compiler. The time is that of one or more steps after equally many warm-up steps.

If the compiler reports more than `--limit` GB of temporary arrays, a case is compiled but not run.
It then has no time, and the compiler's figure is its memory.

Usage: python -m benchmarks.memory [--points=10000,100000,1000000] [--limit=6]
The table is printed and written to benchmarks/results/memory_<platform>.json.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks import machine
from modsync_jax import blocks, problems
from modsync_jax.training import TrainConfig, _step

RESULTS = Path(__file__).parent / "results"
METHODS = ("sum", "modsync+dcgd")
CHUNKS = (512, 2048, 16384)  # and all points at once
POINT_STEPS = 100_000  # points over which a case is timed, at least one step


def cases(points: list[int]) -> list[dict[str, Any]]:
    """All cases; without blocks, the block size is the number of points."""
    wide = [(5, 512, 1280, 1280)]
    large = [(5, 128, n, size) for n in points for size in sorted({*CHUNKS, n}) if size <= n]
    names = ("depth", "width", "points", "block_points", "method")
    return [
        dict(zip(names, (*case, method), strict=True))
        for case, method in itertools.product(wide + large, METHODS)
    ]


def measure(case: dict[str, Any], limit: float) -> dict[str, Any]:
    """Runs a case in this process."""
    settings = case | {"points": {"residual": case["points"]}}
    problem, config = problems.get("burgers"), TrainConfig(**settings)
    program = _step.build(problem, _step.network_of(problem, config), config)
    steps = max(1, POINT_STEPS // case["points"])
    state = program.init(0)
    advance = jax.jit(program.advance, static_argnums=(1, 2), donate_argnums=0)
    with jax.default_matmul_precision("highest"):
        compiled = advance.lower(state, 0, steps).compile()
        sizes: Any = compiled.memory_analysis()
        temporary = sizes.temp_size_in_bytes
        if temporary > limit * 1e9:
            return case | {"gigabytes": temporary / 1e9, "milliseconds": None}
        state = jax.block_until_ready(compiled(state))
        start = time.perf_counter()
        jax.block_until_ready(compiled(state))
        seconds = (time.perf_counter() - start) / steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # in KiB
    return case | {"gigabytes": peak, "milliseconds": 1e3 * seconds}


def in_own_process(case: dict[str, Any], limit: float) -> dict[str, Any]:
    """Runs a case in a new process."""
    command = [sys.executable, "-m", "benchmarks.memory", f"--limit={limit}"]
    result = subprocess.run(
        [*command, f"--case={json.dumps(case)}"], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(result.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--points", default="10000,100000,1000000")
    parser.add_argument("--limit", type=float, default=6.0)
    parser.add_argument("--case", help="one case as JSON, for a process of its own")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(json.loads(args.case), args.limit)))
        return

    print(f"{'size':8}{'points':>9}{'block':>9}  {'method':14}{'GB':>8}{'ms':>11}{'ns/point':>10}")
    rows = []
    for case in cases([int(n) for n in args.points.split(",")]):
        row = in_own_process(case, args.limit)
        rows.append(row)
        line = f"{row['depth']}x{row['width']:<6}{row['points']:9}{row['block_points']:9}"
        line += f"  {row['method']:14}{row['gigabytes']:8.2f}"
        if row["milliseconds"] is not None:
            line += f"{row['milliseconds']:11.1f}{1e6 * row['milliseconds'] / row['points']:10.0f}"
        print(line, flush=True)
    facts = machine.describe() | {"default_block_points": blocks.default_size()}
    path = RESULTS / f"memory_{jax.default_backend()}.json"
    path.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
