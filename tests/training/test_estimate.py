"""The error of a solution without a reference."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import modsync_jax
from modsync_jax import networks, problems
from modsync_jax.training import TrainConfig, _estimate, _losses, _step
from modsync_jax.training._state import cast

SMALL = {"width": 8, "depth": 1, "activation": "tanh", "chunk": 10, "eval_every": 10}
RECIPE = {"preset": "best", "then": "ssbroyden:60", "time_limit": 0.0, **SMALL}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heat", "cavity_stream"])
def test_it_is_the_change_by_a_step_of_least_squares(name, x64):
    problem, network = problems.get(name), networks.MLP(width=4, depth=1)
    network = dataclasses.replace(network, outputs=len(problem.outputs))
    losses = _losses.build(problem, network, TrainConfig(points={"residual": 100}), lambda x: x)
    params = _step.random_params(problem, network, jax.random.key(3), np.float64)
    params = cast(params, np.float64)
    found = float(jax.jit(_estimate.build(problem, losses))(params))

    batch = losses.sample(jax.random.key(0), _estimate.TIMES, np.float64)
    r, jacobian = map(np.asarray, losses.jacobian(params, batch))
    counts = {"residual": _estimate.POINTS}
    points = problem.sample(jax.random.key(1), counts, "uniform", np.float64)["residual"]
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def values(flat):
        u, unknowns = losses.fields(unravel(flat))
        return problem.observed(u, unknowns, points).ravel()

    # The same least-squares problem by its singular values, damped by further rows.
    damping = np.sqrt(_estimate.DAMPING * np.sum(jacobian**2))
    tall = np.vstack([jacobian, damping * np.eye(flat.size)])
    step, *_ = np.linalg.lstsq(tall, np.concatenate([r, np.zeros(flat.size)]), rcond=None)
    change = np.asarray(jax.jacfwd(values)(flat)) @ step
    wanted = np.linalg.norm(change) / np.linalg.norm(values(flat))
    # The normal equations square the condition, which the damping holds at 1e10.
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [30, 120])
def test_it_follows_the_error_while_a_network_learns(steps, x64):
    settings = {**RECIPE, "then": f"ssbroyden:{steps}"}
    solution = modsync_jax.solve("poisson1d", **settings, progress=False)
    error = solution.result["errors"]["relative_l2"]["selected"]
    assert 0.1 < solution.result["estimate"]["relative_l2"] / error < 10


@pytest.mark.long
def test_result_report_and_progress_show_it_and_a_resumed_run_has_the_same(tmp_path, capsys, x64):
    settings = {**RECIPE, "checkpoint_every": 20}
    whole = modsync_jax.solve("poisson1d", output_dir=tmp_path / "a", **settings)
    stored = json.loads((tmp_path / "a" / "result.json").read_text())["estimate"]
    assert stored == whole.result["estimate"]
    problem, config = problems.get("poisson1d"), TrainConfig.from_settings(settings)
    losses = _losses.build(problem, whole.network, config, lambda x: x)  # without the balance
    wanted = jax.jit(_estimate.build(problem, losses))(whole.params)
    np.testing.assert_allclose(stored["relative_l2"], wanted, rtol=1e-4)  # as above
    page = (tmp_path / "a" / "report.html").read_text()
    assert "error without a reference" in page and stored["reliability"] in page
    assert "estimated " in capsys.readouterr().err
    quiet = {**settings, "output_dir": tmp_path / "b", "progress": False, "report": False}
    modsync_jax.solve("poisson1d", **{**quiet, "then": "ssbroyden:40"})
    resumed = modsync_jax.solve("poisson1d", resume=True, **quiet)
    assert resumed.result["estimate"] == whole.result["estimate"]


@pytest.mark.parametrize(
    ("then", "size", "dtype", "possible"),
    [
        ("ssbroyden:20", 5_000, np.float64, True),
        ("adam:10,gauss-newton:20", 5_000, np.float64, True),
        ("ssbroyden:20", 5_001, np.float64, False),
        ("adam:10,ssbroyden:20", 10, np.float32, False),  # while Adam trains
        ("lbfgs(dtype=float64):20", 10, np.float64, False),
        ("ssbroyden:10,adam:10", 10, np.float64, False),
        ("gauss-newton(cg=5):5", 10, np.float64, False),
    ],
)
def test_runs_have_one_that_end_with_matrices_in_float64(then, size, dtype, possible):
    config = TrainConfig.from_settings({"then": then})
    params = {"a": np.zeros(size - 3, dtype), "b": np.zeros((1, 3), dtype)}
    assert _estimate.possible(config, params) is possible
