"""Question: what moves the thresholds of ModSync, and does every run end in over-pruning?

Burgers' equation by modsync+dcgd with five hidden layers, in the settings of
docs/studies/protocol.md, with the thresholds of the paper and with this package's. At twenty marks
of a training, the forces on the thresholds of each layer are taken apart: the gradient of the
losses (its mean over 16 batches, and its deviation between them), the pull of the sparsity loss
that raises thresholds (R_w ∂R_s), the pull that draws the objectives' thresholds together
(R_s ∂R_w), and the step that Adam makes of their sum, in units of its rate. Forces are root mean
squares over the units and objectives of a layer.

Usage: python -m benchmarks.thresholds [--presets=paper,default] [--widths=16,128]
       [--weights=0,1e-6,1e-5,1e-4,1e-3] [--seeds=0,1,2] [--cores=1]
`weights` are those of the sparsity loss. Finished runs are in benchmarks/results/thresholds.json
and are not run again.
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

from modsync_jax import gradients, reporting, sparsity, studies
from modsync_jax.training import TrainConfig, _loop, _losses, _measure, _step

from . import machine, rows

PyTree = Any
RESULTS = Path(__file__).parent / "results" / "thresholds.json"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
PRESETS = {"paper": "modsync-paper", "default": ""}
WIDTHS = (16, 128)
WEIGHTS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)
SHOWN = 1e-4  # the weight of the paper, whose forces are drawn
FORCES = {
    "losses": "losses, mean",
    "between batches": "losses, between batches",
    "raising": "pull that raises",
    "together": "pull together",
}
_MARKS, _BATCHES, _BATCH_KEY = 20, 16, 10**6


def main() -> None:
    """Runs what is missing, each run in a process of its own."""
    axes: dict[str, Any] = {"preset": PRESETS, "width": WIDTHS, "weight": WEIGHTS}
    runs, cores = rows.asked(__doc__, _one, seeds=3, **axes)
    rows.fill("benchmarks.thresholds", RESULTS, runs, cores, _line)
    pictures()


def pictures() -> None:
    """Draws the figures of the finished runs."""
    done = rows.load(RESULTS)
    reporting.save_figure(partial(draw_shares, done), IMAGES / "thresholds_kept", pdf=False)
    reporting.save_figure(partial(draw_forces, done), IMAGES / "thresholds_forces", pdf=False)


def draw_shares(done: list[rows.Row]) -> Figure:
    """Draws kept shares and errors against steps, a line for each weight of the sparsity loss."""
    places = _places(done)
    figure = Figure(figsize=(2.9 * len(places) + 1.8, 5.4))
    panels = figure.subplots(2, len(places), sharex=True, sharey="row", squeeze=False)
    for column, (preset, width) in zip(panels.T, places, strict=True):
        column[0].set_title(f"{preset}, width {width}")
        for weight in sorted({row["weight"] for row in done}):
            runs = [r for r in _of(done, preset, width) if r["weight"] == weight]
            if not runs:
                continue
            for axis, name in zip(column, ("kept", "errors"), strict=True):
                values = np.array([run[name] for run in runs])
                axis.plot(runs[0]["steps"], np.exp(np.log(values).mean(0)), label=f"{weight:g}")
        column[1].set(xlabel="step", yscale="log")
        column[1].xaxis.set_major_formatter("{x:,.0f}")
    panels[0, 0].set(ylabel="share of the weights kept", ylim=(0, 1.02))
    panels[1, 0].set_ylabel("relative L2 error")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, title="weight of the\nsparsity loss", loc="outside right upper")
    return figure


def draw_forces(done: list[rows.Row]) -> Figure:
    """Draws the forces on the thresholds of each layer against steps, for the paper's weight."""
    shown = [row for row in done if row["weight"] == SHOWN]
    places, layers = _places(shown), list(shown[0]["forces"])
    figure = Figure(figsize=(2.1 * len(layers) + 1.8, 2.1 * len(places) + 0.6))
    panels = figure.subplots(len(places), len(layers), sharex=True, sharey=True, squeeze=False)
    for line, (preset, width) in zip(panels, places, strict=True):
        runs = _of(shown, preset, width)
        for axis, layer in zip(line, layers, strict=True):
            for name, label in FORCES.items():
                values = np.array([run["forces"][layer][name] for run in runs])
                mean = np.exp(np.log(np.maximum(values, 1e-12)).mean(0))
                axis.plot(np.array(runs[0]["steps"][1:]) / 1_000, mean, label=label)
            axis.set_yscale("log")
        line[0].set_ylabel(f"{preset}, width {width}")
    for number, axis in enumerate(panels[0], 1):
        axis.set_title(f"layer {number}")
    figure.supxlabel("thousand steps", fontsize=10.5)
    figure.supylabel("force on a threshold", fontsize=10.5)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _places(done: list[rows.Row]) -> list[tuple[str, int]]:
    """The presets and widths of runs, in order."""
    return [(p, w) for p in PRESETS for w in sorted({r["width"] for r in done if r["preset"] == p})]


def _of(done: list[rows.Row], preset: str, width: int) -> list[rows.Row]:
    return [row for row in done if (row["preset"], row["width"]) == (preset, width)]


def _one(preset: str, width: int, weight: float, seed: int) -> dict[str, Any]:
    scale = studies.SCALES["small"]
    config = TrainConfig.from_settings(
        {
            "preset": PRESETS[preset],
            "method": "modsync+dcgd",
            "width": width,
            "depth": scale.depth,
            "steps": scale.steps,
            "points": scale.points,
            "sampler": "uniform",
            "sparsity_weight": weight,
            "seed": seed,
            "measures": "alignment",
            **scale.settings,
        }
    )
    problem, config = _loop.problem_of("burgers", config)
    network = _step.network_of(problem, config)
    program = _step.compiled(_step.build(problem, network, config))
    losses = _losses.build(problem, network, config, lambda points: points)
    references = _measure.references(problem, config)
    look = jax.jit(partial(forces, losses, config))
    found = []
    with jax.default_matmul_precision(config.matmul_precision):
        state, first = program.evaluate(program.init(seed), references)
        seen = [first]
        for _ in range(_MARKS):
            state = program.advance(state, 0, scale.steps // _MARKS)
            state, row = program.evaluate(state, references)
            seen.append(jax.device_get(row))
            found.append(jax.device_get(look(state.params, state.opt_state)))
    return {
        "steps": [int(row["step"]) for row in seen],
        "kept": rows.digits(float(row["keep"]) for row in seen),
        "errors": rows.digits(float(row["test/relative_l2"]) for row in seen),
        "forces": {
            layer: {name: rows.digits(one[layer][name] for one in found) for name in names}
            for layer, names in found[0].items()
        },
        "machine": machine.describe(),
    }


def forces(
    losses: _losses.Losses, config: TrainConfig, params: PyTree, state: PyTree
) -> dict[str, dict[str, Array]]:
    """The forces on the thresholds of each layer, and Adam's step in units of its rate."""
    losses_and_grads = gradients.value_and_objective_grads(losses.trained)

    def slopes(number: Array) -> tuple[Array, PyTree]:
        key = jax.random.fold_in(jax.random.key(_BATCH_KEY), number)
        values, grads = losses_and_grads(params, losses.sample(key, 1, jnp.dtype(config.dtype)))
        return values.sum(), losses.kind.pick(grads.thresholds, params.thresholds)

    totals, of_batches = jax.lax.map(slopes, jnp.arange(_BATCHES))
    weight = config.sparsity_weight * (totals.mean() if config.sparsity_pull == "losses" else 1.0)

    def pull(beta: float) -> PyTree:
        loss = partial(sparsity.sparsity_loss, beta=beta)
        return jax.tree.map(lambda g: weight * g, jax.grad(loss)(params.thresholds))

    both, plain = pull(config.beta), pull(float("inf"))
    is_state = lambda node: isinstance(node, optax.ScaleByAdamState)  # noqa: E731
    found = jax.tree.leaves(state.thresholds, is_leaf=is_state)
    moments = [node for node in found if is_state(node)]  # one for each layer
    paths = [path for path, _ in jax.tree.leaves_with_path(params.thresholds)]
    trees = (of_batches, both, _raising(params.thresholds, plain, config.beta))
    parts = zip(paths, *map(jax.tree.leaves, trees), moments, strict=True)
    return {
        gradients.path_name(path).removeprefix("network/params/"): {
            "losses": _rms(slope.mean(0)),
            "between batches": _rms(slope.std(0)),
            "raising": _rms(up),
            "together": _rms(pulled - up),
            "rises": -jnp.mean(_step_of(moment)),
        }
        for path, slope, pulled, up, moment in parts
    }


def _step_of(moment: optax.ScaleByAdamState) -> Array:
    """Adam's step in units of its rate."""
    first = moment.mu / (1 - 0.9**moment.count)
    second = moment.nu / (1 - 0.999**moment.count)
    return first / (jnp.sqrt(second) + 1e-8)


def _raising(thresholds: PyTree, plain: PyTree, beta: float) -> PyTree:
    """The part of the pull that raises thresholds: R_w of each layer times the plain one."""

    def of_layer(threshold: Array, slope: Array) -> Array:
        distance = jnp.sum(jnp.square(threshold[0] - threshold[1]))
        return slope * jnp.exp(jnp.minimum(distance / beta, 4.0))

    return jax.tree.map(of_layer, thresholds, plain)


def _rms(x: Array) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def _line(row: rows.Row) -> str:
    return (
        f"{row['preset']}, width {row['width']}, weight {row['weight']:g}, seed {row['seed']}: "
        f"kept {row['kept'][-1]:.0%}, error {row['errors'][-1]:.2e}"
    )


if __name__ == "__main__":
    main()
