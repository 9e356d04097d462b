"""Trains a network on a PDE problem, into a folder with metrics, checkpoints and a report.

python -m experiments.train --problem=burgers --method=dcgd --steps=20000
python -m experiments.train --problem=burgers --method=auto
python -m experiments.train --problem=my_problem.py:heat --method=config --width=64
python -m experiments.train --output_dir=runs/x --resume
"""

import dataclasses
import os

from absl import flags

from modsync_jax import methods
from modsync_jax.training import AUTO, DEFAULT_METHOD, ConfigError, TrainConfig, read_config

from . import _program

_program.define_settings()
_program.define_device()
_program.define_lists()
_PROBLEM = flags.DEFINE_string(
    "problem", "burgers", "a problem's name, or file.py:name of your own"
)
_OUTPUT = flags.DEFINE_string(
    "output_dir", "", "folder of the run; runs/<problem>-<method>-<seed> if not given"
)
_INIT = flags.DEFINE_string(
    "init", "", "folder of a run whose network to start from; a wider MLP is possible"
)
_RESUME = flags.DEFINE_bool("resume", False, "continue the run in output_dir, with its settings")
flags.adopt_module_key_flags(_program)


def main() -> None:
    """Trains by the flags."""
    _program.show_lists()
    problem, settings, folder = _PROBLEM.value, _program.settings(), _OUTPUT.value
    if _RESUME.value:
        if not folder:
            raise ConfigError("--resume needs --output_dir, the folder of the run to continue")
        stored = read_config(folder)
        given = _program.settings(only_given=True)
        if methods.OWN in (stored["method"], stored["optimizer"]):
            raise ConfigError(
                f"{folder} was trained with an optax transformation of its own; go on in Python, "
                "with solve(..., resume=True) and the same transformation"
            )
        settings = {**vars(TrainConfig.from_stored(stored)), **given}
        problem = problem if flags.FLAGS["problem"].present else stored["problem"]
    elif ".py:" in problem:
        problem = os.path.abspath(problem)
    method = settings.pop("method", DEFAULT_METHOD)
    named = {} if method == AUTO else {"method": method}
    config = TrainConfig.from_settings({**settings, **named})  # checked before JAX starts
    folder = folder or f"runs/{problem.rpartition(':')[2]}-{method}-{config.seed}"
    _program.prepare_device(config.widest_dtype)

    import modsync_jax

    solution = modsync_jax.solve(
        problem,
        init=_INIT.value or None,
        output_dir=folder,
        resume=_RESUME.value,
        **{**dataclasses.asdict(config), "method": method},
    )
    errors = solution.result["errors"]
    outcome = (
        f"relative L2 error {errors['relative_l2']['selected']:.2e}"
        if errors
        else f"loss {solution.result['loss']['selected']:.2e}"
    )
    print(f"{outcome} at step {solution.result['selected_step']}; see {folder}/report.html")


if __name__ == "__main__":
    _program.run(main)
