"""Question: how accurate is each method at equal steps, and do the published figures hold?

Each study has a folder and a process on one core for each run, and one JSON file of results:

- `wide`: Burgers, 5×128, 12,000 steps, five seeds: Adam, DCGD, DCGD proj, ModSync+DCGD with the
  paper's settings and with `min_keep=0.5`.
- `published`: Burgers, Helmholtz 2D, Klein-Gordon 2D in the settings of the published DCGD runs
  (3×50, 50,000 steps), three seeds: Adam and DCGD.
- `pathologies`: M1 to M4 of Wang, Teng & Perdikaris 2021 (Adam, LRA, modified MLP, both) in their
  settings (4×50, 40,000 steps) on Helmholtz 2D and Klein-Gordon 2D, and M4 on the lid-driven
  cavity in stream-function and in velocity form, three seeds.
- `causes`: the cases where M4 misses the published error, with one setting changed in each row.
- `battery`: every problem with its defaults, 4×50, 10,000 steps, one seed: Adam, LRA and DCGD.
- `adapters`: the statements of Kim & N'guessan (arXiv:2605.10136) on per-loss adapters: forward
  problems with three objectives, inverse ones with three, and forward ones with five; 4×50, 10,000
  steps, three seeds: Adam, LRA, adapters, both, DCGD, and on inverse problems DCGD with a Gramian
  of the weights and one of the unknown coefficient.

All draw their points uniformly.

Usage: python -m benchmarks.accuracy --study=wide|published|pathologies|causes|battery|adapters
           [--problems=a,b] [--seeds=0,1,2] [--workers=2] [--output_dir=DIR]
Finished runs are not run again; killed ones resume. The table is printed and written to
benchmarks/results/accuracy_<study>.json; runs of other seeds and problems stay there.
"""

import argparse
import concurrent.futures
import itertools
import json
import multiprocessing
import os
import queue
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.rows import PROBLEMS
from modsync_jax import reporting

RESULTS = Path(__file__).parent / "results"
EXPONENTIAL = {"schedule": "exponential", "decay_rate": 0.9, "decay_steps": 1000}

APART = "dcgd, coefficient apart"

Settings = dict[str, dict[str, Any]]
Study = list[tuple[str, str, dict]]  # problem, label of the method, settings


def wide() -> Study:
    size = {"width": 128, "depth": 5, "steps": 12_000}
    methods: Settings = {name: {"method": name} for name in ("sum", "dcgd", "dcgd-proj")}
    methods["modsync+dcgd"] = {"method": "modsync+dcgd", "preset": "modsync-paper"}
    methods["modsync+dcgd min_keep=0.5"] = methods["modsync+dcgd"] | {"min_keep": 0.5}
    return [("burgers", label, size | method) for label, method in methods.items()]


def published() -> Study:
    size = {"width": 50, "depth": 3, "steps": 50_000}
    schedules = {"burgers": {}, "helmholtz2d": EXPONENTIAL, "klein_gordon2d": EXPONENTIAL}
    return [
        (problem, method, {**size, **schedule, "method": method})
        for problem, schedule in schedules.items()
        for method in ("sum", "dcgd")
    ]


def pathologies() -> Study:
    size = {"width": 50, "depth": 4, "steps": 40_000, "standardize": "yes", **EXPONENTIAL}
    models = {
        "M1": {"method": "sum"},
        "M2": {"method": "lra"},
        "M3": {"method": "sum", "network": "modified-mlp"},
        "M4": {"method": "lra", "network": "modified-mlp"},
    }
    points = {"residual": 128}
    study = [
        (problem, label, {**size, **model, "points": points})
        for problem in ("helmholtz2d", "klein_gordon2d")
        for label, model in models.items()
    ]
    cavities = ("cavity_stream", "cavity_velocity")
    return study + [(problem, "M4", {**size, **models["M4"]}) for problem in cavities]


def causes() -> Study:
    """Possible causes of the misses in `pathologies`: one setting changed in each row."""
    m4 = {(problem, label): settings for problem, label, settings in pathologies()}
    changes: dict[str, Settings] = {
        "klein_gordon2d": {
            "M4, a weight per condition": {"objectives": "each"},
            "M4, 5 layers": {"depth": 5},
            "M4, 1280 residual points": {"points": {"residual": 1280}},
        },
        "cavity_stream": {
            "M4, a weight per condition": {"objectives": "each"},
            "M4, DCGD in LRA's place": {"method": "dcgd"},
            "M4, lid at rest in the corners": {"coefficients": {"regularization": 1.0}},
        },
    }
    return [
        (problem, label, m4[problem, "M4"] | change)
        for problem, rows in changes.items()
        for label, change in rows.items()
    ]


def battery() -> Study:
    """Every problem with its defaults and one small network, as a guide for the reader."""
    size = {"width": 50, "depth": 4, "steps": 10_000, **EXPONENTIAL}
    methods = ("sum", "lra", "dcgd")
    return [(p, name, {"method": name, **size}) for p in PROBLEMS for name in methods]


def adapters() -> Study:
    """Forward problems with three objectives, inverse ones, and forward ones with five."""
    size = {"width": 50, "depth": 4, "steps": 10_000, **EXPONENTIAL}
    methods = ("sum", "lra", "adapters", "adapters+lra", "dcgd")
    three, five = ("reaction", "allen_cahn", "korteweg_de_vries"), ("klein_gordon2d", "wave")
    forward = (*three, *five, "helmholtz2d")
    study = [(p, m, {"method": m, "objectives": "each", **size}) for p in forward for m in methods]
    inverse = [f"benchmarks/inverse.py:{name}" for name in ("burgers", "heat")]
    return study + [(p, m, {"method": m, **size}) for p in inverse for m in (*methods, APART)]


STUDIES = {
    "wide": (wide, "0,1,2,3,4"),
    "published": (published, "0,1,2"),
    "pathologies": (pathologies, "0,1,2"),
    "causes": (causes, "0,1,2"),
    "battery": (battery, "0"),
    "adapters": (adapters, "0,1,2"),
}


def train(folder: Path, problem: str, seed: int, settings: dict, cores: queue.Queue) -> dict:
    """Trains or continues one run on a free core and returns its result."""
    core = cores.get()
    try:
        os.sched_setaffinity(0, {core})  # before JAX counts the cores
        return train_here(folder, problem, seed, settings)
    finally:
        cores.put(core)


def train_here(folder: Path, problem: str, seed: int, settings: dict) -> dict:
    import modsync_jax
    from modsync_jax import aggregators
    from modsync_jax.training import NonFinite

    if settings.get("method") == APART:
        of_part = aggregators.dcgd(groups=lambda path, leaf: path.partition("/")[0])
        settings = {**settings, "method": of_part}
    try:
        solution = modsync_jax.solve(
            problem,
            seed=seed,
            sampler="uniform",
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
        for kind in reporting.ERROR_KINDS:
            of_seeds = reporting.spread([r["errors"]["relative_l2"][kind] for r in good])
            row[kind], row[f"{kind}_spread"] = of_seeds.mean, of_seeds.factor
        rows.append(row)
    return rows


def show(rows: list[dict]) -> None:
    kinds = reporting.ERROR_KINDS
    print(f"{'problem':16}{'method':28}{'seeds':>6}" + "".join(f"{k:>22}" for k in kinds))
    for row in rows:
        cells = "".join(f"{row[k]:>13.2e} ×/÷{row[f'{k}_spread']:5.2f}" for k in kinds)
        print(f"{row['problem']:16}{row['method']:28}{row['seeds']:>6}{cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--study", choices=tuple(STUDIES), default="wide")
    parser.add_argument("--problems", help="those of the study to run; all by default")
    parser.add_argument("--seeds", help="those of the study by default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/accuracy"))
    args = parser.parse_args()

    study, seeds = STUDIES[args.study][0](), args.seeds or STUDIES[args.study][1]
    wanted = args.problems.split(",") if args.problems else [problem for problem, _, _ in study]
    todo = [
        (problem, label, int(seed), settings)
        for seed, (problem, label, settings) in itertools.product(seeds.split(","), study)
        if problem in wanted
    ]
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
            name = re.sub("[^a-z0-9.+]+", "-", f"{problem} {label} {seed}".lower())
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
    order = [(problem, label) for problem, label, _ in study]
    results.sort(key=lambda r: (order.index((r["problem"], r["label"])), r["seed"]))
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
