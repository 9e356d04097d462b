"""Question: do wide networks split into modules that each serve one loss, and does it matter?

Networks of five layers are trained by the plain sum, 5,000 steps at a rate of 1e-3 and 5,000 along
a cosine to zero. At the middle and at the end each loss learns thresholds of its own on weights
that stay; what is above them is the loss's support. Measured are how far the supports are apart
(Jaccard distance, and the share of weights that one loss alone keeps), how much a loss rises when
what the other one prunes is set to zero, and the same for random masks that keep as many weights of
each layer; and the cosines of the two gradients in single batches, whose deviation between random
vectors would be 1/√n. The second half is trained three times: with all weights, with those frozen
that one loss alone keeps, and with as many frozen at random.

Usage: python -m benchmarks.modules [--problems=burgers,helmholtz2d]
       [--widths=8,16,32,64,128,256] [--seeds=0,1,2] [--cores=1]
Finished runs are in benchmarks/results/modules.json and are not run again.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure

import modsync_jax
from modsync_jax import aggregators, diagnostics, gradients, problems, reporting, transform
from modsync_jax.training import Solution, TrainConfig, _losses

from . import machine, rows

PyTree = Any
RESULTS = Path(__file__).parent / "results" / "modules.json"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
PROBLEMS = ("burgers", "helmholtz2d")
WIDTHS = (8, 16, 32, 64, 128, 256)
ARMS = ("all", "owned frozen", "random frozen")
SETTINGS: dict[str, Any] = {
    "depth": 5,
    "steps": 5_000,
    "points": {"residual": 256},
    "sampler": "uniform",
    "eval_every": 500,
    "checkpoint_every": 5_000,
    "progress": False,
    "measures": "alignment",
}
_BATCHES, _THRESHOLD_STEPS, _THRESHOLD_RATE = 64, 500, 1e-3


def main() -> None:
    """Runs what is missing, each run in a process of its own."""
    axes: dict[str, Any] = {"problem": PROBLEMS, "width": WIDTHS}
    runs, cores = rows.asked(__doc__, _one, seeds=3, **axes)
    rows.fill("benchmarks.modules", RESULTS, runs, cores, _line)
    pictures()


def pictures() -> None:
    """Draws the figures of the finished runs."""
    done = rows.load(RESULTS)
    reporting.save_figure(partial(draw_modules, done), IMAGES / "modules", pdf=False)
    reporting.save_figure(partial(draw_frozen, done), IMAGES / "modules_frozen", pdf=False)


def draw_modules(done: list[rows.Row]) -> Figure:
    """Draws cosines, distances of supports and the effect of masks at the end, against width."""
    found = [problem for problem in PROBLEMS if any(r["problem"] == problem for r in done)]
    figure = Figure(figsize=(11, 3.2 * len(found)))
    panels = figure.subplots(len(found), 3, sharex=True, squeeze=False)
    for line, problem in zip(panels, found, strict=True):
        runs = [row for row in done if row["problem"] == problem]
        curves = (
            {"between batches": "spread", "mean": "cosine", "random vectors": "dimension"},
            {"learnt supports": "jaccard", "random masks": "jaccard_random"},
            {"the other's support": "ablation", "random masks": "ablation_random"},
        )
        labels = (
            "cosine of the gradients",
            "distance of the supports",
            "loss under a mask,\nover that without",
        )
        for axis, of, label in zip(line, curves, labels, strict=True):
            for name, column in of.items():
                _curve(axis, runs, lambda row, c=column: row["end"][c], name)
            axis.set(xscale="log", ylabel=label)
            axis.set_xticks(WIDTHS, map(str, WIDTHS))
            axis.minorticks_off()
        line[0].axhline(0, color="black", linewidth=0.8)
        line[1].set_ylim(0, 1)
        line[2].set_yscale("log")
        line[0].set_title(problem, loc="left")
    for axis in panels[-1]:
        axis.set_xlabel("width")
    for axis in panels[0]:
        axis.legend(fontsize=8)
    return figure


def draw_frozen(done: list[rows.Row]) -> Figure:
    """Draws the error of the second half against width, for what is frozen in it."""
    found = [problem for problem in PROBLEMS if any(r["problem"] == problem for r in done)]
    figure = Figure(figsize=(4.4 * len(found) + 1.6, 3.2))
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, problem in zip(panels, found, strict=True):
        runs = [row for row in done if row["problem"] == problem]
        for arm in ARMS:
            _curve(axis, runs, lambda row, a=arm: row["errors"][a], arm)
        axis.set(xscale="log", yscale="log", xlabel="width", title=problem)
        axis.set_xticks(WIDTHS, map(str, WIDTHS))
        axis.minorticks_off()
    panels[0].set_ylabel("relative L2 error")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _curve(axis: Any, runs: list[rows.Row], value: Any, label: str) -> None:
    """A line through the means over the seeds, in a band of all of them."""
    widths = sorted({row["width"] for row in runs})
    values = [[value(row) for row in runs if row["width"] == width] for width in widths]
    (line,) = axis.plot(widths, [np.mean(v) for v in values], marker="o", ms=3, label=label)
    low, high = ([f(v) for v in values] for f in (min, max))
    axis.fill_between(widths, low, high, alpha=0.15, color=line.get_color())


def _one(problem: str, width: int, seed: int) -> dict[str, Any]:
    half = modsync_jax.solve(problem, "sum", width=width, seed=seed, **SETTINGS)
    middle, kept = modules(problem, half, seed)
    owned = jax.tree.map(lambda leaf: leaf.sum(0) == 1, kept)
    key = jax.random.key(seed)
    frozen = {
        "all": jax.tree.map(jnp.zeros_like, owned),
        "owned frozen": owned,
        "random frozen": diagnostics.shuffled(owned, key),
    }
    ends = {
        arm: modsync_jax.solve(
            problem,
            optax.chain(aggregators.sum(), _zeroed(frozen[arm])),
            init=half,
            width=width,
            seed=seed + 1_000,  # points that the first half did not see
            schedule="cosine",
            **SETTINGS,
        )
        for arm in ARMS
    }
    end, _ = modules(problem, ends["all"], seed)
    return {
        "errors": {
            "middle": _error(half),
            **{arm: _error(solution) for arm, solution in ends.items()},
        },
        "middle": middle,
        "end": end,
        "machine": machine.describe(),
    }


def modules(problem: str, solution: Solution, seed: int) -> tuple[dict[str, float], PyTree]:
    """What a network shows of modules, and the support of each loss `[K, ...]`."""
    sizes = {name: SETTINGS[name] for name in ("points", "sampler")}
    config = TrainConfig("sum", seed=seed, **sizes)
    losses = _losses.build(problems.get(problem), solution.network, config, lambda points: points)
    names, keys = losses.names, jax.random.split(jax.random.key(seed + 1), 4)

    def batch(stream: int, step: int | Array) -> Any:
        return losses.sample(jax.random.fold_in(keys[stream], step), 1, jnp.float32)

    @jax.jit
    def found(params: PyTree) -> tuple[dict[str, Array], PyTree]:
        def cosine(step: Array) -> Array:
            _, grads = gradients.value_and_objective_grads(losses.trained)(params, batch(0, step))
            gramian = modsync_jax.gramian(grads)
            return gramian[0, 1] / jnp.sqrt(gramian[0, 0] * gramian[1, 1])

        cosines = jax.lax.map(cosine, jnp.arange(_BATCHES))
        thresholds = diagnostics.learnt_thresholds(
            losses.trained,
            params,
            partial(batch, 1),
            len(names),
            steps=_THRESHOLD_STEPS,
            kind=transform.thresholds(optax.adam(_THRESHOLD_RATE)),
        )
        kept = diagnostics.supports(params, thresholds)
        masks = [jax.tree.map(lambda leaf, k=k: leaf[k], kept) for k in range(len(names))]
        random = [
            diagnostics.shuffled(mask, jax.random.fold_in(keys[2], k))
            for k, mask in enumerate(masks)
        ]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *random)
        seen = diagnostics.modularity(kept, names)
        by_chance = diagnostics.modularity(stacked, names)
        rises = diagnostics.ablation(losses.trained, params, kept, keys[3], batch(0, _BATCHES))
        pair = "~".join(names)
        crossed = [f"{a}|{b}" for a in names for b in names if a != b]

        def mean_rise(of: str) -> Array:
            return jnp.exp(jnp.stack([jnp.log(rises[f"{of}/{c}"]) for c in crossed]).mean())

        entries = sum(leaf.size for leaf in jax.tree.leaves(params))
        return {
            "cosine": cosines.mean(),
            "spread": cosines.std(),
            "dimension": jnp.asarray(entries**-0.5),
            "jaccard": seen[f"jaccard/{pair}"],
            "jaccard_random": by_chance[f"jaccard/{pair}"],
            "single": seen["single"],
            "single_random": by_chance["single"],
            "ablation": mean_rise("ablation"),
            "ablation_random": mean_rise("ablation_random"),
        }, kept

    with jax.default_matmul_precision("highest"):
        row, kept = jax.device_get(found(solution.params))
    return dict(zip(row, rows.digits(map(float, row.values())), strict=True)), kept


def _zeroed(frozen: PyTree) -> optax.GradientTransformation:
    """Zeroes the direction of weights that are frozen."""

    def one(update: Array, stays: Array | None) -> Array:
        return update if stays is None else jnp.where(stays, 0.0, update)

    return optax.stateless(lambda updates, _: jax.tree.map(one, updates, frozen))


def _error(solution: Solution) -> float:
    return solution.result["errors"]["relative_l2"]["selected"]


def _line(row: rows.Row) -> str:
    errors = ", ".join(f"{arm} {error:.2e}" for arm, error in row["errors"].items())
    end = ", ".join(f"{name} {value:.2g}" for name, value in row["end"].items())
    return f"{row['problem']} {row['width']:4} seed {row['seed']}: {errors}; {end}"


if __name__ == "__main__":
    main()
