"""Runs made by hand: the files of a run without training."""

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

MakeRun = Callable[..., Path]


def _grid_solution(coordinates, outputs, reference):
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
    return arrays | ({"reference": true} if reference else {})


def _columns(steps, objectives, layers, reference):
    """Columns that fall, differ from each other, and mean nothing."""
    n = len(steps)
    fall = np.geomspace(1, 0.01, n)
    columns = {"step": steps, "loss": fall * len(objectives)}
    columns |= {f"loss/{name}": fall for name in objectives}
    columns |= {f"grad_norm/{name}": fall * (k + 1) for k, name in enumerate(objectives)}
    for a, b in itertools.combinations(objectives, 2):
        columns[f"cosine/{a}~{b}"] = np.linspace(0.9, 0.1, n)
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
    """

    def make(
        *,
        name="run",
        rows=12,
        polish_steps=0,
        objectives=("boundary", "residual"),
        layers=3,
        coordinates=("t", "x"),
        outputs=("u",),
        reference=True,
        columns=None,
        result=None,
        config=None,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        steps = 100.0 * np.arange(rows)
        table = _columns(steps, objectives, layers, reference) | (columns or {})
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
        files = {
            "config.json": {
                "problem": "heat",
                "coordinates": coordinates,
                "outputs": outputs,
                "source": "A book, 1822",
                "method": "modsync+dcgd",
                "steps": int(steps[-1]) - polish_steps,
                "polish_steps": polish_steps,
                "beta": 0.3,
                "architecture": {"width": 8},
                "network": "mlp",
                "width": 8,
                "depth": 2,
                "learning_rate": 1e-3,
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
                "unknowns": {},
                "errors": errors or None,
                "timing": {
                    "steps_per_second": 321.4,
                    "training_seconds": 12.7,
                    "first_chunks_seconds": 9.9,
                },
                "device": "1 × cpu (cpu)",
                "versions": {"python": "3.12.1", "jax": "0.6.0"},
            }
            | (result or {}),
        }
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
        np.savez(folder / "solution.npz", **_grid_solution(coordinates, outputs, reference))
        return folder

    return make
