"""Training end to end, in this process, on problems small enough to be solved for real."""

import csv
import json
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import modsync_jax
from modsync_jax import aggregators, balancing, problems, training
from modsync_jax.calculus import partials
from modsync_jax.problems import Problem, data, value
from modsync_jax.sampling import box
from modsync_jax.training import ConfigError, Interrupted, NonFinite, RunError, _loop, _step
from modsync_jax.training._progress import describe
from modsync_jax.training._solution import field_of

TINY = {"width": 8, "depth": 1, "chunk": 5, "eval_every": 10, "checkpoint_every": 20}


def poisson(**changes):
    """u'' = -sin x on [0, 3], solved by sin x."""

    def residual(u, x):
        (u_xx,) = partials(u, x, "xx")
        return {"pde": u_xx + jnp.sin(x[0])}

    conditions = {"left": value("x=0", 0.0), "right": value("x=3", jnp.sin(3.0))}
    defaults = {
        "name": "poisson",
        "domain": box(x=(0, 3)),
        "residual": residual,
        "conditions": conditions,
        "points": {"residual": 32, "left": 1, "right": 1},
        "reference": np.sin,
    }
    return Problem(**{**defaults, **changes})


def flat(params):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


@pytest.mark.long
@pytest.mark.parametrize(
    "method", [pytest.param("sum", marks=pytest.mark.slow), "dcgd", "modsync+config"]
)
def test_methods_solve_a_poisson_equation(method):
    solution = modsync_jax.solve(
        poisson(), method, width=16, depth=2, steps=1000, learning_rate=5e-3, schedule="cosine",
        then="lbfgs:100", eval_every=100, progress=False,
    )  # fmt: skip
    # A small network with 1100 steps reaches 1e-3 and less; 1e-2 leaves room for other platforms.
    assert solution.result["errors"]["relative_l2"]["selected"] < 1e-2
    x = np.linspace(0, 3, 50)[:, None]
    assert np.linalg.norm(solution(x) - np.sin(x)) / np.linalg.norm(np.sin(x)) < 1e-2


@pytest.mark.long
def test_a_run_is_a_folder_that_agrees_with_what_solve_returned(tmp_path):
    run = tmp_path / "run"
    solution = modsync_jax.solve(
        poisson(), "modsync+dcgd", steps=45, output_dir=run, progress=False, **TINY
    )
    result = json.loads((run / "result.json").read_text())
    assert result == solution.result
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == [0, 10, 20, 30, 40, 45]
    for name in ("loss/boundary", "grad_norm/residual", "cosine/boundary~residual", "keep",
                 "keep/Dense_0/kernel", "threshold/boundary/Dense_1/kernel"):  # fmt: skip
        assert all(np.isfinite(float(row[name])) for row in rows), name
    errors = [float(row["test/relative_l2"]) for row in rows]
    scores = [float(row["validation/relative_l2"]) for row in rows]
    selected = int(np.argmin(scores))
    assert result["selected_step"] == int(rows[selected]["step"])
    assert result["errors"]["relative_l2"] == {
        "selected": errors[selected],
        "smallest": min(errors),
        "final": errors[-1],
        "median_of_last_ten": np.median(errors),
    }
    assert (run / "report.html").stat().st_size > 10_000
    x = np.linspace(0, 3, 7)[:, None]
    loaded = modsync_jax.load(run)
    np.testing.assert_array_equal(loaded(x), solution(x))
    np.testing.assert_array_equal(flat(loaded.trained), flat(solution.trained))
    grid = np.load(run / "solution.npz")
    np.testing.assert_allclose(grid["prediction"], solution(grid["points"]), rtol=1e-6)


@pytest.mark.long
def test_the_selected_network_has_the_error_that_the_result_states():
    solution = modsync_jax.solve(poisson(), steps=45, progress=False, **TINY)
    arrays = training.on_grid(poisson(), solution)
    off = np.linalg.norm(arrays["prediction"] - arrays["reference"])
    stated = solution.result["errors"]["relative_l2"]["selected"]
    # one float32 evaluation against another of the same values
    assert off / np.linalg.norm(arrays["reference"]) == pytest.approx(stated, rel=1e-4)


@pytest.mark.long
def test_errors_are_those_of_what_the_problem_observes():
    """The reference is the slope, cos x, which the network does not return."""

    def observe(u, x, c):
        values, u_x = partials(u, x, "", "x")
        return {"slope": u_x, "scaled": c * values}

    def residual(u, x, c):
        (u_xx,) = partials(u, x, "xx")
        return {"pde": u_xx + c * jnp.sin(x[0])}

    def reference(points):
        return np.concatenate([np.cos(points), np.sin(points)], axis=1)

    problem = poisson(residual=residual, observe=observe, reference=reference, unknowns={"c": 1.0})
    solution = modsync_jax.solve(problem, steps=45, progress=False, **TINY)
    arrays = training.on_grid(problem, solution, (60,))
    assert list(arrays["outputs"]) == ["slope", "scaled"]
    x = arrays["points"]
    np.testing.assert_array_equal(arrays["reference"], reference(x))
    h = 1e-2
    slope = (np.asarray(solution(x + h)) - np.asarray(solution(x - h))) / (2 * h)
    # Differences: float32 roundings over 2h, and h² of a third derivative of order 1.
    np.testing.assert_allclose(arrays["prediction"][:, :1], slope, atol=2e-4)
    c = solution.params["unknowns"]["c"]
    # The network's own derivatives add in another order: float32 roundings of values up to 2.
    np.testing.assert_allclose(arrays["prediction"][:, 1:], c * solution(x), atol=2e-6)
    on_test_grid = training.on_grid(problem, solution)
    off = on_test_grid["prediction"] - on_test_grid["reference"]
    stated = solution.result["errors"]["relative_l2"]["selected"]
    relative = np.linalg.norm(off) / np.linalg.norm(on_test_grid["reference"])
    # one float32 evaluation against another of the same values
    assert relative == pytest.approx(stated, rel=1e-4)


@pytest.mark.long
def test_a_solution_is_a_field_also_when_it_is_loaded(tmp_path):
    solution = modsync_jax.solve(
        poisson(), steps=5, output_dir=tmp_path / "run", progress=False, report=False, **TINY
    )
    loaded = modsync_jax.load(tmp_path / "run")
    point = jnp.array([0.7])
    for one in (solution, loaded):
        values, slope = partials(one.field, point, "", "x")
        np.testing.assert_allclose(values, one(point[None])[0], atol=2e-6)  # roundings, as above
        expected = jax.jacobian(lambda x, one=one: one(x[None])[0])(point)[:, 0]
        np.testing.assert_allclose(slope, expected, atol=1e-5)


@pytest.mark.long
def test_every_condition_can_be_an_objective_of_its_own():
    solution = modsync_jax.solve(
        poisson(), "modsync+config", objectives="each", steps=10, progress=False, **TINY
    )
    names = [n.removeprefix("loss/") for n in solution.metrics[0] if n.startswith("loss/")]
    assert names == ["left", "residual", "right"]
    thresholds = jax.tree.leaves(solution.trained.thresholds)
    assert all(threshold.shape[0] == 3 for threshold in thresholds)


@pytest.mark.long
@pytest.mark.parametrize(
    "method", ["ntk+sum", pytest.param("modsync+lra+dcgd", marks=pytest.mark.slow)]
)
def test_every_equation_can_be_an_objective_of_its_own(method):
    """With the cavity's three equations, the methods train four objectives."""
    u = modsync_jax.solve(
        "cavity_velocity", method, objectives="natural", steps=10, progress=False, **TINY,
        points={"residual": 8},
    )  # fmt: skip
    columns = {name for name in u.metrics[-1] if name.startswith("loss/")}
    equations = {f"loss/residual.{name}" for name in ("momentum_x", "momentum_y", "mass")}
    assert columns == {"loss/boundary", *equations}
    row = u.metrics[-1]
    assert sum(row[name] for name in equations) == pytest.approx(row["term/residual"], rel=1e-5)


@pytest.mark.long
def test_one_threshold_can_be_shared():
    solution = modsync_jax.solve(
        poisson(), "modsync+dcgd", shared_threshold=True, steps=10, progress=False, **TINY
    )
    assert all(len(t) == 1 for t in jax.tree.leaves(solution.trained.thresholds))
    assert "threshold/all/Dense_0/kernel" in solution.metrics[-1]


@pytest.mark.slow
def test_an_unknown_coefficient_is_found_from_data():
    """u'' + c u = 0 with c = 1 from measurements of sin x."""

    def residual(u, x, c):
        u_0, u_xx = partials(u, x, "", "xx")
        return {"pde": u_xx + c * u_0}

    x = np.linspace(0, 3, 30)[:, None]
    problem = Problem(
        name="inverse", domain=box(x=(0, 3)), residual=residual, unknowns={"c": 0.2},
        conditions={"measured": data(x, np.sin(x))}, points={"residual": 32},
    )  # fmt: skip
    solution = modsync_jax.solve(
        problem, "dcgd", width=16, depth=2, steps=1500, learning_rate=1e-2, schedule="cosine",
        then="lbfgs:50", eval_every=500, progress=False,
    )  # fmt: skip
    # The data are exact; 2% is what 1500 steps of a small network leave room for.
    assert solution.result["unknowns"]["c"] == pytest.approx(1.0, abs=0.02)
    assert solution.unknowns == solution.result["unknowns"]
    assert f"c = {solution.unknowns['c']:.4g}" in repr(solution)
    assert len(repr(solution).splitlines()) == 3
    rows = [row["unknown/c"] for row in solution.metrics]
    assert rows[0] == pytest.approx(0.2) and rows[-1] == pytest.approx(1.0, abs=0.02)
    assert "loss/measured" in solution.metrics[0]  # an objective of its own name
    assert "c 0.2" in describe(solution.metrics[0])


@pytest.mark.slow
def test_polishing_keeps_pruned_weights_at_zero_and_lowers_the_loss():
    settings = {**TINY, "steps": 60, "threshold_learning_rate": 3e-3, "sparsity_weight": 1e-2}
    rough = modsync_jax.solve(poisson(), "modsync+dcgd", progress=False, **settings)
    polished = modsync_jax.solve(
        poisson(), "modsync+dcgd", then="lbfgs:40", progress=False, **settings
    )
    rows = {row["step"]: row for row in polished.metrics}
    assert rows[60] == rough.metrics[-1]
    assert 0 < rows[60]["keep"] < 1, "the test needs some, not all, weights pruned"
    assert rows[100]["keep"] <= rows[60]["keep"]
    assert rows[100]["loss"] < 0.5 * rows[60]["loss"]


@pytest.mark.long
def test_a_network_of_the_user_s_own(tmp_path):
    class Wide(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(jnp.sin(nn.Dense(12)(x)))

    run = tmp_path / "run"
    settings = {k: v for k, v in TINY.items() if k not in ("width", "depth")}
    solution = modsync_jax.solve(
        poisson(), network=Wide(), steps=10, output_dir=run, progress=False, **settings
    )
    x = np.zeros((2, 1))
    np.testing.assert_array_equal(modsync_jax.load(run, network=Wide())(x), solution(x))
    with pytest.raises(RunError, match="network of its own"):
        modsync_jax.load(run)


@pytest.mark.long
def test_float64_runs_in_float64(x64):
    solution = modsync_jax.solve(poisson(), dtype="float64", steps=10, progress=False, **TINY)
    assert {leaf.dtype for leaf in jax.tree.leaves(solution.trained)} == {np.dtype("float64")}


def test_float64_without_64_bit_types_says_what_to_do():
    with pytest.raises(ConfigError, match="jax_enable_x64"):
        modsync_jax.solve(poisson(), dtype="float64", steps=10, progress=False, **TINY)


@pytest.mark.long
def test_seeds_differ_and_repeat():
    def run(seed):
        return flat(
            modsync_jax.solve(poisson(), steps=10, seed=seed, progress=False, **TINY).trained
        )

    np.testing.assert_array_equal(run(0), run(0))
    assert np.abs(run(0) - run(1)).max() > 1e-3


@pytest.mark.long
def test_fixed_loss_weights_scale_their_objective():
    def first(**weights):
        return modsync_jax.solve(
            poisson(), "sum", loss_weights=weights, steps=5, progress=False, **TINY
        ).metrics[0]

    plain, weighted = first(), first(boundary=10.0)
    assert weighted["loss/boundary"] == pytest.approx(10 * plain["loss/boundary"], rel=1e-6)
    assert weighted["loss/residual"] == plain["loss/residual"]


@pytest.mark.long
def test_a_non_finite_loss_stops_with_the_last_good_state_saved(tmp_path):
    def residual(u, x, c):
        return {"pde": u(x) + jnp.log(c) + 5.0}  # the first step of plain descent makes c negative

    run = tmp_path / "run"
    problem = poisson(residual=residual, unknowns={"c": 1.0})
    settings = {**TINY, "optimizer": "sgd", "learning_rate": 1.0}
    with pytest.raises(NonFinite, match="step 1: loss 'residual' is nan") as said:
        modsync_jax.solve(problem, "sum", steps=50, output_dir=run, progress=False, **settings)
    assert "'pde' of residual is nan at x=" in str(said.value)
    assert "(32 of 32 points of the batch)" in str(said.value)
    saved = modsync_jax.load(run)
    assert np.isfinite(flat(saved.trained)).all()


@pytest.mark.long
def test_nan_at_the_start_names_the_equation_and_the_point_instead_of_a_smaller_rate():
    def residual(u, x):
        (u_x,) = partials(u, x, "x")
        return {"flow": u_x + jnp.where(x > 1.0, jnp.nan, 0.0)}

    with pytest.raises(NonFinite, match="step 0: loss 'residual' is nan") as said:
        modsync_jax.solve(poisson(residual=residual), steps=10, progress=False, **TINY)
    assert re.search(r"'flow' of residual is nan at x=[12]\.\d", str(said.value))
    assert "see whether the equation or a condition can be computed there" in str(said.value)
    assert "learning_rate" not in str(said.value)


@pytest.mark.long
def test_a_non_finite_gradient_of_finite_losses_is_caught_too():
    def residual(u, x):
        return {"pde": jnp.sqrt(jnp.abs(0.0 * u(x)))}  # 0, with the derivative 0 · inf

    with pytest.raises(NonFinite, match="step 0: all losses are finite, but the update is not"):
        modsync_jax.solve(poisson(residual=residual), steps=10, progress=False, **TINY)


@pytest.mark.long
def test_coefficients_are_part_of_a_run(tmp_path):
    run = tmp_path / "run"

    def solve(problem, **coefficients):
        return modsync_jax.solve(
            problem, "sum", steps=5, output_dir=run, resume=run.exists(), progress=False,
            report=False, coefficients=coefficients, **TINY,
        )  # fmt: skip

    solution = solve("poisson1d", frequency=3)
    grid = np.load(run / "solution.npz")
    # The reference is computed in float64 from the grid's points; a few roundings.
    np.testing.assert_allclose(grid["reference"], np.sin(3 * grid["points"]), atol=1e-15)
    other = r"another configuration: coefficients=\{'frequency': 3\} \(not \{"
    for frequency in ({}, {"frequency": 4.0}):
        with pytest.raises(RunError, match=other):
            solve("poisson1d", **frequency)
    with pytest.raises(ConfigError, match=r"for a problem by name.*make 'poisson' with c"):
        solve(poisson(), c=2.0)
    with pytest.raises(ConfigError, match="unknown coefficient of poisson1d 'frequenzy'"):
        solve("poisson1d", frequenzy=3.0)
    # A problem given as an object has them in it: the same run.
    again = solve(problems.get("poisson1d", frequency=np.float32(3)))
    assert again.result == solution.result


@pytest.mark.long
def test_a_run_from_before_there_were_coefficients_goes_on(tmp_path):
    run = tmp_path / "run"
    settings = {"output_dir": run, "progress": False, "report": False, "steps": 5, **TINY}
    solution = modsync_jax.solve("poisson1d", "sum", **settings)
    config = json.loads((run / "config.json").read_text())
    assert config.pop("coefficients") == {} and config.pop("format") == training.FORMAT
    (run / "config.json").write_text(json.dumps(config))
    assert training.read_config(run)["coefficients"] == {}
    again = modsync_jax.solve("poisson1d", "sum", resume=True, **settings)
    assert again.result == solution.result
    with pytest.raises(RunError, match="coefficients="):
        modsync_jax.solve(
            "poisson1d", "sum", resume=True, coefficients={"frequency": 3.0}, **settings
        )


@pytest.mark.long
def test_mistakes_leave_everything_as_it_was(tmp_path):
    run = tmp_path / "run"
    modsync_jax.solve(poisson(), steps=10, output_dir=run, progress=False, **TINY)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def fails(error, match, **arguments):
        with pytest.raises(error, match=match) as info:
            modsync_jax.solve(**{"problem": poisson(), "output_dir": run, **TINY, **arguments})
        assert "\n" not in str(info.value)

    fails(RunError, "exists and is not empty", steps=10)
    fails(RunError, r"another configuration: width=8 \(not 9\)", steps=10, resume=True, width=9)
    fails(RunError, "holds no run", output_dir=tmp_path / "none", resume=True)
    fails(RunError, "Not a directory", output_dir=run / "config.json" / "x")
    fails(ConfigError, "did you mean 'burgers'", problem="burger")
    fails(ConfigError, "did you mean 'residual'", points={"residal": 3})
    fails(ConfigError, "did you mean 'boundary'", loss_weights={"boundry": 3.0})
    with pytest.raises(RunError, match=r"holds no config\.json"):
        modsync_jax.load(tmp_path)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert not (tmp_path / "none").exists()


@pytest.mark.long
def test_a_network_is_evaluated_in_full_float32_on_every_platform():
    """Against NumPy in float64: TF32 products would be off by 1e-3, float32 ones are by 1e-6."""
    solution = modsync_jax.solve(
        poisson(), "sum", width=64, depth=3, steps=5, progress=False, chunk=5, eval_every=5
    )
    layers = solution.params["network"]["params"]
    x = np.linspace(0, 3, 200)[:, None]
    h = x
    for index in range(4):
        layer = layers[f"Dense_{index}"]
        h = h @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        h = np.tanh(h) if index < 3 else h
    assert np.abs(solution(x) - h).max() < 1e-5 * np.abs(h).max()


# --- longer runs, own transformations -------------------------------------------------------------


def outcome(result):
    """What is reproducible of a result."""
    return {k: v for k, v in result.items() if k not in ("timing", "device", "versions")}


@pytest.mark.long
@pytest.mark.parametrize(
    "schedule", [pytest.param("constant", marks=pytest.mark.slow), "exponential"]
)
def test_a_run_that_is_made_longer_is_an_unbroken_longer_run(schedule, tmp_path):
    settings = {**TINY, "schedule": schedule, "decay_steps": 10, "progress": False}
    whole = modsync_jax.solve(poisson(), "lra", steps=60, output_dir=tmp_path / "whole", **settings)
    run = tmp_path / "run"
    modsync_jax.solve(poisson(), "lra", steps=20, output_dir=run, **settings)
    short = (run / "report.html").read_text()
    longer = modsync_jax.solve(poisson(), "lra", steps=60, output_dir=run, resume=True, **settings)
    np.testing.assert_array_equal(flat(longer.trained), flat(whole.trained))
    assert outcome(longer.result) == outcome(whole.result)
    assert (run / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()
    assert (run / "report.html").read_text() != short
    with pytest.raises(
        RunError, match=r"run of steps=60; its phases can be longer, .* but steps=40 has others"
    ):
        modsync_jax.solve(poisson(), "lra", steps=40, output_dir=run, resume=True, **settings)


@pytest.mark.slow
def test_a_phase_can_be_longer_but_no_step_comes_before_it(tmp_path):
    settings = {**TINY, "steps": 20, "progress": False, "report": False}
    run = {"output_dir": tmp_path / "run", **settings}
    modsync_jax.solve(poisson(), "dcgd", then="lbfgs:10", **run)
    longer = modsync_jax.solve(poisson(), "dcgd", then="lbfgs:20", resume=True, **run)
    whole = modsync_jax.solve(poisson(), "dcgd", then="lbfgs:20", **settings)
    np.testing.assert_array_equal(flat(longer.trained), flat(whole.trained))
    run["steps"] = 40
    with pytest.raises(RunError, match="has come to phase 2, after 20 steps; only its later"):
        modsync_jax.solve(poisson(), "dcgd", then="lbfgs:20", resume=True, **run)


@pytest.mark.long
def test_a_schedule_that_depends_on_the_length_says_what_happens(tmp_path, capsys):
    run = {**TINY, "output_dir": tmp_path / "run", "schedule": "cosine", "progress": False}
    modsync_jax.solve(poisson(), "dcgd", steps=10, report=False, **run)
    assert "cosine" not in capsys.readouterr().err
    modsync_jax.solve(poisson(), "dcgd", steps=20, report=False, resume=True, **run)
    assert "now ends at step 20, not 10: the rate rises again" in capsys.readouterr().err


@pytest.mark.long
def test_transformations_may_be_objects(tmp_path):
    settings = {**TINY, "steps": 20, "learning_rate": 2e-3, "progress": False, "report": False}
    named = modsync_jax.solve(poisson(), "norm+cagrad(c=0.3)", optimizer="sgd", **settings)
    tx = optax.chain(balancing.norm_balance(2), aggregators.cagrad(0.3))
    own = {"optimizer": optax.sgd(2e-3), "output_dir": tmp_path / "run", **settings}
    mine = modsync_jax.solve(poisson(), tx, **own)
    np.testing.assert_array_equal(flat(mine.trained), flat(named.trained))
    assert mine.result["method"] == "own" and "learning_rate" not in mine.metrics[0]
    again = modsync_jax.solve(poisson(), tx, resume=True, **own)
    np.testing.assert_array_equal(flat(again.trained), flat(mine.trained))
    with pytest.raises(ConfigError, match="optimizer is of type float; it must be a name or an"):
        modsync_jax.solve(poisson(), optimizer=0.1, **settings)


def test_a_hyperparameter_out_of_range_is_one_line():
    with pytest.raises(ConfigError, match=r"c is -1; it must be between 0 and inf"):
        modsync_jax.solve(poisson(), "cagrad(c=-1)", steps=10, **TINY)


@pytest.mark.long
def test_a_network_is_selected_by_its_unweighted_loss_without_a_reference():
    """With a small weight the total loss is small whatever the network."""
    settings = {"steps": 40, "learning_rate": 0.03, "loss_weights": {"residual": 1e-9}, **TINY}
    solution = modsync_jax.solve(poisson(reference=None), "sum", progress=False, **settings)
    assert solution.result["errors"] is None
    unweighted = [row["score"] for row in solution.metrics]
    assert solution.result["score"] == min(unweighted)
    best = int(np.argmin(unweighted))
    assert solution.result["selected_step"] == solution.metrics[best]["step"]
    assert best != int(np.argmin([row["loss"] for row in solution.metrics]))


@pytest.mark.long
def test_cosines_are_means_over_the_training_batches_since_the_row_before():
    """By hand, from the gradients of the same batches at the same parameters."""
    problem = poisson()
    settings = {"width": 4, "depth": 1, "chunk": 1, "eval_every": 1, "checkpoint_every": 1}
    config = training.TrainConfig(method="dcgd", steps=6, **settings)
    network = _step.network_of(problem, config)
    program = _step.build(problem, network, config)
    objectives = problem.objectives(
        lambda p: (field_of(network, ("x",), p["network"]), p["unknowns"])
    )
    state, cosines, norms_of = program.init(0), [], []
    for step in range(6):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(state.key), 1), step)
        batch = problem.sample(key)
        grads = [flat(jax.grad(objectives[n])(state.params, batch)) for n in sorted(objectives)]
        norms = [np.linalg.norm(g) for g in grads]
        cosines.append(grads[0] @ grads[1] / norms[0] / norms[1])
        norms_of.append(norms)
        state = program.advance(state, 0, 1)
    _, row = program.evaluate(state, {})
    name = "boundary~residual"
    assert row["batches"] == 6
    np.testing.assert_allclose(row[f"cosine/{name}"], np.mean(cosines), atol=1e-5)  # float32
    np.testing.assert_allclose(row[f"opposed/{name}"], np.mean(np.array(cosines) < 0), atol=1e-6)
    assert 0 < np.mean(np.array(cosines) < 0) < 1 or np.std(cosines) > 1e-3
    # A chunk of one step takes the measures in every step.
    ratios = [max(n) / min(n) for n in norms_of]
    np.testing.assert_allclose(row["norm_ratio"], np.mean(ratios), rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("method", ["sum", "modsync+adapters+dcgd"])
def test_chosen_measures_are_columns_of_rows_results_and_reports(method, tmp_path):
    settings = {"measures": "layer_cosine, metric_cosine,interaction", "steps": 20}
    solution = modsync_jax.solve(
        poisson(), method, output_dir=tmp_path, progress=False, **{**TINY, **settings}
    )
    for name in ("layer_cosine/boundary~residual/network/params/Dense_0/kernel",
                 "metric_cosine/boundary~residual", "interaction/residual>boundary"):  # fmt: skip
        values = [row[name] for row in solution.metrics]
        assert np.isfinite(values).all() and name in solution.result["measured"]
        assert min(values) <= solution.result["measured"][name] <= max(values)
    assert "norm_ratio" not in solution.result["measured"]
    assert (tmp_path / "figures" / "measures.png").exists()
    assert "points that feel the other" in (tmp_path / "report.html").read_text()


def test_an_unknown_measure_is_one_line():
    with pytest.raises(ConfigError, match=r"'aligment'.*did you mean 'alignment'"):
        training.TrainConfig(measures="aligment")


@pytest.mark.long
def test_a_report_that_can_not_be_written_is_one_line_and_the_run_is_kept(tmp_path):
    run = {**TINY, "output_dir": tmp_path / "run", "steps": 10, "progress": False}
    solution = modsync_jax.solve(poisson(), "sum", report=False, **run)
    (tmp_path / "run" / "figures").write_text("in the way")
    with pytest.raises(RunError, match=r"can't write to .*run: File exists; make room or choose"):
        modsync_jax.solve(poisson(), "sum", resume=True, **run)
    np.testing.assert_array_equal(
        flat(modsync_jax.load(run["output_dir"]).params), flat(solution.params)
    )


@pytest.mark.long
def test_a_relu_network_is_a_warning(capsys):
    modsync_jax.solve(poisson(), "sum", steps=5, activation="relu", progress=False, **TINY)
    assert "a relu network has no second derivatives" in capsys.readouterr().err


def test_a_network_too_large_for_the_memory_is_refused_before_it_starts(tmp_path):
    settings = {**TINY, "steps": 5, "progress": False, "width": 200_000, "depth": 3}
    with pytest.raises(ConfigError, match=r"needs \d.* GiB and the device has .*smaller width"):
        modsync_jax.solve(poisson(), "sum", output_dir=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_renamed_settings_name_their_new_name():
    with pytest.raises(ConfigError, match="the setting chunk_points is called block_points now"):
        modsync_jax.solve(poisson(), "sum", chunk_points=3)
    with pytest.raises(ConfigError, match="objectives=paper is called objectives=grouped now"):
        modsync_jax.solve(poisson(), "sum", objectives="paper")


@pytest.mark.long
def test_a_signal_while_the_first_state_is_made_stops_the_run_before_its_first_step(
    tmp_path, monkeypatch
):
    """An exception could be lost there, in a callback of JAX, whose errors Python ignores."""
    begin = _loop._start

    def interrupted(*given):
        signal.raise_signal(signal.SIGINT)
        return begin(*given)

    monkeypatch.setattr(_loop, "_start", interrupted)
    with pytest.raises(Interrupted, match="stopped at step 0 of 20"):
        modsync_jax.solve(poisson(), "sum", steps=20, output_dir=tmp_path, progress=False, **TINY)
    monkeypatch.undo()
    settings = {"steps": 20, "output_dir": tmp_path, "progress": False, **TINY}
    assert modsync_jax.solve(poisson(), "sum", resume=True, **settings).result["steps"] == 20
