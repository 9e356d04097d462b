"""Trains several methods on one problem, a run for each method and seed, and compares them.

python -m experiments.compare --problem=helmholtz2d --methods=adam,lra,dcgd,modsync+dcgd

Writes a folder for each run, and `comparison.html` with a table and the error against steps and
time (figures as PNG and PDF, the numbers as CSV). What is finished is not run again; what was
stopped goes on; a run that stops on something that is not finite is counted as failed.
"""

import dataclasses
import os
from pathlib import Path

from absl import flags

from experiments import _program
from modsync_jax.training import ConfigError, NonFinite, TrainConfig

_program.define_settings(leave_out=("method", "seed"))
_program.define_device()
_program.define_lists()
_PROBLEM = flags.DEFINE_string(
    "problem", "burgers", "a problem's name, or file.py:name of your own"
)
_METHODS = flags.DEFINE_list("methods", ["adam", "dcgd", "modsync+dcgd"], "methods, joined by ','")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds of each method's runs, joined by ','")
_TARGET = flags.DEFINE_float(
    "target", 0.01, "error (loss without a reference) to measure the time to", lower_bound=0.0
)
_OUTPUT = flags.DEFINE_string("output_dir", "", "folder of all runs; runs/compare-<problem>")
flags.adopt_module_key_flags(_program)


def main() -> None:
    """Trains what is not finished, and compares."""
    _program.show_lists()
    problem = _PROBLEM.value
    if ".py:" in problem:
        problem = os.path.abspath(problem)
    shared = _program.settings()
    configs = {
        method: [
            TrainConfig.from_settings({**shared, "method": method, "seed": seed})
            for seed in _seeds(_SEEDS.value)
        ]
        for method in dict.fromkeys(_METHODS.value)
    }  # all checked before JAX starts
    if not configs:
        raise ConfigError("methods is empty; give some, --methods=adam,dcgd")
    folder = Path(_OUTPUT.value or f"runs/compare-{problem.rpartition(':')[2]}")
    _program.prepare_device(next(iter(configs.values()))[0].dtype)

    import modsync_jax
    from modsync_jax import reporting

    folders = {}
    for method, runs in configs.items():
        folders[method] = [folder / f"{method}-{config.seed}" for config in runs]
        for run, config in zip(folders[method], runs, strict=True):
            if (run / "failed.txt").exists():
                continue
            resume = (run / "config.json").exists()
            if not (run / "result.json").exists():
                _program.say(f"{'going on with' if resume else 'training'} {run}")
            try:
                modsync_jax.solve(
                    problem, output_dir=run, resume=resume, **dataclasses.asdict(config)
                )
            except NonFinite as failure:
                _program.say(str(failure))
                (run / "failed.txt").write_text(f"{failure}\n")
    try:
        rows = reporting.write_comparison(folders, folder, target=_TARGET.value)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    head, *lines = reporting.as_text(rows, _TARGET.value)
    _program.show_table(f"{problem}, {shared['steps']:,} steps", head, lines)
    print(f"see {folder}/comparison.html")


def _seeds(given: list[str]) -> list[int]:
    try:
        return list(dict.fromkeys(int(seed) for seed in given))
    except ValueError:
        raise ConfigError(
            f"seeds is {','.join(given)!r}; it must be whole numbers, --seeds=0,1,2"
        ) from None


if __name__ == "__main__":
    _program.run(main)
