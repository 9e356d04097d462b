"""The diagnosis of a problem, its page, and runs by it."""

import base64
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import modsync_jax
from modsync_jax import problems, reporting, training
from modsync_jax.training import ConfigError, RunError, TrainConfig, _diagnose

SMALL = {"width": 8, "depth": 2, "points": {"residual": 32}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The diagnosis of a problem with three objectives."""
    path = tmp_path_factory.mktemp("diagnosis") / "poisson1d"
    training.diagnose_problem("poisson1d", steps=60, objectives="each", output_dir=path, **SMALL)
    return path


@pytest.mark.long
def test_the_page_shows_what_the_files_say(folder):
    facts, page = json.loads((folder / "diagnosis.json").read_text()), (folder / "diagnosis.html")
    text = page.read_text()
    assert facts["reason"].split(".")[0] in text.replace("&#x27;", "'")
    assert facts["regime"] in text and facts["method"] in text
    images = sorted((folder / "figures").glob("*.png"))
    assert {image.stem for image in images} == {
        "course", "layers", "modules", "residual", "slices", "spectra"
    }  # fmt: skip
    for image in images:
        assert base64.b64encode(image.read_bytes()).decode() in text
    assert facts["objectives"] == sorted(problems.get("poisson1d").terms)


@pytest.mark.long
def test_the_page_as_markdown_says_the_same(folder):
    facts, text = (
        json.loads((folder / "diagnosis.json").read_text()),
        (reporting.diagnosis_markdown(folder)),
    )
    assert text.startswith(f"# poisson1d: {facts['regime']}\n") and facts["command"] in text
    names = re.findall(r"!\[(\w+)\]\(\1\.png\)", text)
    assert {f"{name}.png" for name in names} == {
        path.name for path in (folder / "figures").glob("*.png")
    }
    ratio = f"{facts['evidence']['norm_ratio']:.3g}"
    assert f"| longest gradient over shortest, geometric mean | {ratio} |" in text


@pytest.mark.long
def test_the_page_says_how_far_the_network_is_and_which_masks_are_of_use(folder):
    facts = json.loads((folder / "diagnosis.json").read_text())
    with np.load(folder / "diagnosis.npz") as arrays:
        found = {name: arrays[name] for name in arrays}
    exact = problems.get("poisson1d").reference(found["points"])
    error = np.linalg.norm(found["prediction"] - exact) / np.linalg.norm(exact)
    assert facts["error"] == pytest.approx(error)
    rise, random = (
        {n: found[f"module/{kind}/{n}|{n}"] for n in facts["objectives"]}
        for kind in ("ablation", "ablation_random")
    )
    useless = [n for n in facts["objectives"] if rise[n] >= random[n]]
    assert facts["modules"]["no_better_than_random"] == useless
    text = reporting.diagnosis_markdown(folder)
    (said,) = re.findall(r"whose relative L2 error is (\S+)\.\n", text)
    assert float(said) == pytest.approx(error, rel=5e-3)  # three digits
    assert ("no better than random ones" in text) == bool(useless)


@pytest.mark.long
def test_its_command_trains_with_the_same_settings(folder):
    words = shlex.split(json.loads((folder / "diagnosis.json").read_text())["command"])
    assert words[:4] == ["python", "-m", "experiments.train", "--problem=poisson1d"]
    assert {"--width=8", "--depth=2", "--points=residual=32", "--objectives=each"} <= {*words}


@pytest.mark.long
def test_its_arrays_are_of_the_trained_network(folder):
    with np.load(folder / "diagnosis.npz") as arrays:
        traces = {n: arrays[f"spectrum/{n}"].sum() for n in arrays["objectives"]}
        losses, steps = arrays["slice/losses"], arrays["slice/steps"]
    assert all(trace > 0 for trace in traces.values())
    here = losses[:, np.flatnonzero(steps == 0)[0]]
    np.testing.assert_allclose(here, np.tile(here[0], (len(here), 1)), rtol=1e-5)  # float32


@pytest.mark.long
def test_it_is_that_of_the_core_for_the_same_losses_and_the_program_prints_it(tmp_path):
    found = training.diagnose_problem("poisson1d", steps=40, **SMALL)
    flags = ["--problem=poisson1d", "--steps=40", "--width=8", "--depth=2", "--points=residual=32"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.diagnose", *flags, f"--output_dir={tmp_path / 'd'}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(found.regime) and f"Recommended: {found.method};" in done.stdout
    stored = json.loads((tmp_path / "d" / "diagnosis.json").read_text())
    assert stored["evidence"] == pytest.approx(dict(found.evidence), rel=1e-4)  # float32, threads


def test_a_run_has_its_own_settings():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.diagnose", "--run=runs/x", "--width=8"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--run looks at a run with its own settings; leave out width" in done.stderr


@pytest.mark.long
def test_auto_trains_by_the_method_of_the_diagnosis(tmp_path, capsys):
    chosen = training.diagnose_problem("poisson1d", steps=1_000, **SMALL).method
    run = {"steps": 20, "chunk": 10, "eval_every": 10, "checkpoint_every": 10, "progress": False}
    path = tmp_path / "run"
    auto = modsync_jax.solve("poisson1d", "auto", output_dir=path, **SMALL, **run)
    plain = modsync_jax.solve("poisson1d", chosen, **SMALL, **run)
    assert auto.result["method"] == chosen == plain.result["method"]
    assert [row["loss"] for row in auto.metrics] == [row["loss"] for row in plain.metrics]
    assert f"recommends {chosen}" in capsys.readouterr().err
    assert "was chosen by a" in (path / "report.html").read_text()
    longer = {**SMALL, **run, "steps": 40, "output_dir": path, "resume": True}
    assert modsync_jax.solve("poisson1d", "auto", **longer).result["method"] == chosen
    assert len(modsync_jax.load(path).metrics) == 5


@pytest.mark.slow
def test_a_diagnosis_that_was_stopped_is_made_again(tmp_path):
    half = tmp_path / "run" / "diagnosis"
    half.mkdir(parents=True)
    (half / "config.json").write_text("{}")
    method = _diagnose.method_for("poisson1d", tmp_path / "run", SMALL)
    assert (half / "diagnosis.html").exists()
    (half / "diagnosis.json").write_text(json.dumps({"method": "config"}))
    assert method != "config"
    assert _diagnose.method_for("poisson1d", tmp_path / "run", SMALL) == "config"  # as it says


@pytest.mark.slow
def test_a_finished_run_of_any_phases_is_diagnosed_from_its_rows(tmp_path, x64):
    run, size = tmp_path / "run", {**SMALL, "objectives": "each", "chunk": 10, "eval_every": 10}
    modsync_jax.solve(
        "poisson1d", "modsync+dcgd", steps=40, then="ssbroyden:40", checkpoint_every=40,
        output_dir=run, progress=False, report=False, **size,
    )  # fmt: skip
    found = training.diagnose_run(run, output_dir=tmp_path / "page")
    facts = json.loads((tmp_path / "page" / "diagnosis.json").read_text())
    assert facts["marks"] == [10, 20, 30, 40, 50, 60, 70, 80]
    assert [row["batches"] for row in found.rows] == [10.0] * 4 + [1.0] * 4
    page = (tmp_path / "page" / "diagnosis.html").read_text()
    assert f"This run was trained by {facts['trained_by']}." in page
    assert f"Recommended for first-order training: {facts['method']}." in page
    ratios = np.array([row["norm_ratio"] for row in training.read_metrics(run)[1:]])
    ratios = ratios[np.isfinite(ratios)]  # infinite where a condition at one point is met exactly
    assert found.evidence["norm_ratio"] == pytest.approx(np.exp(np.mean(np.log(ratios))))


def test_a_run_without_the_measures_is_refused():
    """Such as one of an older version."""
    older = Path(__file__).parent / "fixtures" / "format-1"
    with pytest.raises(ConfigError, match="a diagnosis needs a run with --measures=norm_ratio"):
        training.diagnose_run(older)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"method": "dcgd"},
            ConfigError,
            "trains the plain sum for its own steps; leave out method",
        ),
        ({"then": "lbfgs:9"}, ConfigError, "leave out then"),
        ({"steps": 3}, ConfigError, "steps is 3; a diagnosis needs 10 or more"),
        ({"widht": 3}, ConfigError, "did you mean 'width'"),
    ],
)
def test_wrong_settings_are_one_line(settings, error, message):
    with pytest.raises(error, match=message):
        training.diagnose_problem("poisson1d", **{**SMALL, **settings})


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty"):
        training.diagnose_problem("poisson1d", output_dir=tmp_path, steps=10, **SMALL)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_auto_needs_a_network_by_name():
    with pytest.raises(ConfigError, match="needs a network and an optimizer by name"):
        modsync_jax.solve("poisson1d", "auto", network=modsync_jax.networks.MLP(width=4, depth=1))


def test_commands_write_mappings_and_quote_methods():
    text = _diagnose.command("burgers", "lra(alpha=0.5)", {"points": {"residual": 7}, "width": 3})
    assert text.endswith("--method='lra(alpha=0.5)' --points=residual=7 --width=3")


def test_what_a_diagnosis_leaves_out_are_settings():
    assert {*training.LEFT_OUT} <= {*TrainConfig.__dataclass_fields__}
