"""Trains several methods on one problem, a network for each method and seed, and compares them.

python -m experiments.compare --problem=helmholtz2d --methods=sum,lra,dcgd,modsync+dcgd

This is a sweep over methods and seeds with a folder for each run. It writes `comparison.html`: a
table, and the error against steps and time (figures as PNG and PDF, numbers as CSV). Finished runs
are not run again, and stopped ones go on. A run that is not finite counts as failed. The time per
step is that of the whole program over all steps of all its networks.
"""

import os
from pathlib import Path

from absl import flags

from modsync_jax import reporting, sweeps
from modsync_jax.training import ConfigError, TrainConfig

from . import _program

_program.define_settings(leave_out=("method", "seed"))
_program.define_device()
_program.define_replicas()
_program.define_lists()
_PROBLEM = flags.DEFINE_string(
    "problem", "burgers", "a problem's name, or file.py:name of your own"
)
_METHODS = flags.DEFINE_list("methods", ["sum", "lra", "dcgd"], "methods, joined by ','")
_SEEDS = flags.DEFINE_string("seeds", "0,1,2", "seeds of each method's runs: 0,1,2 or 0..31")
_TARGET = flags.DEFINE_float(
    "target", 0.01, "error (loss without a reference) to measure the time to", lower_bound=0.0
)
_OUTPUT = flags.DEFINE_string("output_dir", "", "folder of all runs; runs/compare-<problem>")
flags.adopt_module_key_flags(_program)


def main() -> None:
    """Trains the networks that are not finished, and compares."""
    _program.show_lists()
    problem = _PROBLEM.value
    if ".py:" in problem:
        problem = os.path.abspath(problem)
    methods, shared = list(dict.fromkeys(_METHODS.value)), _program.settings()
    grid = sweeps.parse(f"seed={_SEEDS.value}")
    sweeps.check(methods, grid, shared)  # before JAX starts
    folder = Path(_OUTPUT.value or f"runs/compare-{problem.rpartition(':')[2]}")
    _program.prepare_device(TrainConfig(**shared).widest_dtype, replicas=True)

    rows = sweeps.sweep(
        problem,
        methods,
        grid,
        output_dir=folder,
        resume=(folder / "config.json").exists(),
        export="all",
        **_program.replica_settings(),
        **shared,
    )
    if not sweeps.is_primary():
        return
    folders = {
        method: [folder / "runs" / row["replica"] for row in rows if row["method"] == method]
        for method in methods
    }
    try:
        compared = reporting.write_comparison(folders, folder, target=_TARGET.value)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    head, *lines = reporting.as_text(compared, _TARGET.value)
    _program.show_table(f"{problem}, {shared['steps']:,} steps", head, lines)
    print(f"see {folder}/comparison.html")


if __name__ == "__main__":
    _program.run(main)
