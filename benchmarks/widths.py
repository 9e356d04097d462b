"""Question: do gradients become orthogonal, and losses stop to interact, as networks widen?

These are the observations of the ModSync paper (arXiv:2606.20156, Fig. 2 and 3), on Burgers'
equation with networks of 5 layers: the cosine of the two gradients over the steps of a training by
the plain sum, for each width; and for the plain sum, DCGD and ModSync+DCGD the interaction ratio of
the trained network, the share of points of the residual whose gradient has a product with that of
the conditions above ε, coloured by the error. Beside the paper's ε of 1e-12 stand larger ones, and
the share of points whose cosine is above 0.01, which does not depend on the scale of the losses.

Usage: python -m benchmarks.widths [--widths=16,32,64,128,256] [--methods=sum,dcgd,modsync+dcgd]
       [--seeds=0,1,2] [--cores=1]
Finished runs are in benchmarks/results/widths.json and are not run again.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

import modsync_jax
from modsync_jax import diagnostics, gradients, problems, reporting
from modsync_jax.training import PRESETS, Solution, TrainConfig, _losses

from . import machine, rows

PyTree = Any
RESULTS = Path(__file__).parent / "results" / "widths.json"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTHS = (16, 32, 64, 128, 256)
METHODS = ("sum", "dcgd", "modsync+dcgd")
EPSILONS = (1e-12, 1e-6, 1e-3)
_COSINE = 0.01
_DEPTH, _STEPS, _EVERY = 5, 5_000, 100


def main() -> None:
    """Runs what is missing, each run in a process of its own."""
    runs, cores = rows.asked(__doc__, _one, seeds=3, width=WIDTHS, method=METHODS)
    rows.fill("benchmarks.widths", RESULTS, runs, cores, _line)
    pictures()


def pictures() -> None:
    """Draws the figures of the finished runs."""
    done = rows.load(RESULTS)
    reporting.save_figure(partial(draw_cosines, done), IMAGES / "widths_cosines", pdf=False)
    reporting.save_figure(partial(draw_ratios, done), IMAGES / "widths_interaction", pdf=False)


def draw_cosines(done: list[rows.Row]) -> Figure:
    """Draws the cosine of the two gradients against steps, a line for each width (Fig. 2).

    Above, its mean over 100 batches; below, its standard deviation between these batches.
    """
    figure = Figure(figsize=(10, 5.6))
    above, below = figure.subplots(2, 1, sharex=True)
    widths = sorted({row["width"] for row in done})
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(widths)))
    for width, colour in zip(widths, colours, strict=True):
        runs = [row for row in done if row["width"] == width and row["method"] == "sum"]
        for axis, column in ((above, "cosines"), (below, "spread")):
            seen = [run for run in runs if column in run]
            if not seen:
                continue
            values, steps = np.array([run[column] for run in seen]), seen[0]["steps"]
            axis.plot(steps, values.mean(0), label=f"width {width}", color=colour)
            axis.fill_between(steps, values.min(0), values.max(0), alpha=0.12, color=colour)
    above.axhline(0, color="black", linewidth=0.8)
    above.set(ylabel="cosine, mean", ylim=(-1.05, 1.05))
    below.set(xlabel="step", ylabel="between batches", ylim=(0, 1.05))
    above.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
    return figure


def draw_ratios(done: list[rows.Row]) -> Figure:
    """Draws shares of interacting points against width, coloured by the error (Fig. 3)."""
    figure = Figure(figsize=(11, 3.8))
    kinds = {"above 1e-12": f"{1e-12:g}", "above 0.001": f"{1e-3:g}", "cosine above 0.01": "cosine"}
    panels = figure.subplots(1, len(kinds), sharey=True)
    errors = [row["error"] for row in done]
    norm = LogNorm(min(errors), max(errors))
    for panel, (title, kind) in zip(panels, kinds.items(), strict=True):
        for shift, method, marker in zip((-1, 0, 1), METHODS, "os^", strict=True):
            runs = [row for row in done if row["method"] == method]
            mesh = panel.scatter(
                [row["width"] * 1.1**shift for row in runs],
                [row["share"][kind] for row in runs],
                c=[row["error"] for row in runs],
                norm=norm, cmap="plasma", marker=marker, edgecolors="0.3", label=method,
            )  # fmt: skip
        panel.set(title=title, xscale="log", ylim=(-0.05, 1.05))
        ticks = sorted({row["width"] for row in done})
        panel.set_xticks(ticks, ticks)
        panel.set_xticks([], minor=True)
    figure.supxlabel("width", fontsize=10.5)
    panels[0].set_ylabel("share of the residual's points")
    figure.colorbar(mesh, ax=panels[-1], label="relative L2 error")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    return figure


def _one(width: int, method: str, seed: int) -> dict[str, Any]:
    size = {"width": width, "depth": _DEPTH, "seed": seed, "steps": _STEPS}
    settings: dict[str, Any] = {**PRESETS["modsync-paper"], **size}
    solution = modsync_jax.solve(
        "burgers", method, **settings, eval_every=_EVERY, checkpoint_every=_STEPS, progress=False
    )
    config = TrainConfig(method, **settings)
    pair = "boundary~residual"
    found = {
        "error": solution.result["errors"]["relative_l2"]["selected"],
        "steps": [int(row["step"]) for row in solution.metrics],
        "cosines": rows.digits(row[f"cosine/{pair}"] for row in solution.metrics),
        "spread": rows.digits(row[f"spread/{pair}"] for row in solution.metrics),
        "opposed": rows.digits(row[f"opposed/{pair}"] for row in solution.metrics),
        "norm_ratio": rows.digits(row["norm_ratio"] for row in solution.metrics),
    }
    return found | {"share": shares(solution, config), "machine": machine.describe()}


def shares(solution: Solution, config: TrainConfig) -> dict[str, float]:
    """The shares of the residual's points that feel the conditions' gradient."""
    problem = problems.get("burgers")
    losses = _losses.build(problem, solution.network, config, lambda points: points)
    batch = losses.sample(jax.random.key(config.seed + 1), 1, jnp.float32)

    @jax.jit
    def found(params: PyTree) -> dict[str, Array]:
        values, grads = gradients.value_and_objective_grads(losses.trained)(params, batch)
        seen = losses.snapshot(params, batch, values, grads, False, None)
        towards = jax.tree.map(lambda g: g[losses.names.index("boundary")], seen.grads)

        def samples(weights: PyTree, points: Array) -> Array:
            of_points = losses.snapshot(
                params, {**batch, "residual": points}, values, grads, False, None
            )
            return of_points.samples["residual"](weights)

        points = batch["residual"]
        products = diagnostics.interactions(lambda w: samples(w, points), seen.weights, towards)
        cosines = diagnostics.interaction_cosines(samples, points, seen.weights, towards)
        above = {f"{e:g}": jnp.mean(jnp.abs(products) > e) for e in EPSILONS}
        return above | {"cosine": jnp.mean(jnp.abs(cosines) > _COSINE)}

    with jax.default_matmul_precision("highest"):
        return {name: float(value) for name, value in found(solution.trained).items()}


def _line(row: rows.Row) -> str:
    cosine = np.mean(row["cosines"][1:])
    return (
        f"{row['width']:4} {row['method']:14} seed {row['seed']}: error {row['error']:.2e}, "
        f"mean cosine {cosine:+.2f}, shares {row['share']}"
    )


if __name__ == "__main__":
    main()
