"""What a run's folder says: its files as one value, and the questions a report asks of it."""

import csv
import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]

ERRORS = {"relative_l2": "relative L2 error", "mean_absolute": "mean absolute error"}
ERROR_KINDS = ("selected", "smallest", "final", "median_of_last_ten")  # of each error


@dataclasses.dataclass(frozen=True)
class Run:
    """The files of a finished run.

    Attributes:
      config: `config.json`.
      result: `result.json`.
      metrics: the columns of `metrics.csv` by name, each `[rows]`.
      solution: the arrays of `solution.npz`.
    """

    config: Mapping[str, Any]
    result: Mapping[str, Any]
    metrics: Mapping[str, Column]
    solution: Mapping[str, NDArray]

    @property
    def problem(self) -> str:
        """The problem's name, with the coefficients that it was given."""
        given = self.config.get("coefficients", {})  # none from before there were any
        values = ", ".join(f"{name} {value:g}" for name, value in given.items())
        return f"{self.result['problem']} ({values})" if values else self.result["problem"]

    @property
    def steps(self) -> Column:
        """The step of each row, `[rows]`."""
        return self.metrics["step"]

    @property
    def measure(self) -> str:
        """The column that says how good the run is: the error, or the loss without a reference."""
        return "loss" if self.result["errors"] is None else "test/relative_l2"

    @property
    def training(self) -> NDArray[np.bool_]:
        """Which rows come before the polish, `[rows]`."""
        return self.steps <= self.config["steps"]

    @property
    def selected(self) -> int:
        """The row of the parameters that the run returns."""
        return int(np.flatnonzero(self.steps == self.result["selected_step"])[0])

    def family(self, kind: str) -> dict[str, Column]:
        """The columns `<kind>/<name>` by name; empty if the method has none."""
        prefix = f"{kind}/"
        found = {n.removeprefix(prefix): c for n, c in self.metrics.items() if n.startswith(prefix)}
        return {name: found[name] for name in sorted(found, key=_natural)}

    def thresholds(self) -> dict[str, dict[str, Column]]:
        """Mean thresholds by objective, then layer, `[rows]` each; empty if the method has none."""
        grouped: dict[str, dict[str, Column]] = {}
        for name, column in self.family("threshold").items():
            objective, _, layer = name.partition("/")
            grouped.setdefault(objective, {})[layer] = column
        return grouped


def read(folder: str | os.PathLike) -> Run:
    """Reads the folder of a finished run.

    Raises:
      FileNotFoundError: a file is missing; the message says which.
    """
    path = Path(folder)
    for name in ("config.json", "result.json", "metrics.csv", "solution.npz"):
        if not (path / name).exists():
            raise FileNotFoundError(f"{path} holds no {name}; name the folder of a finished run")
    with np.load(path / "solution.npz") as arrays:
        solution = dict(arrays)
    return Run(
        config=json.loads((path / "config.json").read_text()),
        result=json.loads((path / "result.json").read_text()),
        metrics=_columns(path / "metrics.csv"),
        solution=solution,
    )


def layer_label(path: str) -> str:
    """A short name for a layer: `layer 1` for `Dense_0/kernel`, else its path."""
    numbered = re.fullmatch(r"Dense_(\d+)/kernel", path)
    return f"layer {int(numbered[1]) + 1}" if numbered else path.removesuffix("/kernel")


def _columns(path: Path) -> dict[str, Column]:
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return dict(zip(header, np.array(rows, np.float64).T, strict=True))


def _natural(name: str) -> list[tuple[str, int]]:
    """A key that sorts `Dense_2` before `Dense_10`."""
    return [(text, int(digits or -1)) for text, digits in re.findall(r"(\D*)(\d*)", name)]
