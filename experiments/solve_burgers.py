"""Solves Burgers' equation four times, by Adam, DCGD, ModSync+DCGD and the recipe `--preset=best`.

python -m experiments.solve_burgers

`make solve` calls this program. Three runs take first-order steps and then iterations of L-BFGS in
float32. The recipe is quasi-Newton from the start, in float64, with points drawn where the residual
is large. Each has a folder and a report, and a table compares them. Finished runs are not run
again, and stopped ones go on.
"""

from pathlib import Path
from typing import Any

from absl import flags

from modsync_jax.training import TrainConfig

from . import _program

_OUTPUT = flags.DEFINE_string("output_dir", "runs/burgers", "folder of the runs")
_STEPS = flags.DEFINE_integer("steps", 2_000, "first-order steps of the first three runs")
_THEN = flags.DEFINE_string("then", "lbfgs(points=4):1000", "the phases after them")
_SECOND_ORDER = flags.DEFINE_string("second_order", "ssbroyden:10000", "the phases of the recipe")
_SEED = flags.DEFINE_integer("seed", 0, "seed of all four")
_program.define_device()
flags.adopt_module_key_flags(_program)

FIRST_ORDER: dict[str, Any] = {
    "width": 32,
    "depth": 5,
    "learning_rate": 2e-3,
    "schedule": "cosine",
}


def main() -> None:
    """Trains the four networks and prints the table."""
    first_order = {**FIRST_ORDER, "steps": _STEPS.value, "then": _THEN.value}
    recipe = {"preset": "best", "then": _SECOND_ORDER.value, "time_limit": 0.0}
    runs = {method: {"method": method, **first_order} for method in ("sum", "dcgd", "modsync+dcgd")}
    runs["best"] = {"method": "sum", **recipe}
    runs = {name: {**settings, "seed": _SEED.value} for name, settings in runs.items()}
    for settings in runs.values():
        TrainConfig.from_settings(settings)  # checked before JAX starts
    _program.prepare_device("float64")

    import modsync_jax

    rows = []
    for name, settings in runs.items():
        folder = Path(_OUTPUT.value) / name
        resume = (folder / "config.json").exists()
        solution = modsync_jax.solve("burgers", output_dir=folder, resume=resume, **settings)
        errors = solution.result["errors"]["relative_l2"]
        keep = (solution.result["keep"] or {"selected": 1.0})["selected"]
        shown = [f"{errors[kind]:.2e}" for kind in ("selected", "smallest", "final")]
        seconds = solution.result["timing"]["training_seconds"]
        by = solution.result["trained_by"]
        rows.append([by, *shown, f"{keep:.0%}", f"{seconds:.0f} s"])
    head = ["trained by", "selected", "smallest", "final", "weights kept", "training"]
    _program.show_table("Burgers' equation, relative L2 error on a 128×128 grid", head, rows)
    print(f"reports: {', '.join(str(Path(_OUTPUT.value) / name / 'report.html') for name in runs)}")


if __name__ == "__main__":
    _program.run(main)
