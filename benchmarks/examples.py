"""Question: what do pages of a diagnosis look like, and what do they say of problems of each kind?

Each example is a folder of docs/examples: `diagnosis.json`, small pictures, and the page as
Markdown. The last two are of runs that are trained first, by a first-order and by a second-order
method.

Usage: python -m benchmarks.examples [--names=burgers-32,burgers-256,...]
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before any array is made

from PIL import Image  # noqa: E402

import modsync_jax  # noqa: E402
from modsync_jax import reporting, training  # noqa: E402

PAGES = Path(__file__).parents[1] / "docs" / "examples"
RESULTS = Path(__file__).parent / "results" / "examples.json"
_WIDTH, _COLOURS = 900, 256  # of pictures
PROBLEMS: dict[str, dict[str, Any]] = {
    "burgers-32": {"problem": "burgers", "width": 32, "depth": 4},
    "burgers-256": {"problem": "burgers", "width": 256, "depth": 4},
    "helmholtz2d": {"problem": "helmholtz2d", "width": 50, "depth": 4},
    "burgers-inverse": {"problem": "benchmarks/inverse.py:burgers", "width": 50, "depth": 4},
    "wave-each": {"problem": "wave", "objectives": "each", "width": 50, "depth": 4},
}
_BOTH = {"width": 20, "depth": 4, "eval_every": 100, "checkpoint_every": 1_000, "selection": "loss"}
RUNS: dict[str, dict[str, Any]] = {
    "klein-gordon-adam": {"steps": 4_000, "dtype": "float64", **_BOTH},
    "klein-gordon-ssbroyden": {"steps": 0, "then": "ssbroyden(points=3,redraw=500):2000", **_BOTH},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--names", default=",".join([*PROBLEMS, *RUNS]))
    for name in parser.parse_args().names.split(","):
        with tempfile.TemporaryDirectory() as made:
            page = Path(made) / "page"
            if name in RUNS:
                run = Path(made) / "run"
                modsync_jax.solve(
                    "klein_gordon2d", "sum", output_dir=run, report=False, progress=False,
                    **RUNS[name],
                )  # fmt: skip
                training.diagnose_run(run, output_dir=page)
            else:
                settings = {**PROBLEMS[name]}
                training.diagnose_problem(settings.pop("problem"), output_dir=page, **settings)
            _keep(page, PAGES / name)
        print(PAGES / name, flush=True)
    gather()


def gather() -> None:
    """Writes the facts of all pages that are there into one file, for the table of the docs."""
    rows = []
    for name in [*PROBLEMS, *RUNS]:
        facts = json.loads((PAGES / name / "diagnosis.json").read_text())
        kept = ("regime", "borderline", "method", "trained_by", "evidence", "error", "objectives")
        rows.append({"name": name, **{key: facts[key] for key in kept}})
    RESULTS.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def _keep(page: Path, folder: Path) -> None:
    """Keeps a page as Markdown with small pictures."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(page / "diagnosis.json", folder)
    (folder / "README.md").write_text(reporting.diagnosis_markdown(page))
    for path in sorted((page / "figures").glob("*.png")):
        with Image.open(path) as image:
            height = round(image.height * _WIDTH / image.width)
            small = image.convert("RGB").resize((_WIDTH, height), Image.Resampling.LANCZOS)
            small.quantize(_COLOURS).save(folder / path.name, optimize=True)


if __name__ == "__main__":
    main()
