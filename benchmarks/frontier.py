"""Question: what error does each optimiser reach on each problem in five minutes?

Each run is a process of its own, and its time counts from the start of that process, with imports
and compilation. All peers train networks of the same size on the same losses, with the same rule
for their points where they take one, unless said. Nothing but the held-out, unweighted loss selects
parameters; the smallest error beside it is what the exact solution would have selected.

- `recipe`: `--preset=best`.
- `ssbroyden-optimistix`: the package, which has a line search of its own, on points that are drawn
  as those of the recipe.
- `jno`: the package `jax-numerical-operators`, its SSBroyden on its own losses; only Burgers and
  Helmholtz 2D, and only where asked for: see `jno_peer.py`.
- `lbfgs`: optax's L-BFGS in double precision, on points that are redrawn as those of the recipe.
- `soap`: SOAP in single precision on fresh points every step, its rate times 0.9 every 2,000 steps.
- The recipe with one change: `often`, two thirds of the points, which stay for 100 iterations in
  the place of 500; `weight10`, a weight of 10 for the conditions in the place of the balance;
  `wide`, a network of width 30; `points`, twice as many points; `uniform`, points as the problem
  draws them; `r3`, points that stay where the residual is large; `causal`, weights in time;
  `attention`, points as the problem draws them, whose weights follow the residual (vRBA).
- The recipe with several changes: `grouped`, as `often`, with one balance for all conditions;
  `tanh`, as `grouped`, with a network of hyperbolic tangents; `sines`, a network of sines, whose
  inputs are multiplied by eight, which oscillates more.

The lid of the cavities is at rest in its corners, `regularization=1`: nothing jumps there.

Usage: python -m benchmarks.frontier [--minutes=5] [--problems=a,b] [--peers=a,b] [--seeds=0,1,2]
       [--cores=1]
Finished runs are in benchmarks/results/frontier.json and are not run again; their networks are in
folders under runs/frontier.
"""

import importlib
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

_STARTED = time.time()  # before anything slow is imported

from matplotlib.figure import Figure  # noqa: E402

from modsync_jax import reporting  # noqa: E402
from modsync_jax.training import PRESETS  # noqa: E402

from . import machine, rows  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "frontier.json"
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "frontier"
RUNS = Path("runs/frontier")
_KEPT = 80  # rows of a run's history
_MOST = 10_000_000  # steps, more than any run takes
_RULE = "points=3,redraw=500,rad=1"  # of the recipe
_OFTEN = "points=2,redraw=100,rad=1"
COEFFICIENTS = {name: {"regularization": 1.0} for name in ("cavity_stream", "cavity_velocity")}

# What each peer changes in the recipe.
PEERS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "ssbroyden-optimistix": {},
    "jno": {},
    "grouped": {"objectives": "grouped", "then": f"ssbroyden({_OFTEN}):{_MOST}"},
    "often": {"then": f"ssbroyden({_OFTEN}):{_MOST}"},
    "tanh": {
        "objectives": "grouped",
        "activation": "tanh",
        "omega": 1.0,
        "then": f"ssbroyden({_OFTEN}):{_MOST}",
    },
    "sines": {"activation": "sin", "omega": 8.0},
    "weight10": {"balance": 0.0, "loss_weights": {"residual": 0.1}},
    "wide": {"width": 30},
    "points": {"points": {"residual": 2_000}},
    "uniform": {"then": f"ssbroyden(rad=0):{_MOST}"},
    "r3": {"then": f"ssbroyden(rad=0,r3=1):{_MOST}"},
    "causal": {"causal": 1.0},
    "attention": {"then": f"ssbroyden(rad=0):{_MOST}", "attention": 1.0},
    "lbfgs": {"then": f"lbfgs({_RULE},memory=50,dtype=float64):{_MOST}"},
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

# Peers that train by another package, in a module of this folder.
PACKAGES = {"ssbroyden-optimistix": "optimistix_peer", "jno": "jno_peer"}


def main() -> None:
    """Runs what is missing, each run in a process of its own."""
    usual = [peer for peer in PEERS if peer != "jno"]  # it has an environment of its own
    runs, cores = rows.asked(__doc__, _one, minutes=5.0, seeds=5, problem=rows.PROBLEMS, peer=usual)
    rows.fill("benchmarks.frontier", RESULTS, runs, cores, _line)
    pictures()


def pictures() -> None:
    """Draws the figure of the finished runs."""
    reporting.save_figure(partial(draw, rows.load(RESULTS)), FIGURE, pdf=False)


def draw(found: list[rows.Row]) -> Figure:
    """Draws the errors of all runs against time; the peers differ in style, and so do the cores."""

    def called(run: rows.Row) -> str:
        return f"{run['peer']}, {run['cores']} core" + "s" * (run["cores"] > 1)

    peers = list(PEERS)
    ordered = sorted(found, key=lambda run: (run["cores"], peers.index(run["peer"])))
    return rows.draw(found, called, dict.fromkeys(map(called, ordered)))


def _line(row: rows.Row) -> str:
    return (
        f"{row['problem']:18} {row['peer']:10} seed {row['seed']}: {row['errors']['selected']:.1e}"
    )


def _one(problem: str, peer: str, seed: int, minutes: float) -> dict[str, Any]:
    """Trains one network and returns what came out."""
    import jax

    jax.config.update("jax_enable_x64", True)
    settings = {"preset": "best", "seed": seed, **PEERS[peer]}
    settings["coefficients"] = COEFFICIENTS.get(problem, {})
    if peer in PACKAGES:
        module = importlib.import_module(f".{PACKAGES[peer]}", __package__)
        found = module.train(problem, settings, _STARTED, 60 * minutes, _KEPT)
    else:
        found = _train(problem, settings, folder_of(problem, peer, seed, minutes), minutes)
    about = {"settings": {**PRESETS["best"], **PEERS[peer]}, "machine": machine.describe()}
    return found | about


def folder_of(problem: str, peer: str, seed: int, minutes: float) -> Path:
    """Where the network of a run is left."""
    return RUNS / f"{minutes:g}min-{problem}-{peer}-{seed}"


def _train(problem: str, settings: dict[str, Any], folder: Path, minutes: float) -> dict[str, Any]:
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
    return rows.of_solution(solution, _STARTED, _KEPT)


if __name__ == "__main__":
    main()
