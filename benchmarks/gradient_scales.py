"""Question: how do the residual's and the boundary's gradients grow with the solution's frequency?

1D Poisson, u'' = f with u = sin(Cx) on [-1, 1], an MLP of 5×50: the norms of both gradients at
Xavier initialisation and after 1,000 steps of Adam, for C from π to 32π and five seeds.

Usage: python -m benchmarks.gradient_scales
The figure is written to docs/images/gradient_scales.png, the numbers to
benchmarks/results/gradient_scales.json.
"""

import json
import math
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from benchmarks import machine
from modsync_jax import networks
from modsync_jax.problems import poisson1d
from modsync_jax.reporting import save_figure
from modsync_jax.training import TrainConfig, _step

ROOT = Path(__file__).parents[1]
MULTIPLES = (1, 2, 4, 8, 16, 32)  # C in units of π
SEEDS, STEPS = 5, 1000


def norms(multiple: int) -> np.ndarray:
    """Gradient norms `[seeds, before and after, boundary and residual]`."""
    problem = poisson1d.problem(frequency=multiple * math.pi)
    network = networks.MLP(width=50, depth=5)
    program = _step.build(problem, network, TrainConfig(method="sum", width=50, depth=5))
    found = []
    for seed in range(SEEDS):
        state, before = program.evaluate(program.init(seed), {})
        _, after = program.evaluate(program.advance(state, 0, STEPS), {})
        names = ("grad_norm/boundary", "grad_norm/residual")
        found.append([[float(row[name]) for name in names] for row in (before, after)])
    return np.array(found)


def draw(values: np.ndarray) -> Figure:
    """`values` [C, seeds, before and after, boundary and residual]."""
    figure = Figure(figsize=(10, 4))
    axes = figure.subplots(1, 2, sharey=True)
    titles = ("at the start", f"after {STEPS:,} steps of Adam")
    for k, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        for j, name in enumerate(("boundary", "residual")):
            log = np.log(values[:, :, k, j])
            (line,) = axis.plot(MULTIPLES, np.exp(log.mean(1)), "o-", label=name)
            band = np.exp(log.min(1)), np.exp(log.max(1))
            axis.fill_between(MULTIPLES, *band, color=line.get_color(), alpha=0.2)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set(title=title, xlabel="frequency C / π")
        axis.xaxis.set_major_formatter("{x:g}")
    axes[0].set_ylabel("gradient norm")
    axes[0].legend()
    return figure


def main() -> None:
    with jax.default_matmul_precision("highest"):
        values = np.stack([norms(multiple) for multiple in MULTIPLES])
    means = np.exp(np.log(values).mean(1))
    rows = [
        {
            "c_over_pi": multiple,
            "start": dict(zip(("boundary", "residual"), row[0].tolist(), strict=True)),
            "trained": dict(zip(("boundary", "residual"), row[1].tolist(), strict=True)),
        }
        for multiple, row in zip(MULTIPLES, means, strict=True)
    ]
    slope = np.polyfit(np.log(MULTIPLES), np.log(means[:, 0, 1]), 1)[0]
    for row in rows:
        print(json.dumps(row))
    print(f"at the start the residual's norm grows as C to the power {slope:.2f}")
    path = ROOT / "benchmarks" / "results" / "gradient_scales.json"
    content = {"machine": machine.describe(), "exponent_at_start": slope, "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")
    stem = ROOT / "docs" / "images" / "gradient_scales"
    save_figure(lambda: draw(values), stem, pdf=False)


if __name__ == "__main__":
    main()
