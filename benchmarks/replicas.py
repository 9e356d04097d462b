"""Question: how much faster are many networks in one program than one after another?

Burgers' equation, ModSync+DCGD, 3×50, float32, default points and settings.

- `steady`: time of one network's step without start-up and compilation. One process is set up as
  in `experiments.train`. The others are set up as in `experiments.sweep` and compute the networks
  of a device one after the other (`map`) or at once (`vmap`). The processes take turns; a ratio is
  taken within a round, and the result is the median with its 95% interval.
- `programs`: total time of 500-step runs from the command line: one sweep against as many calls of
  `experiments.train`. Each writes its default files, and the cache of compiled programs is empty
  before the first.

Usage: python -m benchmarks.replicas [--part=steady|programs|all] [--replicas=64] [--rounds=31]
The table is printed and written to benchmarks/results/replicas_<platform>.json; a part that did
not run keeps its rows there.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from absl import flags

from benchmarks import machine, scaling
from benchmarks.step_time import interval
from experiments import _program
from modsync_jax import problems
from modsync_jax.sweeps import _replicas
from modsync_jax.training import TrainConfig, _schedule, _step

RESULTS = Path(__file__).parent / "results"
SETTINGS: dict[str, Any] = {"method": scaling.METHOD, "depth": 3, "width": 50}
ALONE = "alone"
STEPS = {ALONE: 200, "map": 10, "vmap": 10}  # steps of a turn, a few tenths of a second


def serve(mode: str, count: int) -> None:
    """Takes steps for each line that it reads, and prints the seconds of one network's step."""
    _program.define_device()
    _program.define_replicas()
    flags.FLAGS([""])
    _program.prepare_device("float32", replicas=mode != ALONE)
    steps, problem = STEPS[mode], problems.get("burgers")
    config = TrainConfig(**SETTINGS, chunk=steps, eval_every=steps, checkpoint_every=steps)
    if mode == ALONE:
        count = 1
        program = _step.compiled(_step.build(problem, _step.network_of(problem, config), config))
        state: Any = program.init(0)
    else:
        often: dict[str, Any] = {"chunk": steps, "eval_every": steps, "checkpoint_every": steps}
        size = (SETTINGS["depth"], SETTINGS["width"], count)
        trainer = scaling.trainer(*size, _replicas.make_mesh(), mode, **often)
        state, chunk = trainer.start(), next(_schedule.chunks(config))

    def advance(state: Any) -> Any:
        return program.advance(state, 0, steps) if mode == ALONE else trainer.run(state, chunk)

    with jax.default_matmul_precision("highest"):
        state = jax.block_until_ready(advance(state))
        print("ready", flush=True)
        for _ in sys.stdin:
            start = time.perf_counter()
            state = jax.block_until_ready(advance(state))
            print((time.perf_counter() - start) / steps / count, flush=True)


def steady(count: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of one network's step, and the speed relative to a single network."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    servers: dict[str, Any] = {}
    for mode in STEPS:
        command = [sys.executable, "-m", "benchmarks.replicas", f"--replicas={count}"]
        servers[mode] = subprocess.Popen([*command, f"--serve={mode}"], **pipes)
        assert servers[mode].stdout.readline() == "ready\n", mode
    times: dict[str, list[float]] = {mode: [] for mode in servers}
    for _ in range(rounds):
        for mode, server in servers.items():
            print(file=server.stdin, flush=True)
            times[mode].append(float(server.stdout.readline()))
    for server in servers.values():
        server.stdin.close()
        server.wait()
    rows = []
    for mode, own in times.items():
        gain = interval([a / t for a, t in zip(times[ALONE], own, strict=True)])
        ms = 1e3 * statistics.median(own)
        rows.append({"networks": 1 if mode == ALONE else count, "way": mode, "milliseconds": ms})
        rows[-1] |= {"times_faster": gain[0], "times_faster_95": gain[1:]}
    return rows


def programs(count: int) -> list[dict[str, Any]]:
    """Seconds of a sweep, and of as many single runs, from the command line."""
    size = [f"--{name}={value}" for name, value in SETTINGS.items() if name != "method"]
    shared = ["--problem=burgers", "--steps=500", *size]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        single = [
            ["train", f"--method={SETTINGS['method']}", f"--seed={i}", f"--output_dir={folder}/{i}"]
            for i in range(count)
        ]
        grid = f"--grid=seed=0..{count - 1}"
        swept = ["sweep", f"--methods={SETTINGS['method']}", grid, f"--output_dir={folder}/sweep"]
        for name, calls in (("experiments.train", single), ("experiments.sweep", [swept])):
            cache = f"--compilation_cache={folder}/compiled-{name}"
            start = time.perf_counter()
            for program, *arguments in calls:
                command = [sys.executable, "-m", f"experiments.{program}", *arguments]
                subprocess.run([*command, *shared, cache], check=True, capture_output=True)
            seconds = time.perf_counter() - start
            rows.append({"networks": count, "way": name, "calls": len(calls), "seconds": seconds})
            rows[-1]["times_faster"] = rows[0]["seconds"] / seconds
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--part", choices=("steady", "programs", "all"), default="all")
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--serve", choices=tuple(STEPS), help="for the processes of `steady`")
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.replicas)
        return

    path = RESULTS / f"replicas_{jax.default_backend()}.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    content["machine"] = machine.describe()
    if args.part in ("steady", "all"):
        content["steady"] = steady(args.replicas, args.rounds)
        print(*map(json.dumps, content["steady"]), sep="\n")
    if args.part in ("programs", "all"):
        content["programs"] = programs(args.replicas)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
