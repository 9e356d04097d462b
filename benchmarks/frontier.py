"""Question: what error does each optimiser reach on each problem in five minutes of two cores?

Each run is a process of its own, and its time counts from the start of that process, with imports
and compilation. All peers train networks of the same size on the same losses, with the same rule
for their points where they take one, unless said. Nothing but the held-out, unweighted loss selects
parameters; the smallest error beside it is what the exact solution would have selected.

- `recipe`: `--preset=best`.
- `package`: the package `ssbroyden-optimistix`, which has a line search of its own, on points that
  are drawn as those of the recipe.
- `lbfgs`: optax's L-BFGS in double precision, on points that are redrawn as those of the recipe.
- `soap`: SOAP in single precision on fresh points every step, its rate times 0.9 every 2,000 steps.
- The recipe with one change: `weight10`, a weight of 10 for the conditions; `wide`, a network of
  width 30; `points`, twice as many points; `uniform`, points as the problem draws them; `r3`,
  points that stay where the residual is large; `causal`, weights in time.

Usage: python -m benchmarks.frontier [--minutes=5] [--problems=a,b] [--peers=a,b] [--seeds=0,1,2]
Finished runs are in benchmarks/results/frontier.json and are not run again; their networks are in
folders under runs/frontier.
"""

import argparse
import itertools
import json
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

_STARTED = time.time()  # before anything slow is imported

import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from modsync_jax import problems, reporting  # noqa: E402
from modsync_jax.training import PRESETS  # noqa: E402

from . import machine, rows  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "frontier.json"
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "frontier"
_RUNS = Path("runs/frontier")
_KEPT = 80  # rows of a run's history
_MOST = 10_000_000  # steps, more than any run takes
_REDRAWN = "points=2,redraw=100,rad=1"

# What each peer changes in the recipe.
PEERS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "package": {},
    "weight10": {"balance": 0.0, "loss_weights": {"boundary": 10.0}},
    "wide": {"width": 30},
    "points": {"points": {"residual": 2_000}},
    "uniform": {"then": f"ssbroyden(rad=0):{_MOST}"},
    "r3": {"then": f"ssbroyden(rad=0,r3=1):{_MOST}"},
    "causal": {"causal": 1.0},
    "lbfgs": {"then": f"lbfgs({_REDRAWN},memory=50,dtype=float64):{_MOST}"},
    "soap": {
        "then": "",
        "steps": _MOST,
        "optimizer": "soap",
        "learning_rate": 3e-3,
        "schedule": "exponential",
        "decay_steps": 2_000,
        "warmup_steps": 100,
    },
}


def main() -> None:
    """Runs what is missing, each run in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--problems", default=",".join(problems.names()))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_one(**json.loads(options.one))))
        return
    wanted = itertools.product(
        options.seeds.split(","), options.problems.split(","), options.peers.split(",")
    )
    found = (
        {"problem": problem, "peer": peer, "seed": int(seed), "minutes": options.minutes}
        for seed, problem, peer in wanted
    )
    rows.fill("benchmarks.frontier", RESULTS, found, _line)
    reporting.save_figure(partial(draw, rows.load(RESULTS)), FIGURE, pdf=False)


def draw(found: list[dict[str, Any]]) -> Figure:
    """Draws the errors of all runs against time, a panel for each problem."""
    shown = sorted({run["problem"] for run in found})
    across = min(len(shown), 5)
    down = -(-len(shown) // across)
    figure = Figure(figsize=(2.6 * across + 0.6, 2.2 * down + 0.7))
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    lines = {}
    peers = [peer for peer in PEERS if any(run["peer"] == peer for run in found)]
    for axis, problem in itertools.zip_longest(axes.flat, shown):
        if problem is None:
            axis.set_axis_off()
            continue
        axis.set_title(problem)
        axis.set_yscale("log")
        for run in (run for run in found if run["problem"] == problem):
            color = f"C{peers.index(run['peer'])}"
            (line,) = axis.plot(run["seconds"], run["history"], color=color)
            lines[run["peer"]] = line
    for column in range(across):  # the lowest panel of each column has the numbers below it
        axes[(len(shown) - 1 - column) // across, column].tick_params(labelbottom=True)
    shown_lines = [lines[peer] for peer in peers]
    figure.legend(shown_lines, peers, loc="outside upper right", ncols=len(peers))
    figure.supxlabel("seconds from the start of the process, two CPU cores")
    figure.supylabel("relative L2 error, test grid")
    return figure


def _line(row: rows.Row) -> str:
    return (
        f"{row['problem']:18} {row['peer']:10} seed {row['seed']}: {row['errors']['selected']:.1e}"
    )


def _one(problem: str, peer: str, seed: int, minutes: float) -> dict[str, Any]:
    """Trains one network and returns what came out."""
    import jax

    jax.config.update("jax_enable_x64", True)
    settings = {"preset": "best", "seed": seed, **PEERS[peer]}
    folder = folder_of(problem, peer, seed, minutes)
    train = _by_package if peer == "package" else partial(_by_us, folder)
    found = train(problem, settings, minutes)
    seconds, history, scores = (np.array(found.pop(k)) for k in ("seconds", "errors", "scores"))
    kept = sorted({round(k) for k in np.linspace(0, len(history) - 1, _KEPT)})
    return {
        "errors": {
            "selected": float(history[np.nanargmin(scores)]),
            "smallest": float(np.nanmin(history)),
            "final": float(history[-1]),
        },
        **found,
        "seconds": np.round(seconds[kept], 2).tolist(),
        "history": [float(f"{error:.4g}") for error in history[kept]],
        "scores": [float(f"{score:.4g}") for score in scores[kept]],
        "settings": {**PRESETS["best"], **PEERS[peer]},
        "machine": machine.describe(),
    }


def folder_of(problem: str, peer: str, seed: int, minutes: float) -> Path:
    """Where the network of a run is left."""
    return _RUNS / f"{minutes:g}min-{problem}-{peer}-{seed}"


def _by_us(folder: Path, problem: str, settings: dict[str, Any], minutes: float) -> dict[str, Any]:
    import modsync_jax

    shutil.rmtree(folder, ignore_errors=True)  # of a run that was cut off
    solution = modsync_jax.solve(
        problem,
        time_limit=60 * minutes - (time.time() - _STARTED),
        output_dir=folder,
        progress=False,
        report=False,
        **settings,
    )
    result, rows_ = solution.result, solution.metrics
    seconds = result["timing"]["seconds_at_rows"]
    late = time.time() - _STARTED - seconds[-1]  # before the first step, and after the last
    return {
        "parameters": result["parameters"],
        "loss_weights": result["loss_weights"],
        "steps": result["steps"],
        "seconds": [s + late for s in seconds],
        "errors": [row["test/relative_l2"] for row in rows_],
        "scores": [row["score"] for row in rows_],
    }


def _by_package(problem: str, settings: dict[str, Any], minutes: float) -> dict[str, Any]:
    from . import package_peer

    return package_peer.train(problem, settings, _STARTED, 60 * minutes)


if __name__ == "__main__":
    main()
