"""Solves Burgers' equation three times, by Adam, DCGD and ModSync+DCGD, and compares the errors.

python -m experiments.solve_burgers

`make solve` calls this program. It makes three runs of equal steps, each with a folder and a
report, and prints a table. Finished runs are not run again, and stopped ones go on.
"""

from pathlib import Path
from typing import Any

from absl import flags

from modsync_jax.training import TrainConfig

from . import _program

_OUTPUT = flags.DEFINE_string("output_dir", "runs/burgers", "folder of the runs")
_STEPS = flags.DEFINE_integer("steps", 4_000, "optimisation steps of each run")
_THEN = flags.DEFINE_string("then", "lbfgs(points=4):3000", "the phases after them")
_program.define_device()
flags.adopt_module_key_flags(_program)

METHODS = ("sum", "dcgd", "modsync+dcgd")
SETTINGS: dict[str, Any] = {
    "width": 32,
    "depth": 5,
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "min_keep": 0.5,
}


def main() -> None:
    """Trains the three methods and prints the table."""
    settings = {**SETTINGS, "steps": _STEPS.value, "then": _THEN.value}
    TrainConfig.from_settings(settings)  # checked before JAX starts
    _program.prepare_device("float32")

    import modsync_jax

    rows = []
    for method in METHODS:
        folder = Path(_OUTPUT.value) / method
        resume = (folder / "config.json").exists()
        solution = modsync_jax.solve(
            "burgers", method, output_dir=folder, resume=resume, **settings
        )
        errors = solution.result["errors"]["relative_l2"]
        keep = (solution.result["keep"] or {"selected": 1.0})["selected"]
        shown = [f"{errors[name]:.2e}" for name in ("selected", "smallest", "final")]
        seconds = solution.result["timing"]["training_seconds"]
        rows.append([method, *shown, f"{keep:.0%}", f"{seconds:.0f} s"])
    head = ["method", "selected", "smallest", "final", "weights kept", "training"]
    _program.show_table("Burgers' equation, relative L2 error on a 128×128 grid", head, rows)
    print(f"reports: {', '.join(str(Path(_OUTPUT.value) / m / 'report.html') for m in METHODS)}")


if __name__ == "__main__":
    _program.run(main)
