"""The files of a run as one value, and the quantities that a report reads from them."""

import csv
import dataclasses
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]

ERRORS = {"relative_l2": "relative L2 error", "mean_absolute": "mean absolute error"}
# Families of the columns of `metrics.csv`, before and after those that measures wrote.
_BEFORE = ("step", "learning_rate", "loss", "score", "term", "grad_norm")
_AFTER = ("batches", "unknown", "test", "validation", "keep", "threshold", "adapter")
ERROR_KINDS = ("selected", "smallest", "final", "median_of_last_ten")  # the names of each error


class Conflict(NamedTuple):
    """The conflict of two objectives' gradients over a run.

    Attributes:
      pair: the two objectives.
      cosine: the mean of their cosines.
      opposed: the number of batches with a negative cosine.
      batches: the number of batches.
      each_step: whether these are all training batches, or only those of the rows.
    """

    pair: tuple[str, str]
    cosine: float
    opposed: int
    batches: int
    each_step: bool

    @property
    def share(self) -> float:
        """The share of batches in which the gradients are opposed."""
        return self.opposed / self.batches if self.batches else np.nan


@dataclasses.dataclass(frozen=True)
class Run:
    """The files of a finished run.

    Older runs may lack a file, a column or an entry.

    Attributes:
      config: `config.json`.
      result: `result.json`.
      metrics: the columns of `metrics.csv` by name, each `[rows]`.
      solution: the arrays of `solution.npz`.
      layers: the arrays of `layers.npz`; empty without the file.
    """

    config: Mapping[str, Any]
    result: Mapping[str, Any]
    metrics: Mapping[str, Column]
    solution: Mapping[str, NDArray]
    layers: Mapping[str, NDArray]

    @property
    def problem(self) -> str:
        """The problem's name, with the coefficients that the user set."""
        given = self.config.get("coefficients", {})  # older runs have none
        known = {n: "unknown" if isinstance(v, str) else f"{v:g}" for n, v in given.items()}
        values = ", ".join(f"{name} {value}" for name, value in known.items())
        return f"{self.result['problem']} ({values})" if values else self.result["problem"]

    @property
    def steps(self) -> Column:
        """The step of each row, `[rows]`."""
        return self.metrics["step"]

    @property
    def outcome(self) -> Column:
        """The error or loss of each row, `[rows]`: see `outcome_name`."""
        return outcome_of(self.metrics)

    @property
    def outcome_name(self) -> str:
        """The outcome's name: the relative L2 error or, without a reference, a loss."""
        if self.result["errors"]:
            return ERRORS["relative_l2"]
        return "unweighted loss" if self.family("term") else "total loss"

    @property
    def selected_outcome(self) -> float:
        """The outcome of the parameters that the run returns."""
        errors = self.result["errors"]
        return errors["relative_l2"]["selected"] if errors else float(self.outcome[self.selected])

    @property
    def score(self) -> float:
        """The number that ranks runs: see `scored_by`."""
        return float(self.result.get("score", self.selected_outcome))

    @property
    def scored_by(self) -> str:
        """The score's name, such as `validation error`; the outcome's in runs without a score."""
        return str(self.result.get("scored_by", self.outcome_name))

    @property
    def phases(self) -> list[tuple[str, int, int]]:
        """The name of each phase that the run came to, and the steps before it and after it."""
        named = self.config.get("phases")
        if named is None:  # format 2 and older
            polish = self.config.get("polish_steps", 0)
            named = [("steps", self.config["steps"]), ("lbfgs", polish)]
        last = int(self.steps[-1])  # a time limit may end a run early
        ends = [0, *(min(int(end), last) for end in np.cumsum([steps for _, steps in named]))]
        whole = zip(named, itertools.pairwise(ends), strict=True)
        found = [(name, start, end) for (name, _), (start, end) in whole if start < end]
        return found or [(named[0][0], 0, 0)]

    @property
    def training(self) -> NDArray[np.bool_]:
        """Whether each row comes before the second phase, `[rows]`."""
        return self.steps <= self.phases[0][2]

    @property
    def selected(self) -> int:
        """The index of the row of the parameters that the run returns."""
        return int(np.flatnonzero(self.steps == self.result["selected_step"])[0])

    def family(self, kind: str) -> dict[str, Column]:
        """The columns `<kind>/<name>` by name; empty if the method has none."""
        prefix = f"{kind}/"
        found = {n.removeprefix(prefix): c for n, c in self.metrics.items() if n.startswith(prefix)}
        return {name: found[name] for name in sorted(found, key=_natural)}

    def families(self) -> dict[str, dict[str, Column]]:
        """The columns that measures wrote, by family; a column without a name has the name ""."""
        found: dict[str, dict[str, Column]] = {}
        for name in sorted(measured(self.metrics), key=_natural):
            family, _, member = name.partition("/")
            found.setdefault(family, {})[member] = self.metrics[name]
        return found

    def conflicts(self) -> dict[tuple[str, str], Conflict]:
        """The conflict of each pair of objectives, over all rows."""
        shares = self.family("opposed")
        batches = self.metrics["batches"] if shares else np.ones_like(self.steps)
        found = {}
        for name, cosines in self.family("cosine").items():
            known = np.isfinite(cosines)
            share = shares[name] if shares else (cosines < 0).astype(float)
            counts = batches[known]
            total = int(counts.sum())
            found[pair_of(name)] = Conflict(
                pair=pair_of(name),
                cosine=float(cosines[known] @ counts / total) if total else np.nan,
                opposed=round(float(share[known] @ counts)),
                batches=total,
                each_step=bool((batches > 1).any()),
            )
        return found

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
    return Run(
        config=json.loads((path / "config.json").read_text()),
        result=json.loads((path / "result.json").read_text()),
        metrics=_completed(_columns(path / "metrics.csv")),
        solution=_arrays(path / "solution.npz"),
        layers=_arrays(path / "layers.npz") if (path / "layers.npz").exists() else {},
    )


def outcome_of(metrics: Mapping[str, NDArray]) -> NDArray:
    """Returns the error of networks or, without a reference, the loss without weights.

    Args:
      metrics: columns of one shape. Older runs have the loss on other points in every row, or a
        total loss only.
    """
    for name in ("test/relative_l2", "score"):
        if name in metrics:
            return metrics[name]
    terms = [column for name, column in metrics.items() if name.startswith("term/")]
    return np.sum(terms, axis=0) if terms else metrics["loss"]


def measured(columns: Iterable[str]) -> list[str]:
    """The columns among those of `metrics.csv` that measures of the training batches wrote."""
    return [name for name in columns if name.partition("/")[0] not in _BEFORE + _AFTER]


def unknowns(row: Mapping[str, float]) -> dict[str, float]:
    """The unknowns in a row of `metrics.csv` by name."""
    start = "unknown/"
    return {name[len(start) :]: row[name] for name in row if name.startswith(start)}


def in_order(columns: Iterable[str]) -> list[str]:
    """The columns of `metrics.csv` in the order of their families."""
    order = (*_BEFORE, None, *_AFTER)
    place = {family: index for index, family in enumerate(order)}
    return sorted(columns, key=lambda name: place.get(name.partition("/")[0], place[None]))


def pair_of(name: str) -> tuple[str, str]:
    """The two objectives of a column `<kind>/<name>`: the two sides of `boundary~residual`."""
    first, _, second = name.partition("~")
    return first, second


def layer_label(path: str) -> str:
    """A short name for a layer: `layer 1` for `Dense_0/kernel`, or its path."""
    numbered = re.fullmatch(r"Dense_(\d+)/kernel", path)
    return f"layer {int(numbered[1]) + 1}" if numbered else path.removesuffix("/kernel")


def _arrays(path: Path) -> dict[str, NDArray]:
    with np.load(path) as arrays:
        return dict(arrays)


def _columns(path: Path) -> dict[str, Column]:
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return dict(zip(header, np.array(rows, np.float64).T, strict=True))


def _completed(metrics: dict[str, Column]) -> dict[str, Column]:
    """Fills what rows of format 1 lack in a run that went on: each is of one batch of its own."""
    if "batches" not in metrics:
        return metrics
    older = np.isnan(metrics["batches"])
    filled = {**metrics, "batches": np.where(older, 1.0, metrics["batches"])}
    for name in metrics:
        kind, _, pair = name.partition("/")
        if kind == "opposed":
            own = (metrics[f"cosine/{pair}"] < 0).astype(float)
            filled[name] = np.where(older, own, metrics[name])
    return filled


def _natural(name: str) -> list[tuple[str, int]]:
    """A key that sorts `Dense_2` before `Dense_10`."""
    return [(text, int(digits or -1)) for text, digits in re.findall(r"(\D*)(\d*)", name)]
