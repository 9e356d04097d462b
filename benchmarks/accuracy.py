"""Question: how accurate is each method at equal steps, and do the published figures hold?

Two studies, every run a folder, one process and one core per run, results in one JSON file:

- `wide`: Burgers, 5×128, 12,000 steps, five seeds: Adam, DCGD, DCGD proj, ModSync+DCGD with the
  paper's settings and with `min_keep=0.5`.
- `published`: Burgers, Helmholtz 2D, Klein-Gordon 2D in the settings of the published DCGD runs
  (3×50, 50,000 steps), three seeds: Adam and DCGD.

Usage: python -m benchmarks.accuracy --study=wide|published [--seeds=0,1,2] [--workers=2]
           [--output_dir=DIR]
Finished runs are not run again; killed ones resume. The table is printed and written to
benchmarks/results/accuracy_<study>.json, where the runs of seeds that were not asked for stay.
"""

import argparse
import concurrent.futures
import itertools
import json
import math
import multiprocessing
import os
import queue
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
MODSYNC = {"method": "modsync+dcgd"}
WIDE = {
    "adam": {"method": "adam"},
    "dcgd": {"method": "dcgd"},
    "dcgd-proj": {"method": "dcgd-proj"},
    "modsync+dcgd": MODSYNC,
    "modsync+dcgd min_keep=0.5": {**MODSYNC, "min_keep": 0.5},
}
PUBLISHED = {"adam": {"method": "adam"}, "dcgd": {"method": "dcgd"}}
DECAY = {"schedule": "exponential", "decay_rate": 0.9, "decay_steps": 1000}
SMALL = {"width": 50, "depth": 3, "steps": 50_000}
PROBLEMS = {"burgers": {}, "helmholtz2d": DECAY, "klein_gordon2d": DECAY}


def runs(study: str, seeds: list[int]) -> Iterator[tuple[str, str, int, dict]]:
    """Problem, label of the method, seed and settings of every run of a study."""
    if study == "wide":
        size = {"width": 128, "depth": 5, "steps": 12_000}
        for seed, (label, method) in itertools.product(seeds, WIDE.items()):
            yield "burgers", label, seed, {**size, **method}
    else:
        for seed, problem, (label, method) in itertools.product(seeds, PROBLEMS, PUBLISHED.items()):
            yield problem, label, seed, {**SMALL, **method, **PROBLEMS[problem]}


def train(folder: Path, problem: str, seed: int, settings: dict, cores: queue.Queue) -> dict:
    """Trains one run on a free core, or goes on with it, and returns its result."""
    core = cores.get()
    try:
        os.sched_setaffinity(0, {core})  # before JAX counts the cores
        return train_here(folder, problem, seed, settings)
    finally:
        cores.put(core)


def train_here(folder: Path, problem: str, seed: int, settings: dict) -> dict:
    import modsync_jax
    from modsync_jax.training import NonFinite

    try:
        solution = modsync_jax.solve(
            problem,
            seed=seed,
            **settings,
            eval_every=500,
            checkpoint_every=2_000,
            output_dir=folder,
            resume=(folder / "config.json").exists(),
            progress=False,
            report=False,
        )
    except NonFinite as error:
        return {"failed": str(error)}
    return dict(solution.result)


def geometric(values: list[float]) -> tuple[float, float]:
    """Geometric mean and geometric standard deviation (a factor)."""
    logs = [math.log(value) for value in values]
    spread = statistics.stdev(logs) if len(logs) > 1 else 0.0
    return math.exp(statistics.fmean(logs)), math.exp(spread)


def table(results: list[dict]) -> list[dict]:
    """One row per problem and method."""
    rows = []
    keys = dict.fromkeys((r["problem"], r["label"]) for r in results)
    for problem, label in keys:
        group = [r for r in results if (r["problem"], r["label"]) == (problem, label)]
        good = [r["result"] for r in group if "failed" not in r["result"]]
        row = {
            "problem": problem,
            "method": label,
            "seeds": len(group),
            "failed": len(group) - len(good),
        }
        for kind in ("selected", "smallest", "final", "median_of_last_ten"):
            mean, spread = geometric([r["errors"]["relative_l2"][kind] for r in good])
            row[kind], row[f"{kind}_spread"] = mean, spread
        rows.append(row)
    return rows


def show(rows: list[dict]) -> None:
    kinds = ("selected", "smallest", "final", "median_of_last_ten")
    print(f"{'problem':16}{'method':28}{'seeds':>6}" + "".join(f"{k:>22}" for k in kinds))
    for row in rows:
        cells = "".join(f"{row[k]:>13.2e} ×/÷{row[f'{k}_spread']:5.2f}" for k in kinds)
        print(f"{row['problem']:16}{row['method']:28}{row['seeds']:>6}{cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--study", choices=("wide", "published"), default="wide")
    parser.add_argument("--seeds", help="0,1,2,3,4 for wide and 0,1,2 for published by default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/accuracy"))
    args = parser.parse_args()

    seeds = args.seeds or {"wide": "0,1,2,3,4", "published": "0,1,2"}[args.study]
    todo = list(runs(args.study, [int(seed) for seed in seeds.split(",")]))
    context = multiprocessing.get_context("spawn")
    cores = context.Manager().Queue()
    for core in sorted(os.sched_getaffinity(0))[: args.workers]:
        cores.put(core)
    results = []
    with concurrent.futures.ProcessPoolExecutor(
        args.workers, mp_context=context, max_tasks_per_child=1
    ) as pool:
        jobs = {}
        for problem, label, seed, settings in todo:
            name = f"{problem}-{label.replace(' ', '-')}-{seed}".replace("=", "")
            folder = args.output_dir / args.study / name
            job = pool.submit(train, folder, problem, seed, settings, cores)
            jobs[job] = {"problem": problem, "label": label, "seed": seed, "settings": settings}
        for job in concurrent.futures.as_completed(jobs):
            results.append({**jobs[job], "result": job.result()})
            print(len(results), "of", len(jobs), name_of(results[-1]), file=sys.stderr, flush=True)
    path = RESULTS / f"accuracy_{args.study}.json"
    done = {(r["problem"], r["label"], r["seed"]) for r in results}
    before = json.loads(path.read_text())["runs"] if path.exists() else []
    results += [r for r in before if (r["problem"], r["label"], r["seed"]) not in done]
    labels = list(WIDE)
    results.sort(key=lambda r: (r["seed"], r["problem"], labels.index(r["label"])))
    rows = table(results)
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps({"table": rows, "runs": results}, indent=1) + "\n")
    show(rows)
    print(f"written to {path}")


def name_of(result: dict) -> str:
    error = result["result"].get("errors", {}).get("relative_l2", {}).get("selected")
    return f"{result['problem']} {result['label']} seed {result['seed']}: {error}"


if __name__ == "__main__":
    main()
