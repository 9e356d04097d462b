"""Runs made by hand: the files of a run without training."""

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

MakeRun = Callable[..., Path]


def _grid_solution(coordinates, outputs, reference, terms):
    counts = (9, 7, 5)[: len(coordinates)]
    axes = [np.linspace(0, 1 + k, n) for k, n in enumerate(counts)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(counts))
    true = np.stack([points @ 10.0 ** np.arange(len(counts)) + k for k in range(len(outputs))], 1)
    arrays = {
        "coordinates": np.array(coordinates),
        "outputs": np.array(outputs),
        "shape": np.array(counts),
        "points": points,
        "prediction": true + 0.5,
    }
    if terms:
        arrays["equations"] = np.array(["mass", "heat"])
        arrays["residuals"] = np.stack([points[:, 0] - 0.5, -2 * points[:, 0]], 1)
        arrays |= {f"drawn/{name}": points[: 5 + k] for k, name in enumerate(terms)}
    return arrays | ({"reference": true} if reference else {})


def layer_arrays(layers):
    """Layer i keeps 10 + i weights and prunes 2 i, in a mask of 3 x 4 blocks."""
    kept, pruned = np.zeros((2, layers, 6), int)
    kept[:, 3], pruned[:, 1] = 10 + np.arange(layers), 2 * np.arange(layers)
    return {
        "layers": np.array([f"Dense_{i}/kernel" for i in range(layers)]),
        "edges": np.linspace(-4, 2, 7),
        "kept": kept,
        "pruned": pruned,
        **{f"mask/{i}": np.linspace(0, 1, 12).reshape(3, 4) for i in range(layers)},
    }


def _columns(steps, objectives, layers, reference, terms, unknowns):
    """Columns that fall, differ from each other, and mean nothing."""
    n = len(steps)
    fall = np.geomspace(1, 0.01, n)
    columns = {"step": steps, "loss": fall * len(objectives)}
    columns |= {f"loss/{name}": fall for name in objectives}
    columns |= {f"grad_norm/{name}": fall * (k + 1) for k, name in enumerate(objectives)}
    for a, b in itertools.combinations(objectives, 2):
        columns[f"cosine/{a}~{b}"] = np.linspace(0.9, 0.1, n)
        if terms:
            columns[f"opposed/{a}~{b}"] = np.full(n, 0.05)
    if terms:
        columns |= {f"term/{name}": fall * 2.0**-k for k, name in enumerate(terms)}
        columns |= {f"unknown/{name}": value * (2 - fall) for name, value in unknowns.items()}
        columns["learning_rate"] = np.full(n, 1e-3)
        columns["batches"] = np.where(steps > 0, 100.0, 1.0)
    if reference:
        for name in ("test", "validation"):
            columns |= {f"{name}/relative_l2": fall, f"{name}/mean_absolute": fall / 2}
    if layers:
        paths = [f"Dense_{i}/kernel" for i in range(layers)]
        columns["keep"] = np.linspace(1, 0.5, n)
        columns |= {f"keep/{p}": np.linspace(1, 0.4 + 0.01 * i, n) for i, p in enumerate(paths)}
        for name, (i, path) in itertools.product(objectives, enumerate(paths)):
            columns[f"threshold/{name}/{path}"] = np.linspace(0, 0.1 * i, n)
    return columns


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a run's files and returns its folder.

    `columns` replaces columns of `metrics.csv`, `result` and `config` entries of the JSON files.
    Without `terms` it is a run of format 1, which lacks terms, residuals, points, layers and score.
    """

    def make(
        *,
        name="run",
        rows=12,
        then=0,
        objectives=("boundary", "residual"),
        layers=3,
        coordinates=("t", "x"),
        outputs=("u",),
        reference=True,
        terms=("residual", "initial", "left", "right"),
        unknowns=None,
        columns=None,
        result=None,
        config=None,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        steps = 100.0 * np.arange(rows)
        unknowns = unknowns or {}
        table = _columns(steps, objectives, layers, reference, terms, unknowns) | (columns or {})
        with (folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))
        last = {name: float(values[-1]) for name, values in table.items()}
        errors = {
            name: dict.fromkeys(
                ("selected", "smallest", "final", "median_of_last_ten"), last[f"test/{name}"]
            )
            for name in ("relative_l2", "mean_absolute")
            if reference
        }
        both = ("selected", "final")
        score = {}
        if terms and reference:
            score = {"score": last["validation/relative_l2"], "scored_by": "validation error"}
        elif terms:
            total = sum(last[f"term/{name}"] for name in terms)
            score = {"score": total, "scored_by": "unweighted loss"}
        files = {
            "config.json": {
                "problem": "heat",
                "coordinates": coordinates,
                "outputs": outputs,
                "source": "A book, 1822",
                "method": "modsync+dcgd",
                "steps": int(steps[-1]) - then,
                "phases": [["adam", int(steps[-1]) - then], *[["lbfgs", then]] * bool(then)],
                "beta": 0.3,
                "architecture": {"width": 8},
                "network": "mlp",
                "width": 8,
                "depth": 2,
                "learning_rate": 1e-3,
                **({"format": 2} if terms else {}),
            }
            | (config or {}),
            "result.json": {
                "problem": "heat",
                "method": "modsync+dcgd",
                "seed": 7,
                "steps": int(steps[-1]),
                "parameters": 5301,
                "selected_step": int(steps[-1]),
                "loss": dict.fromkeys(both, last["loss"]),
                "keep": dict.fromkeys(both, last["keep"]) if layers else None,
                "unknowns": unknowns,
                "errors": errors or None,
                "timing": {
                    "steps_per_second": 321.4,
                    "training_seconds": 12.7,
                    "first_chunks_seconds": 9.9,
                },
                "device": "1 × cpu (cpu)",
                "versions": {"python": "3.12.1", "jax": "0.6.0"},
                **score,
            }
            | (result or {}),
        }
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
        solution = _grid_solution(coordinates, outputs, reference, terms)
        np.savez(folder / "solution.npz", **solution)
        if terms and layers:
            np.savez(folder / "layers.npz", **layer_arrays(layers))
        return folder

    return make
