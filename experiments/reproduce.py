"""Trains the networks of a table or figure of the ModSync paper, and makes it.

python -m experiments.reproduce --what=table1 --scale=small
python -m experiments.reproduce --what=fig4 --problems=burgers --widths=16,64 --minutes=50

It stops after --minutes, and the same command goes on. Trained cells are rows of runs.csv and
history.csv in --output_dir, and are not trained again; what is unfinished lies in --work_dir.
Several of these programs share the cells of one study.
"""

import contextlib
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from filelock import FileLock, Timeout

from modsync_jax.training import ConfigError, Interrupted

from . import _program

if TYPE_CHECKING:
    from modsync_jax.studies import Cell, Results, Scale

_WHAT = flags.DEFINE_enum(
    "what",
    "table1",
    ("table1", "table2", "fig1", "fig2", "fig3", "fig4", "candidates", "choices", "controls"),
    "what to make; candidates: the comparison from which the default of thresholds is chosen; "
    "choices: what the paper leaves open; controls: what may do the same as ModSync",
)
_PRESET = flags.DEFINE_enum(
    "preset", "default", ("default", "paper"), "whose settings ModSync's thresholds have"
)
_SCALE = flags.DEFINE_enum(
    "scale", "small", ("small", "candidates", "full"), "the size of the study"
)
_PROBLEMS = flags.DEFINE_list("problems", [], "only these problems")
_WIDTHS = flags.DEFINE_list("widths", [], "these widths instead of the scale's")
_SEEDS = flags.DEFINE_integer("seeds", 0, "seeds of each cell; 0: the scale's", lower_bound=0)
_STEPS = flags.DEFINE_integer("steps", 0, "steps of each run; 0: the scale's", lower_bound=0)
_MINUTES = flags.DEFINE_float("minutes", 0.0, "stop after this time; 0: never", lower_bound=0.0)
_TRAIN = flags.DEFINE_bool("train", True, "train what is missing; otherwise show what is there")
_OUTPUT = flags.DEFINE_string("output_dir", "", "folder of the results; results/<scale>")
_WORK = flags.DEFINE_string("work_dir", "", "folder of unfinished cells; runs/reproduce/<scale>")
_program.define_device()
_program.define_replicas()
flags.adopt_module_key_flags(_program)


def main() -> None:
    """Makes a table or figure by the flags."""
    _program.prepare_device("float32", replicas=True)

    from modsync_jax import studies

    scale = _scaled(studies.SCALES[_SCALE.value])
    results = studies.Results(_OUTPUT.value or f"results/{_SCALE.value}", scale)
    cells = studies.cells(_WHAT.value, scale, _PRESET.value)
    known = {cell.problem for cell in cells}
    if unknown := set(_PROBLEMS.value) - known:
        raise ConfigError(
            f"{_WHAT.value} has no problem {', '.join(sorted(unknown))}; it has "
            f"{', '.join(sorted(known))}"
        )
    cells = [cell for cell in cells if not _PROBLEMS.value or cell.problem in _PROBLEMS.value]
    if _TRAIN.value:
        _train([c for c in cells if results.seeds(c) < scale.seeds], results, scale)
    missing = [cell for cell in cells if results.seeds(cell) < scale.seeds]
    if len(missing) < len(cells):
        for title, (head, *lines) in studies.write(
            _WHAT.value, cells, results, _PRESET.value
        ).items():
            _program.show_table(title, head, lines)
    print(f"{len(cells) - len(missing)} of {len(cells)} cells are trained: {results.folder}")


def _scaled(scale: "Scale") -> "Scale":
    """The scale with what the flags change."""
    import dataclasses

    changes: dict[str, Any] = {}
    if _WIDTHS.value:
        try:
            widths = tuple(map(int, _WIDTHS.value))
        except ValueError:
            raise ConfigError(f"--widths is {','.join(_WIDTHS.value)}; give 16,64,...") from None
        changes |= {"widths": widths, "width": widths[-1]}
    changes |= {"seeds": _SEEDS.value} if _SEEDS.value else {}
    changes |= {"steps": _STEPS.value} if _STEPS.value else {}
    return dataclasses.replace(scale, **changes)


def _train(cells: "list[Cell]", results: "Results", scale: "Scale") -> None:
    """Trains cells, and writes each when it is whole."""
    import jax

    from modsync_jax import studies

    stop = threading.Timer(60 * _MINUTES.value, os.kill, (os.getpid(), signal.SIGTERM))
    stop.daemon = True
    if _MINUTES.value:
        stop.start()
    about, placement = studies.about(), _program.replica_settings()
    work = Path(_WORK.value or f"runs/reproduce/{_SCALE.value}")
    work.mkdir(parents=True, exist_ok=True)
    for number, cell in enumerate(cells, 1):
        folder = work / f"{cell.problem}-{cell.width}-{cell.variant.replace(' ', '-')}"
        with contextlib.suppress(Timeout), FileLock(f"{folder}.lock", timeout=0):
            results.read()
            if results.seeds(cell) >= scale.seeds:  # by another program
                continue
            print(f"{number} of {len(cells)}: {cell}", file=sys.stderr)
            try:
                rows, history = studies.train_cell(
                    cell, studies.VARIANTS[cell.variant], scale, folder, **placement
                )
            except Interrupted:
                print("stopped; the same command goes on", file=sys.stderr)
                return
            results.add(cell, [row | about for row in rows], history)
            shutil.rmtree(folder)
            jax.clear_caches()  # programs of other shapes are of no use any more
    stop.cancel()
    results.read()


if __name__ == "__main__":
    _program.run(main)
