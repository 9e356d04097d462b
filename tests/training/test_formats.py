"""Runs that older versions wrote, kept in `fixtures/`: they are read, and go on."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import modsync_jax
from modsync_jax import training
from modsync_jax.reporting import _run as reporting_run
from modsync_jax.training import RunError, TrainConfig, read_config, read_metrics
from modsync_jax.training._folder import RunFolder

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def run(tmp_path):
    """The folder of a finished run of format 1: 20 steps of `lra` on `poisson1d`."""
    return shutil.copytree(FIXTURES / "format-1", tmp_path / "run")


def stored(run):
    settings = {k: v for k, v in vars(TrainConfig.from_stored(read_config(run))).items()}
    return {**settings, "progress": False, "output_dir": run}


def test_an_older_run_is_loaded_and_has_the_error_that_its_result_states(run):
    solution = modsync_jax.load(run)
    arrays = training.on_grid(modsync_jax.problems.get("poisson1d"), solution)
    off = np.linalg.norm(arrays["prediction"] - arrays["reference"])
    relative = off / np.linalg.norm(arrays["reference"])
    stated = solution.result["errors"]["relative_l2"]["selected"]
    assert relative == pytest.approx(stated, rel=1e-4)  # two float32 evaluations of one network
    assert len(solution.metrics) == 3


@pytest.mark.long
def test_an_older_run_goes_on_and_its_new_columns_join_the_old_ones(run):
    before = read_metrics(run)
    assert "term/left" not in before[0] and "objectives" in read_config(run)
    solution = modsync_jax.solve(
        "poisson1d", resume=True, report=True, **{**stored(run), "steps": 40}
    )
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [0, 10, 20, 30, 40]
    for old, row in zip(before, rows, strict=False):
        assert {name: row[name] for name in old} == old
        assert np.isnan(row["term/left"])
    assert all(np.isfinite(row["term/left"]) for row in rows[3:])
    assert solution.result["steps"] == 40 and (run / "report.html").exists()
    (conflict,) = reporting_run.read(run).conflicts().values()
    assert conflict.batches == 3 + 20  # a batch for each older row, then those of all steps
    assert read_config(run)["format"] == training.FORMAT


@pytest.mark.parametrize("name", ["format-1", "format-1-modsync", "format-3-modsync"])
def test_thresholds_of_an_older_run_stay_as_they_were(name):
    found = read_config(FIXTURES / name)
    config = TrainConfig.from_stored(found)
    if "modsync" in name:
        assert (config.threshold_schedule, config.sparsity_pull) == ("constant", "constant")
    else:  # a run without thresholds can be resumed by the command that began it
        assert (config.threshold_schedule, config.sparsity_pull) == ("weights", "losses")


def test_an_older_sweep_does_not_go_on_with_other_thresholds(tmp_path):
    (tmp_path / "config.json").write_text('{"format": 3, "settings": {"width": 8, "beta": 0.1}}')
    found = read_config(tmp_path)["settings"]
    before = {"threshold_schedule": "constant", "sparsity_pull": "constant"}
    assert found == {"width": 8, "beta": 0.1, **before}
    with pytest.raises(RunError, match="holds a run of another configuration: settings="):
        RunFolder(tmp_path, {"settings": {"width": 8, "beta": 0.1}}, resume=True)
    RunFolder(tmp_path, {"settings": found}, resume=True)


def test_an_older_run_of_modsync_is_loaded(tmp_path):
    run = shutil.copytree(FIXTURES / "format-1-modsync", tmp_path / "run")
    solution = modsync_jax.load(run)
    assert np.isfinite(solution(np.zeros((1, 1)))).all()
    assert solution.trained.thresholds["network"]["params"]["Dense_0"]["kernel"].shape == (2, 1, 4)


@pytest.mark.long
def test_an_older_run_of_modsync_does_not_go_on_with_another_state(tmp_path):
    run = shutil.copytree(FIXTURES / "format-1-modsync", tmp_path / "run")
    with pytest.raises(RunError, match="has not the arrays that this program"):
        modsync_jax.solve("poisson1d", resume=True, **{**stored(run), "steps": 40})


@pytest.mark.long
def test_a_run_with_other_sums_in_its_state_goes_on_as_if_it_had_begun_here(tmp_path):
    """Format 3, before runs had measures; a checkpoint then held sums under another name."""
    run = shutil.copytree(FIXTURES / "format-3-modsync", tmp_path / "run")
    settings = {**stored(run), "steps": 40, "report": False}
    resumed = modsync_jax.solve("poisson1d", resume=True, **settings)
    whole = modsync_jax.solve("poisson1d", **{**settings, "output_dir": tmp_path / "whole"})
    for name in ("loss", "keep", "cosine/boundary~residual", "norm_ratio"):
        found, expected = (run.metrics[-1][name] for run in (resumed, whole))
        assert found == pytest.approx(expected, rel=1e-3), name  # other machines round otherwise


def test_a_folder_of_a_newer_format_is_refused_in_one_line(run):
    path = run / "config.json"
    path.write_text(path.read_text().replace("{", '{"format": 99,', 1))
    with pytest.raises(RunError, match=r"has format 99, .* reads 4 and older; install the newer"):
        modsync_jax.load(run)
