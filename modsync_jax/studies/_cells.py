"""A cell of the study: one method, problem and width, with its own learning rate."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from modsync_jax import reporting, sweeps

Row = dict[str, Any]
RATES = (3e-4, 1e-3, 3e-3)
"""The learning rates that every method tries."""
TRIAL_SEED = 100  # of the trials, and of no other run
_ROWS = 20  # evaluations of a training
_MEASURES = "alignment,norm_ratio,stationarity,interaction"
# Of the columns of evaluations, those that figures show, with other names for two of them.
_HISTORY = {
    "test/relative_l2": "error",
    "validation/relative_l2": "validation",
    "cosine/boundary~residual": "cosine/boundary~residual",
    "spread/boundary~residual": "spread/boundary~residual",
    "interaction/residual>boundary": "interaction/residual>boundary",
}


# Columns of no pair, or of the paper's two objectives.
_PAIRS = re.compile(r"[^/]*|.*/(boundary[~>]residual|residual>boundary)|.*/relative")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method under its name in the study.

    Attributes:
      method: a name of `modsync_jax.methods`.
      settings: fields of `TrainConfig` that belong to the name.
      shape: from the width of a cell to the width and depth that its network has instead.
    """

    method: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shape: Callable[[int], Mapping[str, int]] = lambda width: {}


class Cell(NamedTuple):
    """One method on one problem at one width.

    Attributes:
      problem: a problem's name.
      width: units of each hidden layer.
      variant: the method's name in the study.
    """

    problem: str
    width: int
    variant: str

    def __str__(self) -> str:
        return f"{self.problem}, width {self.width}, {self.variant}"


@dataclasses.dataclass(frozen=True)
class Scale:
    """The size of a study.

    Attributes:
      steps: of each training.
      seeds: of each cell, from `first_seed` on.
      width: of the networks of tables.
      widths: of the networks of figures.
      points: of a step, by term; those of the problem for others.
      settings: fields of `TrainConfig` that all runs share.
      depth: hidden layers.
      rates: the learning rates of the trials; a single one is taken without trials.
      first_seed: the first seed.
    """

    steps: int
    seeds: int
    width: int
    widths: Sequence[int]
    points: Mapping[str, int]
    settings: Mapping[str, Any]
    depth: int = 5
    rates: Sequence[float] = RATES
    first_seed: int = 0


def train_cell(
    cell: Cell,
    variant: Variant,
    scale: Scale,
    folder: Path,
    **placement: Any,
) -> tuple[list[Row], list[Row]]:
    """Trains what is missing of a cell: the trials of its learning rate, then the seeds.

    The rate is that of the lowest validation error; a rate whose run is not finite is never it,
    and if none is finite the lowest rate is taken.

    Args:
      cell: the cell.
      variant: its method.
      scale: its size.
      folder: for the two sweeps; an unfinished one there goes on.
      **placement: further arguments of `sweeps.sweep`.

    Returns:
      A row for each trial and seed, and a row for each evaluation of the seeds.

    Raises:
      ConfigError, RunError, Interrupted: as `sweeps.sweep`.
    """
    settings: dict[str, Any] = {
        "width": cell.width,
        "depth": scale.depth,
        "steps": scale.steps,
        "points": scale.points,
        "chunk": math.gcd(100, scale.steps // _ROWS),
        "eval_every": scale.steps // _ROWS,
        "checkpoint_every": scale.steps // _ROWS,
        "sampler": "uniform",
        "measures": _MEASURES,
        **scale.settings,
        **variant.settings,
        **variant.shape(cell.width),
    }
    rows: list[Row] = []

    def trained(stage: str, grid: sweeps.Grid, **fixed: Any) -> list[Row]:
        path = folder / stage
        found = sweeps.sweep(
            cell.problem,
            [variant.method],
            grid,
            output_dir=path,
            resume=(path / "config.json").exists(),
            export="none",
            **placement,
            **settings,
            **fixed,
        )
        known = {**cell._asdict(), "stage": stage}
        rows.extend(known | fixed | {n: row[n] for n in grid} | _kept(row) for row in found)
        return found

    rate = scale.rates[0]
    if len(scale.rates) > 1:
        trials = trained("trial", {"learning_rate": list(scale.rates), "seed": [TRIAL_SEED]})
        rate = chosen_rate(trials)
    seeds = range(scale.first_seed, scale.first_seed + scale.seeds)
    final = trained("final", {"seed": list(seeds)}, learning_rate=rate)
    seen = reporting.evaluations(folder / "final")
    history = [
        {**cell._asdict(), "seed": row["seed"], **line}
        for row in final
        for line in _evaluations(seen[row["replica"]])
    ]
    return rows, history


def chosen_rate(trials: Sequence[Row]) -> float:
    """Returns the learning rate of the trial with the lowest score among the finite ones."""
    good = [t for t in trials if t["status"] == "finished" and math.isfinite(t["score"])]
    best = min(good, key=lambda t: t["score"]) if good else min(trials, key=_rate)
    return _rate(best)


def _rate(trial: Row) -> float:
    return trial["learning_rate"]


def _kept(row: Row) -> Row:
    """What the study keeps of a sweep's row; of pairs of objectives that of the paper's two."""
    left_out = {"replica", "learning_rate", "seed", "method", "steps"}
    kept = {name: value for name, value in row.items() if name not in left_out}
    return {n: v for n, v in kept.items() if v is not None and _PAIRS.fullmatch(n)}


def _evaluations(columns: Mapping[str, NDArray]) -> list[Row]:
    """What the study keeps of a run's evaluations, until it failed."""
    names = {n: new for n, new in _HISTORY.items() if n in columns}
    return [
        {"step": int(step)} | {new: float(f"{columns[n][k]:.4g}") for n, new in names.items()}
        for k, step in enumerate(columns["step"])
        if math.isfinite(step)
    ]
