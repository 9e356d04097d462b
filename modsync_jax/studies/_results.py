"""The results of a study: two CSV files that grow by a cell at a time."""

import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from modsync_jax.studies._cells import Cell, Scale
from modsync_jax.training import ConfigError

Row = dict[str, Any]
_MAY_GROW = ("seeds", "width", "widths")  # of a scale, between two calls for the same folder


class Results:
    """The trained cells of a study; several programs may add to them.

    Attributes:
      runs: a row for each run: the cell, `stage` ("trial" or "final"), `seed`, `learning_rate`,
        `status`, errors, and means of the measures over the training.
      history: a row for each evaluation of the final runs.

    Args:
      folder: for `study.json`, `runs.csv` and `history.csv`; it need not exist.
      scale: the size of the study.

    Raises:
      ConfigError: the folder holds runs of another size, which can't be compared with these.
    """

    def __init__(self, folder: str | os.PathLike, scale: Scale) -> None:
        self.folder = Path(folder)
        self._facts = _facts(scale)
        path = self.folder / "study.json"
        if path.exists() and (there := json.loads(path.read_text("utf-8"))) != self._facts:
            names = [name for name in there if there[name] != self._facts[name]]
            raise ConfigError(
                f"{self.folder} holds a study with other {', '.join(names)}; give another "
                "output_dir"
            )
        self.read()

    def read(self) -> None:
        """Reads the files again, to which another program may have added."""
        self.runs = _read(self.folder / "runs.csv")
        self.history = _read(self.folder / "history.csv")

    def final(self, cells: Iterable[Cell]) -> list[Row]:
        """Returns the runs of cells, without the trials."""
        asked = set(cells)
        return [row for row in self.runs if row["stage"] == "final" and _cell(row) in asked]

    def evaluations(self, cells: Iterable[Cell]) -> list[Row]:
        """Returns the evaluations of the final runs of cells."""
        asked = set(cells)
        return [row for row in self.history if _cell(row) in asked]

    def costs(self) -> dict[tuple[int, str], float]:
        """Returns the time of a step over Adam's by width and method, of those that were measured.

        They stand in `costs.csv`, which `python -m benchmarks.step_time --study=widths` writes.
        """
        rows = _read(self.folder / "costs.csv")
        return {(row["width"], row["method"]): row["over_adam"] for row in rows}

    def seeds(self, cell: Cell) -> int:
        """Returns the number of seeds of a cell that were trained."""
        return len(self.final([cell]))

    def add(
        self, cell: Cell, runs: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]
    ) -> None:
        """Writes the rows of a cell in the place of those that it had."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            self.read()
            self.history = _with(self.history, cell, history)
            self.runs = _with(self.runs, cell, runs)
            facts = json.dumps(self._facts, indent=1) + "\n"
            (self.folder / "study.json").write_text(facts, encoding="utf-8")
            _write(self.folder / "history.csv", self.history)
            _write(self.folder / "runs.csv", self.runs)  # last: by its rows a cell is trained


def _with(rows: Sequence[Row], cell: Cell, new: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows with those of a cell replaced."""
    return [row for row in rows if _cell(row) != cell] + list(map(dict, new))


def _facts(scale: Scale) -> dict[str, Any]:
    """What all runs of a study have in common, as `study.json` holds it."""
    facts = {n: v for n, v in dataclasses.asdict(scale).items() if n not in _MAY_GROW}
    return json.loads(json.dumps(facts))


def _cell(row: Row) -> Cell:
    return Cell(row["problem"], row["width"], row["variant"])


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: _value(v) for k, v in row.items() if v != ""} for row in csv.DictReader(file)]


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    new = path.with_suffix(".new")
    new.write_text(text.getvalue(), encoding="utf-8")
    new.replace(path)
