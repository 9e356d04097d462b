"""Evaluates the best parameters of a run on a grid, into a .npz file and figures.

python -m experiments.evaluate --run=runs/x --grid=201,401
python -m experiments.evaluate --run=runs/y --problem=my_problem.py:heat --output=heat
"""

import math
from pathlib import Path

import numpy as np
from absl import flags

from modsync_jax.training import ConfigError

from . import _program

_MOST = 20_000_000  # points of a grid: its values take a few gigabytes
_RUN = flags.DEFINE_string("run", "", "folder of the run")
_GRID = flags.DEFINE_list("grid", "", "points along each coordinate; the run's test grid if empty")
_PROBLEM = flags.DEFINE_string(
    "problem", "", "the problem as file.py:name, of a run that was trained in Python"
)
_OUTPUT = flags.DEFINE_string(
    "output", "", "output path without a suffix; <run>/evaluation if empty"
)
_program.define_device()
flags.adopt_module_key_flags(_program)


def main() -> None:
    """Evaluates a run by the flags."""
    config = _program.opened(_RUN.value)
    counts = _counts(config["coordinates"])

    from modsync_jax import problems, reporting, training

    try:
        problem = problems.get(_PROBLEM.value or config["problem"], **config["coefficients"])
    except ValueError as error:
        hint = "" if _PROBLEM.value else "; --problem=file.py:name says where it is"
        raise ConfigError(f"{error}{hint}") from None
    solution = _program.loaded(_RUN.value, config)
    arrays = training.on_grid(problem, solution, counts)
    stem = Path(_OUTPUT.value or Path(_RUN.value) / "evaluation")
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(stem.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
        reporting.draw_solution(arrays, stem)
    except OSError as error:
        raise ConfigError(
            f"can't write {stem}.npz: {error.strerror or error}; name another place with --output"
        ) from None
    print(f"{len(arrays['points'])} points in {stem}.npz, figures in {stem}.png and {stem}.pdf")
    if "reference" in arrays:
        off = arrays["prediction"] - arrays["reference"]
        relative = np.linalg.norm(off) / np.linalg.norm(arrays["reference"])
        print(f"relative L2 error {relative:.3e}, mean absolute error {np.abs(off).mean():.3e}")


def _counts(coordinates: list[str]) -> tuple[int, ...] | None:
    given = _GRID.value or []
    try:
        counts = tuple(int(number) for number in given)
    except ValueError:
        counts = (0,)
    if given and (len(counts) != len(coordinates) or min(counts) < 2):
        raise ConfigError(
            f"grid is {','.join(given)!r}; it must be a whole number of 2 or more for each of "
            f"{', '.join(coordinates)}, for example {','.join(['101'] * len(coordinates))}"
        )
    if (points := math.prod(counts)) > _MOST:
        raise ConfigError(f"grid has {points:,} points; {_MOST:,} are the most")
    return counts or None


if __name__ == "__main__":
    _program.run(main)
