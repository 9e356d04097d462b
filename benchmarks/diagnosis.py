"""Question: where do the regimes of losses begin, and which method pays in which of them?

Each problem is diagnosed in the settings of the study `battery` of benchmarks/accuracy.py (4×50,
objectives grouped), from 1,000 steps of the plain sum. The table puts the evidence beside the
errors that LRA and DCGD reached there after 10,000 steps, over that of the plain sum. The bounds of
`diagnostics.Bounds` lie in gaps between problems other than those in `HELD_BACK`.

Usage: python -m benchmarks.diagnosis [--problems=a,b] [--seeds=0]
Finished rows are in benchmarks/results/diagnosis.json and are not run again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import inverse, machine
from benchmarks.accuracy import EXPONENTIAL
from benchmarks.rows import PROBLEMS
from modsync_jax import problems, training
from modsync_jax.problems import Problem

RESULTS = Path(__file__).parent / "results" / "diagnosis.json"
INVERSE = {"burgers_inverse": inverse.burgers, "heat_inverse": inverse.heat}
HELD_BACK = ("burgers", "helmholtz2d", "wave", *INVERSE)


def get(name: str) -> Problem:
    """A problem of the package or of `inverse`."""
    return INVERSE[name]() if name in INVERSE else problems.get(name)


def row(name: str, seed: int) -> dict[str, Any]:
    """The evidence of one problem."""
    size: dict[str, Any] = {"width": 50, "depth": 4, "sampler": "uniform", **EXPONENTIAL}
    found = training.diagnose_problem(get(name), seed=seed, **size)
    facts = {"regime": found.regime, "borderline": found.borderline, "method": found.method}
    return {"problem": name, "seed": seed, **facts, "evidence": found.evidence}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--problems", default=",".join([*PROBLEMS, *INVERSE]))
    parser.add_argument("--seeds", default="0")
    args = parser.parse_args()
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    for seed in map(int, args.seeds.split(",")):
        for name in args.problems.split(","):
            if any((r["problem"], r["seed"]) == (name, seed) for r in rows):
                continue
            rows.append(row(name, seed))
            print(name, seed, rows[-1]["regime"], dict(rows[-1]["evidence"]), flush=True)
            rows.sort(key=lambda r: (r["problem"], r["seed"]))
            content = {"machine": machine.describe(), "rows": rows}
            RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
