"""Phases: what a user writes, which points they use, what they carry, and runs made of them."""

import json
from functools import partial

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import modsync_jax
from modsync_jax import networks, problems
from modsync_jax.training import (
    ConfigError,
    RunError,
    TrainConfig,
    _losses,
    _phases,
    _schedule,
    _step,
)
from modsync_jax.training._solution import field_of
from modsync_jax.transform import export

TINY = {"width": 6, "depth": 1, "chunk": 5, "eval_every": 10, "checkpoint_every": 10}
HEAT = problems.get("heat")
NETWORK = networks.MLP(width=5, depth=1)


def flat(params):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


# --- what a user writes ---------------------------------------------------------------------------


def test_what_is_written_is_read_and_written_again():
    text = "adam(learning_rate=0.0001):200,lbfgs:30,ssbroyden(points=4,dtype=float32):6000"
    phases = _phases.parse(text)
    assert ",".join(map(str, phases)) == text == ",".join(map(str, _phases.parse([text])))
    assert [phase.steps for phase in phases] == [200, 30, 6000]
    assert phases[0].settings.learning_rate == 1e-4 and phases[0].settings.dtype == ""
    assert (phases[2].settings.points, phases[2].settings.redraw) == (4, 500)
    assert [phase.freezes for phase in phases] == [False, True, True]
    assert _phases.parse("") == () == _phases.parse([])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("lbfgs", "'lbfgs' is not name:steps"),
        ("lbfgs:0", "'lbfgs:0' is not name:steps"),
        ("lbfgs:1e3", "'lbfgs:1e3' is not name:steps"),
        ("lbfgs(8):30", r"'lbfgs\(8\):30' is not name:steps or name\(setting=value"),
        ("lbgfs:30", "unknown phase 'lbgfs'; did you mean 'lbfgs'"),
        ("lbfgs(point=8):30", "unknown setting of lbfgs 'point'; did you mean 'points'"),
        ("ssbroyden(memory=8):30", "unknown setting of ssbroyden 'memory'"),
        ("lbfgs(points=0):30", "points of lbfgs is 0; it must be a whole number of 1 or more"),
        ("lbfgs(points=1.5):30", "points of lbfgs is 1.5; it must be a whole number"),
        ("ssbroyden(rad=-1):30", "rad of ssbroyden is -1; it must be a number of 0 or more"),
        ("bfgs(dtype=float16):3", "unknown dtype of bfgs 'float16'"),
        ("gauss-newton(cg=1.5):3", "cg of gauss-newton is 1.5; it must be a whole number of 0"),
        ("gauss-newton(sketch=5):3", "sketch preconditions conjugate gradients; give cg, such as"),
        ("adam(schedule=cosin):3", "unknown schedule of adam 'cosin'; did you mean 'cosine'"),
    ],
)
def test_a_mistake_in_a_phase_is_one_line(text, match):
    with pytest.raises(ConfigError, match=f"then: {match}") as error:
        TrainConfig(then=text)
    assert "\n" not in str(error.value)


def test_a_run_needs_steps_or_phases():
    with pytest.raises(ConfigError, match="steps is 0; it must be 1 or more, or then must name"):
        TrainConfig(steps=0)
    assert TrainConfig(steps=0, then=["lbfgs:30"]).total_steps == 30


def test_settings_that_are_gone_name_the_phase():
    with pytest.raises(ConfigError, match="polish_steps is gone; use then='lbfgs"):
        modsync_jax.solve("poisson1d", polish_steps=3)


def test_a_phase_of_doubles_needs_64_bit_types():
    with pytest.raises(ConfigError, match="the phase ssbroyden runs in float64, but JAX has 64"):
        modsync_jax.solve("poisson1d", steps=5, then="ssbroyden:5", progress=False, **TINY)


def test_older_settings_of_the_polish_become_a_phase(tmp_path):
    path = tmp_path / "config.json"
    for count, then in ((30, "lbfgs(points=4):30"), (0, "")):
        older = {"format": 2, "steps": 20, "polish_steps": count, "polish_points": 4}
        path.write_text(json.dumps(older))
        read = modsync_jax.training.read_config(tmp_path)
        assert read["then"] == then and "polish_steps" not in read
        assert TrainConfig.from_stored(read).total_steps == 20 + count


# --- the schedule ---------------------------------------------------------------------------------


def test_chunks_end_where_phases_do_and_where_points_are_redrawn():
    then = "ssbroyden(redraw=8):20,adam:10"
    config = TrainConfig(steps=12, then=then, chunk=5, eval_every=10, checkpoint_every=20)
    found = list(_schedule.chunks(config))
    assert [c.end for c in found] == [5, 10, 12, 15, 20, 25, 28, 30, 32, 35, 40, 42]
    assert [c.phase for c in found] == [0] * 3 + [1] * 6 + [2] * 3
    assert [c.start for c in found if c.begins] == [0, 12, 32]
    assert [c.end for c in found if c.evaluates] == [10, 12, 20, 30, 32, 40, 42]
    assert [c.end for c in found if c.saves] == [12, 20, 32, 40, 42]
    for done in (5, 20, 25, 28, 32, 40):  # wherever a run goes on
        assert list(_schedule.chunks(config, done)) == [c for c in found if c.start >= done]
    assert [_schedule.phase_of(config, s) for s in (0, 12, 13, 32, 33, 42)] == [0, 0, 1, 1, 2, 2]
    alone = TrainConfig(steps=0, then="lbfgs:20")
    assert [_schedule.phase_of(alone, step) for step in (0, 1, 20)] == [0, 0, 0]


# --- states ---------------------------------------------------------------------------------------


@pytest.fixture
def run(x64):
    """A run of three steps and of quasi-Newton in double precision, whose points are redrawn."""
    then = "ssbroyden(points=2,redraw=4):12,adam(learning_rate=1e-4,schedule=cosine):4"
    points = {"residual": 16, "initial": 8, "left": 8, "right": 8}
    config = TrainConfig(
        method="modsync+dcgd", steps=3, then=then, points=points, chunk=4, eval_every=4,
        checkpoint_every=4, loss_weights={"boundary": 10.0},
    )  # fmt: skip
    return config, _step.compiled(_step.build(HEAT, NETWORK, config))


def pruned(state):
    """A state in which thresholds have cut some weights, but not all."""
    raised = jax.tree.map(lambda t: jnp.full_like(t, 0.3), state.params.thresholds)
    return state._replace(params=state.params._replace(thresholds=raised))


def fields_of(problem, network):
    return lambda params: (field_of(network, problem.coordinates, params["network"]), {})


def total(points, params):
    objectives = HEAT.objectives(fields_of(HEAT, NETWORK), "grouped", {"boundary": 10.0})
    return sum(objectives[name](params, points) for name in objectives)


@pytest.mark.long
def test_a_phase_has_its_dtype_its_points_and_frozen_masks(run):
    config, program = run
    first = pruned(program.advance(program.init(0), 0, 3))
    assert first.points == () and first.losses.dtype == np.float32
    masked = jax.tree.map(lambda w: np.asarray(w, np.float64), export(first.params))
    state = program.begin(first, 1)
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floats} == {np.dtype("float64")}
    jax.tree.map(np.testing.assert_array_equal, state.params.weights, masked)
    state = program.advance(state, 1, 0)  # draws the points
    assert {name: len(p) for name, p in state.points.items()} == {
        name: 2 * count for name, count in config.points.items()
    }
    start = state.points["residual"].copy()
    value, grad = jax.value_and_grad(partial(total, state.points))(state.params.weights)
    np.testing.assert_allclose(state.losses.sum(), value, rtol=1e-12)
    assert np.isinf(state.opt_state.value)  # the next line search computes it
    zero = flat(masked) == 0
    assert 0 < zero.sum() < zero.size
    assert flat(grad)[zero].any(), "the test needs pruned weights that would move"
    before = float(value)
    state = program.advance(state, 1, 4)
    np.testing.assert_array_equal(state.points["residual"], start)
    assert float(state.opt_state.value) < before and state.step == 7
    np.testing.assert_allclose(state.losses.sum(), state.opt_state.value, rtol=1e-12)
    np.testing.assert_array_equal(flat(state.params.weights)[zero], 0.0)
    assert not flat(state.params.thresholds).any()

    curvature = state.opt_state.inverse_hessian.copy()
    count = int(state.opt_state.count)
    weights = jax.tree.map(jnp.copy, state.params.weights)
    state = program.advance(state, 1, 1)
    assert not np.array_equal(state.points["residual"], start)  # redrawn after four iterations
    assert state.opt_state.count == count + 1  # and the curvature is kept
    grad = flat(jax.grad(partial(total, state.points))(weights)) * ~zero
    moved = flat(state.params.weights) - flat(weights)
    direction = -curvature @ grad  # `flat` has the order of `ravel_pytree`
    cosine = moved @ direction / np.linalg.norm(moved) / np.linalg.norm(direction)
    assert cosine == pytest.approx(1, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sum", "modsync+sum"])
def test_at_a_draw_of_points_the_inverse_hessian_is_that_of_gauss_newton(method, x64):
    """J from central differences of the residuals; pruned weights have no columns."""
    points = {"residual": 16, "initial": 8, "left": 8, "right": 8}
    then = "ssbroyden(points=1,redraw=4,jacobian=0.02):12"
    config = TrainConfig(
        method=method, steps=3, then=then, points=points, loss_weights={"boundary": 10.0}
    )
    program = _step.compiled(_step.build(HEAT, NETWORK, config))
    losses = _losses.build(HEAT, NETWORK, config, lambda points: points)
    state = program.advance(program.init(0), 0, 3)
    state = program.begin(pruned(state) if losses.kind.kept else state, 1)
    weights = partial(_weights, losses.kind.kept)
    started = program.advance(state, 1, 0)  # which draws points, and no more
    x, unravel = jax.flatten_util.ravel_pytree(weights(started))
    _, wanted = gauss_newton(losses, unravel, started.points, x)
    found = started.opt_state.inverse_hessian
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())
    assert started.opt_state.count == 1

    state = program.advance(started, 1, 4)
    x, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.copy, weights(state)))
    state = program.advance(state, 1, 1)  # at other points
    grad, wanted = gauss_newton(losses, unravel, state.points, x)
    moved, direction = flat(weights(state)) - np.asarray(x), -wanted @ grad
    cosine = moved @ direction / np.linalg.norm(moved) / np.linalg.norm(direction)
    assert cosine == pytest.approx(1, abs=1e-6)


def _weights(masked, state):
    return state.params.weights if masked else state.params


def gauss_newton(losses, unravel, points, x):
    """The gradient and the inverse Gauss-Newton matrix at x."""
    r, rows = jacobian(losses, unravel, points, x)
    matrix = 2 * rows.T @ rows + 0.02 * (r @ r) * np.eye(x.size)
    return 2 * rows.T @ r, np.linalg.inv(matrix)


def jacobian(losses, unravel, points, x):
    """The residuals and their derivatives at x, from differences; pruned weights have none."""

    @jax.jit
    def residuals(x):
        return losses.residuals(unravel(x), points)

    step = 1e-6  # errors of step² and of 1e-16 / step, both below 1e-9
    shifts = step * np.eye(x.size)
    rows = np.stack([(residuals(x + e) - residuals(x - e)) / (2 * step) for e in shifts], axis=1)
    if losses.kind.kept:
        rows *= np.asarray(x) != 0
    return np.asarray(residuals(x)), rows


@pytest.mark.long
@pytest.mark.parametrize("sketch", [0, 6])
@pytest.mark.parametrize("method", ["sum", "modsync+sum"])
def test_gauss_newton_by_products_takes_the_step_of_a_dense_jacobian(method, sketch, x64):
    points = {"residual": 16, "initial": 8, "left": 8, "right": 8}
    then = f"gauss-newton(points=1,cg=200,damping=1,sketch={sketch}):2"
    config = TrainConfig(method=method, steps=3, then=then, points=points)
    program = _step.compiled(_step.build(HEAT, NETWORK, config))
    losses = _losses.build(HEAT, NETWORK, config, lambda points: points)
    state = program.advance(program.init(0), 0, 3)
    state = program.begin(pruned(state) if losses.kind.kept else state, 1)
    weights = partial(_weights, losses.kind.kept)
    before = jax.tree.map(jnp.copy, weights(state))
    state = program.advance(state, 1, 1)
    x, unravel = jax.flatten_util.ravel_pytree(before)
    r, rows = jacobian(losses, unravel, state.points, x)
    slope = rows.T @ r
    damping = np.sum((rows @ slope) ** 2) / np.sum(slope**2)
    expected = np.linalg.solve(rows.T @ rows + damping * np.eye(x.size), -slope)
    moved = flat(weights(state)) - flat(before)
    assert state.opt_state.evaluations == 1, "the test needs a first step that is taken"
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    if losses.kind.kept:
        pruned_before = flat(before) == 0
        assert 0 < pruned_before.sum() < moved.size
        np.testing.assert_array_equal(moved[pruned_before], 0.0)


@pytest.mark.long
def test_after_frozen_masks_a_first_order_phase_moves_the_kept_weights_alone(run):
    _, program = run
    state = program.begin(pruned(program.advance(program.init(0), 0, 3)), 1)
    state = program.advance(state, 1, 4)
    state = program.begin(state, 2)
    assert state.points == () and state.losses.dtype == np.float32
    before = jax.tree.map(jnp.copy, state.params)
    after = program.advance(state, 2, 2)
    zero = flat(before.weights) == 0
    assert zero.any() and after.step == 9
    np.testing.assert_array_equal(flat(after.params.weights)[zero], 0.0)
    assert not flat(after.params.thresholds).any()
    moved = np.abs(flat(after.params.weights) - flat(before.weights))[~zero]
    # Two steps of Adam at a rate of 1e-4, of gradients that hardly change. Units whose outputs are
    # all pruned have no gradient.
    moving = moved[moved > 0]
    assert len(moving) >= 5 and (moving > 0.5e-4).mean() > 0.9 and moved.max() < 2.1e-4


@pytest.mark.long
def test_the_rate_of_a_row_is_that_of_its_phase(run):
    _, program = run
    state = program.init(0)
    rates = {}
    for phase, count in ((0, 3), (1, 4), (2, 2)):
        state = program.begin(state, phase) if phase else state
        state, row = program.evaluate(program.advance(state, phase, count), {})
        rates[phase] = float(row["learning_rate"])
        # the test jumps over the other iterations of the second phase
        state = state._replace(step=jnp.array(15, jnp.int32)) if phase == 1 else state
    assert rates[0] == pytest.approx(1e-3) and rates[2] == pytest.approx(0.5e-4)  # half-way
    assert np.isnan(rates[1])


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_quasi_newton_from_a_random_start_solves_to_many_digits(x64):
    """Poisson's equation with a sine: first-order training ends near 1e-3."""
    solution = modsync_jax.solve(
        problems.get("poisson1d", frequency=3.0), steps=0, then="ssbroyden:600", width=12, depth=2,
        points={"residual": 64}, eval_every=100, progress=False,
    )  # fmt: skip
    # 1e-7 and less at five seeds; 1e-5 leaves room for other platforms
    assert solution.result["errors"]["relative_l2"]["selected"] < 1e-5
    assert solution.params["network"]["params"]["Dense_0"]["kernel"].dtype == np.float64
    assert solution.metrics[0]["step"] == 0


@pytest.mark.long
def test_a_run_of_three_phases_that_is_cut_anywhere_ends_with_the_same_bits(tmp_path, x64):
    settings = {
        **TINY, "method": "modsync+dcgd", "steps": 10, "progress": False, "report": False,
        "then": "ssbroyden(redraw=10):30,adam:10", "points": {"residual": 32},
    }  # fmt: skip
    whole = modsync_jax.solve("poisson1d", output_dir=tmp_path / "whole", **settings)
    cut = tmp_path / "cut"
    stages = ["ssbroyden(redraw=10):10", "ssbroyden(redraw=10):20", settings["then"]]
    for k, then in enumerate(stages):
        again = modsync_jax.solve(
            "poisson1d", output_dir=cut, resume=k > 0, **{**settings, "then": then}
        )
    np.testing.assert_array_equal(flat(again.trained), flat(whole.trained))
    assert (cut / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()
    loaded = modsync_jax.load(cut)
    np.testing.assert_array_equal(flat(loaded.trained), flat(whole.trained))
    with pytest.raises(RunError, match="its phases can be longer, and more can follow, but"):
        modsync_jax.solve(
            "poisson1d", output_dir=cut, resume=True,
            **{**settings, "then": "ssbroyden(redraw=10):30,sgd:10"},
        )  # fmt: skip


@pytest.mark.slow
def test_gauss_newton_by_products_resumes_with_the_same_bits_and_names_its_sources(tmp_path, x64):
    settings = {"steps": 0, **TINY, "chunk": 2, "progress": False, "report": False}
    settings["then"] = "gauss-newton(cg=5,sketch=3,momentum=0.5,redraw=2):4"
    whole = modsync_jax.solve("poisson1d", "sum", **settings)
    for more in ({"time_limit": 1e-3}, {"resume": True}):
        again = modsync_jax.solve("poisson1d", "sum", output_dir=tmp_path, **settings, **more)
    np.testing.assert_array_equal(flat(again.trained), flat(whole.trained))
    references = (tmp_path / "references.bib").read_text()
    assert "Nystr" in references and "Kaczmarz" in references


@pytest.mark.slow
@pytest.mark.parametrize("then", ["bfgs(dtype=float32):20", "lbfgs(redraw=5,rad=2):20"])
def test_any_run_can_go_on_with_a_further_phase(then, tmp_path):
    settings = {**TINY, "method": "dcgd", "steps": 10, "progress": False, "report": False}
    run = {"output_dir": tmp_path / "run", **settings}
    short = modsync_jax.solve("poisson1d", **run)
    longer = modsync_jax.solve("poisson1d", then=then, resume=True, **run)
    whole = modsync_jax.solve("poisson1d", then=then, **settings)
    np.testing.assert_array_equal(flat(longer.trained), flat(whole.trained))
    assert longer.metrics[-1]["loss"] < short.metrics[-1]["loss"]


@pytest.mark.parametrize(
    ("then", "width"),
    [
        ("bfgs(dtype=float32):5", 700),  # the inverse Hessian
        ("bfgs(points=100000,jacobian=0.01,dtype=float32):5", 100),  # the Jacobian
        ("gauss-newton(points=100000,dtype=float32):5", 100),
    ],
)
def test_a_dense_phase_that_needs_too_much_memory_is_refused_before_anything_starts(then, width):
    with pytest.raises(ConfigError, match=r"or gauss-newton\(cg=100\) in place of a dense"):
        modsync_jax.solve("poisson1d", steps=5, then=then, width=width, depth=3, progress=False)


def test_products_ask_for_no_memory_for_a_jacobian():
    """That they take none is `test_products_take_no_memory_for_a_jacobian`."""
    texts = ["gauss-newton:3", "gauss-newton(cg=5):3"]
    assert [_phases.parse(text)[0].settings.needs_jacobian for text in texts] == [True, False]


@pytest.mark.long
def test_optax_lbfgs_is_the_phase_lbfgs(x64):
    """Twenty iterations in both, on the same points."""
    config = TrainConfig(
        method="sum", steps=0, then="lbfgs(points=1):20", dtype="float64", points={"residual": 32}
    )
    problem = problems.get("poisson1d", frequency=1.0)
    program = _step.build(problem, networks.MLP(width=4, depth=1, param_dtype=jnp.float64), config)
    advance = jax.jit(program.advance, static_argnums=(1, 2))
    state = advance(program.init(0), 0, 0)  # which draws the points
    objectives = problem.objectives(fields_of(problem, networks.MLP(width=4, depth=1)))
    points = state.points

    def loss(params):
        return sum(objective(params, points) for objective in objectives.values())

    params, tx = state.params, optax.lbfgs(memory_size=20)
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state):
        value, grad = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(
            grad, opt_state, params, value=value, grad=grad, value_fn=loss
        )
        return optax.apply_updates(params, updates), opt_state

    for _ in range(20):
        params, opt_state = step(params, opt_state)
    after = advance(state, 0, 20)
    # equal but for the order of sums, which twenty iterations amplify
    np.testing.assert_allclose(flat(after.params), flat(params), rtol=1e-5, atol=1e-7)
