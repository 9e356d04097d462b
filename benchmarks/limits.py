"""Question: what holds the recipe up where its error stands still?

From the network that `benchmarks.frontier` left after five minutes, training goes on with one thing
changed. What makes the error fall again was the limit. All begin with a new inverse Hessian, also
`same`, which changes nothing.

- The optimiser: `jacobian`, an inverse Hessian that starts from the Gauss-Newton matrix at each
  draw; `gauss-newton`, Levenberg-Marquardt steps.
- The points: `points`, four times as many; `seldom`, drawn every 1,000 iterations.
- The losses: `conditions` and `equation`, which count ten times as much.
- The network: `wide`, of width 40, to which the old one was extended.

Usage: python -m benchmarks.limits [--minutes=2] [--problems=a,b] [--changes=a,b] [--seeds=0]
Finished runs are in benchmarks/results/limits.json and are not run again.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

_STARTED = time.time()  # before anything slow is imported

import numpy as np  # noqa: E402

from modsync_jax import problems  # noqa: E402

from . import frontier, machine, rows  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "limits.json"
_KEPT = 40  # rows of a run's history
_MOST = 10_000_000  # iterations, more than any run takes
CHANGES: dict[str, dict[str, Any]] = {
    "same": {},
    "jacobian": {"then": f"ssbroyden(jacobian=0.01):{_MOST}"},
    "gauss-newton": {"then": f"gauss-newton:{_MOST}", "chunk": 5, "eval_every": 10},
    "points": {"points": {"residual": 4_000}},
    "seldom": {"then": f"ssbroyden(redraw=1000):{_MOST}"},
    "conditions": {"loss_weights": {"boundary": 10.0}},
    "equation": {"loss_weights": {"residual": 10.0}},
    "wide": {"width": 40},
}


def main() -> None:
    """Runs what is missing, each run in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--problems", default=",".join(problems.names()))
    parser.add_argument("--changes", default=",".join(CHANGES))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_one(**json.loads(options.one))))
        return
    wanted = itertools.product(
        options.seeds.split(","), options.problems.split(","), options.changes.split(",")
    )
    found = (
        {"problem": problem, "change": change, "seed": int(seed), "minutes": options.minutes}
        for seed, problem, change in wanted
        if frontier.folder_of(problem, "recipe", int(seed), 5.0).exists()
    )
    rows.fill("benchmarks.limits", RESULTS, found, _line)


def _line(row: rows.Row) -> str:
    before, after = row["errors"]["before"], row["errors"]["selected"]
    return f"{row['problem']:18} {row['change']:13} seed {row['seed']}: {before:.1e} to {after:.1e}"


def _one(problem: str, change: str, seed: int, minutes: float) -> dict[str, Any]:
    """Goes on from one network and returns what came out."""
    import jax

    import modsync_jax

    jax.config.update("jax_enable_x64", True)
    before = modsync_jax.training.load(frontier.folder_of(problem, "recipe", seed, 5.0))
    solution = modsync_jax.solve(
        problem,
        preset="best",
        seed=seed + 1_000,  # other points than those it has seen
        init=before,
        time_limit=60 * minutes - (time.time() - _STARTED),
        progress=False,
        **CHANGES[change],
    )
    errors = [row["test/relative_l2"] for row in solution.metrics]
    seconds = solution.result["timing"]["seconds_at_rows"]
    kept = sorted({round(k) for k in np.linspace(0, len(errors) - 1, _KEPT)})
    found = solution.result["errors"]["relative_l2"]
    return {
        "errors": {"before": errors[0]} | {k: found[k] for k in ("selected", "smallest", "final")},
        "parameters": solution.result["parameters"],
        "steps": solution.result["steps"],
        "seconds": [round(seconds[k], 2) for k in kept],
        "history": [float(f"{errors[k]:.4g}") for k in kept],
        "machine": machine.describe(),
    }


if __name__ == "__main__":
    main()
