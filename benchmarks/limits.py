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
       [--cores=1]
Finished runs are in benchmarks/results/limits.json and are not run again.
"""

import time
from pathlib import Path
from typing import Any

_STARTED = time.time()  # before anything slow is imported


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
    "conditions": {"loss_weights": {"residual": 0.1}},
    "equation": {"loss_weights": {"residual": 10.0}},
    "wide": {"width": 40},
}


def main() -> None:
    """Runs what is missing, each run in a process of its own."""
    runs, cores = rows.asked(
        __doc__, _one, minutes=2.0, seeds=1, problem=rows.PROBLEMS, change=CHANGES
    )
    begun = [run for run in runs if _before(run["problem"], run["seed"]).exists()]
    rows.fill("benchmarks.limits", RESULTS, begun, cores, _line)


def _before(problem: str, seed: int) -> Path:
    """Where the network of the recipe is."""
    return frontier.folder_of(problem, "recipe", seed, 5.0)


def _line(row: rows.Row) -> str:
    before, after = row["before"], row["errors"]["selected"]
    return f"{row['problem']:18} {row['change']:13} seed {row['seed']}: {before:.1e} to {after:.1e}"


def _one(problem: str, change: str, seed: int, minutes: float) -> dict[str, Any]:
    """Goes on from one network and returns what came out."""
    import jax

    import modsync_jax

    jax.config.update("jax_enable_x64", True)
    solution = modsync_jax.solve(
        problem,
        preset="best",
        seed=seed + 1_000,  # other points than those it has seen
        init=_before(problem, seed),
        coefficients=frontier.COEFFICIENTS.get(problem, {}),
        time_limit=60 * minutes - (time.time() - _STARTED),
        progress=False,
        **CHANGES[change],
    )
    before = solution.metrics[0]["test/relative_l2"]
    found = rows.of_solution(solution, _STARTED, _KEPT)
    return {"before": before, **found, "machine": machine.describe()}


if __name__ == "__main__":
    main()
