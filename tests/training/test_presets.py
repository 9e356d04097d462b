"""Presets, the limit of time, and selection by the loss."""

import dataclasses

import numpy as np
import pytest

import modsync_jax
from modsync_jax import sweeps
from modsync_jax.training import PRESETS, ConfigError, TrainConfig, read_metrics

TINY = {"width": 6, "depth": 1, "chunk": 5, "eval_every": 10, "checkpoint_every": 10}
QUIET = {"progress": False, "report": False}


@pytest.mark.parametrize("name", PRESETS)
def test_settings_that_are_given_replace_those_of_a_preset(name):
    config = TrainConfig.from_settings({"preset": name, "width": 7})
    assert config.width == 7
    others = {n: v for n, v in PRESETS[name].items() if n != "width"}
    assert {n: getattr(config, n) for n in others} == others
    assert config != TrainConfig(width=7)


def test_an_unknown_preset_names_the_nearest_one():
    with pytest.raises(ConfigError, match="unknown preset 'bets'; did you mean 'best'"):
        TrainConfig.from_settings({"preset": "bets"})


@pytest.mark.slow
def test_a_preset_is_stored_as_the_settings_that_it_stands_for(tmp_path):
    changed = {"time_limit": 1e-3, "then": "lbfgs:20", "dtype": "float32", **TINY}
    solution = modsync_jax.solve(
        "poisson1d", preset="best", output_dir=tmp_path, **changed, **QUIET
    )
    stored = TrainConfig.from_stored(modsync_jax.training.read_config(tmp_path))
    wanted = TrainConfig.from_settings({"preset": "best", **changed})
    mine = {f.name: getattr(wanted, f.name) for f in dataclasses.fields(wanted)}
    assert {name: getattr(stored, name) for name in mine} == mine | {
        "coefficients": stored.coefficients
    }
    assert solution.result["scored_by"] == "unweighted loss"


@pytest.mark.long
def test_a_limit_of_time_finishes_a_run_and_a_larger_one_goes_on_to_the_same_bits(tmp_path):
    """The first chunk takes longer than the limit, because it is compiled."""
    settings = {"steps": 10, "then": "lbfgs:20", **TINY, **QUIET}
    whole = modsync_jax.solve("poisson1d", output_dir=tmp_path / "whole", **settings)
    short = tmp_path / "short"
    first = modsync_jax.solve("poisson1d", output_dir=short, time_limit=1e-3, **settings)
    assert first.result["steps"] == 5 and (short / "result.json").exists()
    assert read_metrics(short)[-1]["step"] == 5
    again = modsync_jax.solve(
        "poisson1d", output_dir=short, resume=True, time_limit=1e-3, **settings
    )
    assert again.result == first.result  # it is finished, and nothing is trained
    rest = modsync_jax.solve("poisson1d", output_dir=short, resume=True, **settings)
    assert rest.result["steps"] == whole.result["steps"] == 30
    ended = whole.metrics[-1]
    np.testing.assert_array_equal(
        [rest.metrics[-1][name] for name in ended], [ended[name] for name in ended]
    )


@pytest.mark.long
def test_the_loss_selects_if_it_is_asked_to():
    settings = {"steps": 60, "learning_rate": 0.05, **TINY, **QUIET}
    for selection, column in (("auto", "validation/relative_l2"), ("loss", "score")):
        solution = modsync_jax.solve("poisson1d", "sum", selection=selection, **settings)
        rows = solution.metrics
        scores = [row[column] for row in rows]
        assert solution.result["selected_step"] == rows[int(np.argmin(scores))]["step"]
        assert solution.result["score"] == min(scores)


@pytest.mark.parametrize(
    ("settings", "grid", "match"),
    [
        ({"time_limit": 5.0}, {}, "time_limit is 5, and the networks of a sweep"),
        ({}, {"selection": ["auto", "loss"]}, "grid: scores of different kinds"),
    ],
)
def test_sweeps_refuse_settings_that_make_their_networks_unequal(settings, grid, match, tmp_path):
    with pytest.raises(ConfigError, match=match):
        sweeps.sweep("poisson1d", ["sum"], grid, output_dir=tmp_path / "s", **settings)
    assert not (tmp_path / "s").exists()
