"""Runs of problems with unknowns: settings, files, sweeps, masks."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import modsync_jax
from modsync_jax import problems, sweeps
from modsync_jax.calculus import partials
from modsync_jax.networks import MLP
from modsync_jax.problems import Unknown, UnknownField
from modsync_jax.training import ConfigError, TrainConfig

SMALL = {
    "width": 6, "depth": 2, "points": {"residual": 16}, "chunk": 5, "eval_every": 5,
    "checkpoint_every": 5, "progress": False, "report": False,
}  # fmt: skip
UNKNOWN = Unknown(2.5, low=1.0, truth=3.0)


def test_settings_hold_an_unknown_as_text():
    config = TrainConfig(coefficients={"frequency": UNKNOWN, "speed": 2.0})
    text = "unknown(start=2.5,low=1.0,truth=3.0)"
    assert config.coefficients == {"frequency": text, "speed": 2.0}
    assert TrainConfig.from_stored(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.long
def test_a_coefficient_by_name_is_unknown_and_the_run_resumes(tmp_path):
    coefficients = {"frequency": UNKNOWN}
    settings = {**SMALL, "coefficients": coefficients, "output_dir": tmp_path / "run"}
    first = modsync_jax.solve("poisson1d", steps=5, **settings)
    assert first.metrics[0]["unknown/frequency"] == pytest.approx(2.5)
    again = modsync_jax.solve("poisson1d", steps=10, resume=True, **settings)
    unbroken = modsync_jax.solve("poisson1d", steps=10, **SMALL, coefficients=coefficients)
    assert again.metrics == unbroken.metrics
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["coefficients"]
    assert stored == {"frequency": str(UNKNOWN)}
    # The problem itself is the same run.
    problem = problems.get("poisson1d", **coefficients)
    given = modsync_jax.solve(problem, steps=10, **SMALL)
    assert given.unknowns == unbroken.unknowns
    # The reference is that of the truth.
    known = modsync_jax.solve("poisson1d", steps=5, **SMALL, coefficients={"frequency": 3.0})
    assert first.metrics[0]["test/relative_l2"] == known.metrics[0]["test/relative_l2"]
    assert known.result["truths"] == {} and first.result["truths"] == {"frequency": 3.0}


def test_a_text_that_is_no_unknown_is_one_line():
    with pytest.raises(ConfigError, match="frequency is 'fast'; it must be a number, or unknown"):
        modsync_jax.solve("poisson1d", coefficients={"frequency": "fast"}, **SMALL)


@pytest.mark.slow
def test_replicas_of_a_sweep_find_an_unknown_as_single_runs_do(tmp_path, x64):
    settings = {**SMALL, "dtype": "float64", "coefficients": {"frequency": UNKNOWN}, "steps": 5}
    del settings["report"], settings["progress"]
    table = sweeps.sweep(
        "poisson1d", ["sum"], {"seed": [0, 1], "learning_rate": [1e-3, 1e-2]},
        output_dir=tmp_path / "sweep", progress=False, **settings,
    )  # fmt: skip
    single = modsync_jax.solve("poisson1d", "sum", seed=1, learning_rate=1e-2, **settings)
    (row,) = [r for r in table if (r["seed"], r["learning_rate"]) == (1, 1e-2)]
    assert row["unknown_frequency"] == pytest.approx(single.unknowns["frequency"], rel=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("method", ["modsync+dcgd", "magnitude(keep=0.5,steps=4,every=1)+sum"])
def test_the_network_of_a_field_is_never_masked(method):
    problem = problems.Problem(
        name="source", domain=problems.get("poisson1d").domain,
        residual=lambda u, x, f: {"pde": partials(u, x, "xx")[0] - f(x)},
        conditions={"left": problems.value("x=0", 0.0)}, points={"residual": 16, "left": 1},
        unknowns={"f": UnknownField(MLP(width=6, depth=2), of="x")},
    )  # fmt: skip
    settings = {"learning_rate": 1e-2, "threshold_learning_rate": 1e-2}
    u = modsync_jax.solve(problem, method, steps=20, selection="loss", **SMALL, **settings)
    cut = {part: any(np.any(w == 0) for w in jax.tree.leaves(u.params[part])) for part in u.params}
    assert cut == {"network": True, "unknowns": False}
