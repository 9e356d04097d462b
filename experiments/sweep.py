r"""Trains every method at every point of a grid, many networks in one program.

python -m experiments.sweep --problem=burgers --methods=dcgd,modsync+dcgd \
    --grid='width=64,128;seed=0..31;learning_rate=1e-3,3e-4' --output_dir=sweeps/x

It writes sweep.html, and results.csv and results.parquet with a row for each network. The same
command with --resume goes on after a stop, also with a larger grid or on other devices.
"""

import os

from absl import flags

from modsync_jax import reporting, sweeps
from modsync_jax.training import TrainConfig

from . import _program

_program.define_settings(leave_out=("method",))
_program.define_device()
_program.define_replicas()
_program.define_lists()
_PROBLEM = flags.DEFINE_string(
    "problem", "burgers", "a problem's name, or file.py:name of your own"
)
_METHODS = flags.DEFINE_list("methods", ["lra"], "methods, joined by ','")
_GRID = flags.DEFINE_string(
    "grid", "seed=0..7", "axes joined by ';', values by ',': width=64,128;seed=0..31"
)
_OUTPUT = flags.DEFINE_string("output_dir", "", "folder of the sweep; sweeps/<problem>")
_RESUME = flags.DEFINE_bool("resume", False, "go on with the sweep in output_dir")
_EXPORT = flags.DEFINE_enum(
    "export", "best", sweeps.EXPORTS, "runs that get a folder with a report: the best of each group"
)
_HALVING = flags.DEFINE_integer(
    "halving", 0, "successive halving: one configuration of this many goes on; 0 trains all"
)
flags.adopt_module_key_flags(_program)


def main() -> None:
    """Sweeps by the flags."""
    _program.show_lists()
    problem = os.path.abspath(_PROBLEM.value) if ".py:" in _PROBLEM.value else _PROBLEM.value
    grid, settings = sweeps.parse(_GRID.value), _program.settings()
    given = _program.settings(only_given=True)
    settings = {k: v for k, v in settings.items() if k not in grid or k in given}
    sweeps.check(_METHODS.value, grid, settings)  # before JAX starts
    folder = _OUTPUT.value or f"sweeps/{problem.rpartition(':')[2]}"
    fixed = TrainConfig.from_settings({k: v for k, v in settings.items() if k not in grid})
    _program.prepare_device(fixed.widest_dtype, replicas=True)

    rows = sweeps.sweep(
        problem,
        _METHODS.value,
        grid,
        output_dir=folder,
        resume=_RESUME.value,
        halving=_HALVING.value,
        export=_EXPORT.value,
        **_program.replica_settings(),
        **settings,
    )
    if not sweeps.is_primary():
        return
    head, *lines = reporting.as_table(reporting.configurations(rows))
    _program.show_table(f"{problem}: {len(lines)} configurations, by validation", head, lines[:10])
    print(f"see {folder}/sweep.html")


if __name__ == "__main__":
    _program.run(main)
