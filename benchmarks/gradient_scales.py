"""Question: how do the residual's and the boundary's gradients grow with the solution's frequency?

1D Poisson, u'' = f with u = sin(Cx) on [-1, 1], an MLP of 5×50, at Xavier initialisation and after
1,000 steps of Adam, for C from π to 32π and five seeds: the norms of both gradients, and the
largest eigenvalue of each loss's Hessian by size (its stiffness), by power iteration. For C = 4π
and the first seed, the histograms of both gradients in each layer after training. These are the
observations of Wang, Teng & Perdikaris 2021 (SIAM J. Sci. Comput. 43).

Usage: python -m benchmarks.gradient_scales
The figures are written to docs/images, the numbers to benchmarks/results/gradient_scales.json.
"""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.figure import Figure

from benchmarks import machine
from modsync_jax import diagnostics, gradients
from modsync_jax.problems import poisson1d
from modsync_jax.reporting import save_figure
from modsync_jax.training import TrainConfig, _losses, _step

PyTree = Any
ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
MULTIPLES = (1, 2, 4, 8, 16, 32)  # C in units of π
SEEDS, STEPS, ITERATIONS = 5, 1000, 100
SHOWN = 4  # the frequency whose gradients are drawn
NAMES = ("boundary", "residual")


def looks(multiple: int) -> tuple[np.ndarray, dict[str, Array]]:
    """Norms and eigenvalues `[2, seeds, before and after, boundary and residual]`, and histograms.

    The histograms are those of the first seed after training.
    """
    problem = poisson1d.problem(frequency=multiple * math.pi)
    config = TrainConfig(method="sum", width=50, depth=5)
    network = _step.network_of(problem, config)
    program = _step.compiled(_step.build(problem, network, config))
    losses = _losses.build(problem, network, config, lambda points: points)
    batch = losses.sample(jax.random.key(SEEDS), 1, jnp.float32)

    @jax.jit
    def look(params: PyTree) -> tuple[Array, dict[str, Array]]:
        values, grads = gradients.value_and_objective_grads(losses.trained)(params, batch)
        seen = losses.snapshot(params, batch, values, grads, False, None)
        sizes = jnp.sqrt(jnp.diagonal(seen.gramian()))
        eigenvalues = [
            largest(partial(lambda name, p: losses.trained[name](p, batch), name), params)
            for name in NAMES
        ]
        return jnp.stack([sizes, jnp.stack(eigenvalues)]), diagnostics.histograms(seen)

    def of_seed(seed: int) -> tuple[np.ndarray, dict[str, Array]]:
        state = program.init(seed)
        before, _ = jax.device_get(look(state.params))
        after, counts = jax.device_get(look(program.advance(state, 0, STEPS).params))
        return np.stack([before, after]), counts

    found = [of_seed(seed) for seed in range(SEEDS)]
    return np.stack([values for values, _ in found]).transpose(2, 0, 1, 3), found[0][1]


def largest(loss: Callable[[PyTree], Array], params: PyTree) -> Array:
    """The largest eigenvalue of a loss's Hessian by size, by power iteration."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    slope = jax.grad(lambda x: loss(unravel(x)))

    def step(_: int, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        product = jax.jvp(slope, (flat,), (pair[0],))[1]
        return product / jnp.linalg.norm(product), jnp.linalg.norm(product)

    start = jax.random.normal(jax.random.key(0), flat.shape, flat.dtype)
    first = (start / jnp.linalg.norm(start), jnp.zeros((), flat.dtype))
    return jax.lax.fori_loop(0, ITERATIONS, step, first)[1]


def draw(values: np.ndarray) -> Figure:
    """`values` [C, norms and eigenvalues, seeds, before and after, boundary and residual]."""
    figure = Figure(figsize=(10, 6.4))
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    titles = ("at the start", f"after {STEPS:,} steps of Adam")
    labels = ("gradient norm", "largest eigenvalue\nof the Hessian")
    for i, (line, label) in enumerate(zip(panels, labels, strict=True)):
        for k, axis in enumerate(line):
            for j, name in enumerate(NAMES):
                log = np.log(values[:, i, :, k, j])
                (curve,) = axis.plot(MULTIPLES, np.exp(log.mean(1)), "o-", label=name)
                band = np.exp(log.min(1)), np.exp(log.max(1))
                axis.fill_between(MULTIPLES, *band, color=curve.get_color(), alpha=0.2)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.xaxis.set_major_formatter("{x:g}")
        line[0].set_ylabel(label)
    for axis, title in zip(panels[0], titles, strict=True):
        axis.set_title(title)
    for axis in panels[1]:
        axis.set_xlabel("frequency C / π")
    panels[0, 0].legend()
    return figure


def draw_histograms(counts: dict[str, Array]) -> Figure:
    """The numbers of entries of each loss's gradient by their size, a panel for each kernel."""
    layers = sorted({name.partition("/")[2] for name in counts if name.endswith("kernel")})
    figure = Figure(figsize=(11, 2.8))
    panels = figure.subplots(1, len(layers), sharey=True)
    centres = np.asarray(diagnostics.EDGES)[:-1]
    for number, (axis, layer) in enumerate(zip(panels, layers, strict=True), 1):
        for name in NAMES:
            of = np.asarray(counts[f"{name}/{layer}"])
            axis.stairs(of / of.sum(), diagnostics.EDGES, label=name, fill=True, alpha=0.5)
        both = np.stack([counts[f"{name}/{layer}"] for name in NAMES])
        used = np.flatnonzero(both.sum(0)[1:])  # zeros are in the first bin
        axis.set(title=f"layer {number}", xlim=(centres[used[0]], centres[used[-1]] + 1))
    panels[0].set_ylabel("share of the entries")
    panels[len(layers) // 2].set_xlabel("log10 of an entry of the gradient")
    panels[0].legend(fontsize=8)
    return figure


def main() -> None:
    """Measures all frequencies, and writes the figures and numbers."""
    with jax.default_matmul_precision("highest"):
        found = {multiple: looks(multiple) for multiple in MULTIPLES}
    values = np.stack([of for of, _ in found.values()])
    means = np.exp(np.log(values).mean(2))
    rows = [
        {
            "c_over_pi": multiple,
            **{
                when: {
                    kind: dict(zip(NAMES, map(float, row[i, k]), strict=True))
                    for i, kind in enumerate(("norm", "eigenvalue"))
                }
                for k, when in enumerate(("start", "trained"))
            },
        }
        for multiple, row in zip(MULTIPLES, means, strict=True)
    ]
    slope = np.polyfit(np.log(MULTIPLES), np.log(means[:, 0, 0, 1]), 1)[0]
    for row in rows:
        print(json.dumps(row))
    print(f"at the start the residual's norm grows as C to the power {slope:.2f}")
    path = ROOT / "benchmarks" / "results" / "gradient_scales.json"
    content = {"machine": machine.describe(), "exponent_at_start": slope, "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")
    save_figure(lambda: draw(values), IMAGES / "gradient_scales", pdf=False)
    save_figure(lambda: draw_histograms(found[SHOWN][1]), IMAGES / "gradient_histograms", pdf=False)


if __name__ == "__main__":
    main()
