"""Evaluates the best parameters of a run on a grid, into a .npz file and figures.

python -m experiments.evaluate --run=runs/x --grid=201,401
"""

from pathlib import Path

import numpy as np
from absl import flags

from experiments import _program
from modsync_jax.training import ConfigError, read_config

_RUN = flags.DEFINE_string("run", "", "folder of the run")
_GRID = flags.DEFINE_list("grid", "", "points along each coordinate; the run's test grid if empty")
_OUTPUT = flags.DEFINE_string("output", "", "name of what is written; <run>/evaluation if empty")
_program.define_device()
flags.adopt_module_key_flags(_program)


def main() -> None:
    """Evaluates as the flags say."""
    if not _RUN.value:
        raise ConfigError("--run is missing; name the folder of a run")
    config = read_config(_RUN.value)
    counts = _counts(config["coordinates"])
    _program.prepare_device(config["dtype"])

    import modsync_jax
    from modsync_jax import problems, reporting, training

    try:
        problem = problems.get(config["problem"], **config["coefficients"])
    except ValueError as error:
        raise ConfigError(str(error)) from None
    arrays = training.on_grid(problem, modsync_jax.load(_RUN.value), counts)
    stem = Path(_OUTPUT.value or Path(_RUN.value) / "evaluation")
    stem.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(stem.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
    reporting.draw_solution(arrays, stem)
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
    return counts or None


if __name__ == "__main__":
    _program.run(main)
