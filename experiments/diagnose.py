"""Says which method a problem needs, from a short training, on one page with the evidence.

python -m experiments.diagnose --problem=burgers --width=32
python -m experiments.diagnose --run=runs/burgers-dcgd-0
python -m experiments.diagnose --problem=my_problem.py:heat --steps=2000 --output_dir=runs/why
"""

import os
from typing import TYPE_CHECKING

from absl import flags

from modsync_jax.training import LEFT_OUT, ConfigError, TrainConfig, read_config

from . import _program

if TYPE_CHECKING:
    from modsync_jax.diagnostics import Diagnosis

_program.define_settings(leave_out=LEFT_OUT)
_program.define_device()
_PROBLEM = flags.DEFINE_string(
    "problem", "burgers", "a problem's name, or file.py:name of your own"
)
_STEPS = flags.DEFINE_integer("steps", 1_000, "steps of the plain sum of the losses to watch")
_RUN = flags.DEFINE_string(
    "run", "", "folder of a finished run to look at instead of a new training"
)
_OUTPUT = flags.DEFINE_string(
    "output_dir", "", "folder of the page; runs/diagnosis-<problem>-<seed> if not given"
)
flags.adopt_module_key_flags(_program)


def main() -> None:
    """Diagnoses by the flags."""
    problem, settings = _PROBLEM.value, _program.settings(only_given=True)
    if _RUN.value:
        given = [*settings, *(n for n in ("problem", "steps") if flags.FLAGS[n].present)]
        if given:
            raise ConfigError(
                f"--run looks at a run with its own settings; leave out {', '.join(given)}"
            )
        stored = TrainConfig.from_stored(read_config(_RUN.value))
        _program.prepare_device(stored.widest_dtype)

        from modsync_jax import training

        folder = _OUTPUT.value or f"{_RUN.value}-diagnosis"
        _show(training.diagnose_run(_RUN.value, output_dir=folder), folder)
        return
    if ".py:" in problem:
        problem = os.path.abspath(problem)
    settings = {name: value for name, value in settings.items() if name not in LEFT_OUT}
    config = TrainConfig.from_settings(settings)  # checked before JAX starts
    folder = _OUTPUT.value or f"runs/diagnosis-{problem.rpartition(':')[2]}-{config.seed}"
    _program.prepare_device(config.dtype)

    from modsync_jax import training

    found = training.diagnose_problem(problem, steps=_STEPS.value, output_dir=folder, **settings)
    _show(found, folder)


def _show(found: "Diagnosis", folder: str) -> None:
    also = f" (borderline: {', '.join(found.borderline)})" if found.borderline else ""
    print(f"{found.regime}{also}\n{found.reason}")
    print(f"Recommended: {found.method}; see {folder}/diagnosis.html")


if __name__ == "__main__":
    _program.run(main)
