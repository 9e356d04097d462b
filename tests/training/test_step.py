"""The pure functions of a run: what methods with more than a moment are given, and keep."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from modsync_jax import networks, problems
from modsync_jax.training import TrainConfig, _solution, _step
from modsync_jax.training._folder import RunFolder
from modsync_jax.training._solution import field_of

PROBLEM = problems.get("burgers")
SMALL = {"width": 6, "depth": 1, "points": {"residual": 32}}


def program(method, **settings):
    network = networks.MLP(width=6, depth=1)
    return _step.build(PROBLEM, network, TrainConfig(method=method, **SMALL, **settings))


def loss_weights(state):
    return optax.tree_utils.tree_get(state.opt_state, "loss_weights")


@pytest.mark.long
@pytest.mark.parametrize(
    "method", ["m-config", "multi-adam", "relobralo+pcgrad", "modsync+gradnorm+ntk+grad-drop"]
)
def test_a_checkpoint_holds_all_that_a_method_remembers(method, tmp_path):
    run = program(method)
    folder = RunFolder(tmp_path / "run", {}, resume=False)
    unbroken = run.advance(run.advance(run.init(3), 0, 5), 0, 5)
    half = run.advance(run.init(3), 0, 5)
    folder.save(5, half)
    resumed = run.advance(folder.restore(5, run.init(0)), 0, 5)
    for (path, a), b in zip(
        jax.tree.leaves_with_path(unbroken), jax.tree.leaves(resumed), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


@pytest.mark.long
@pytest.mark.parametrize("method", ["relobralo+pcgrad", "grad-drop"])
def test_the_seed_of_a_run_sets_what_a_method_draws(method):
    """From the same weights, two seeds move elsewhere though points and losses are the same."""
    run = program(method)
    one, other = run.init(1), run.init(2)
    assert not np.array_equal(one.key, other.key)
    moved = [run.advance(s, 0, 3).params for s in (one, other, run.init(1))]
    same, differ = (jax.tree.map(np.array_equal, moved[0], moved[k]) for k in (2, 1))
    assert all(jax.tree.leaves(same)) and not any(jax.tree.leaves(differ["network"]))


@pytest.mark.long
def test_m_config_takes_the_objectives_in_turn():
    run = program("m-config")
    state = run.init(0)
    for steps, counts in ((1, [1, 0]), (1, [1, 1]), (3, [3, 2])):
        before = jax.tree.map(np.asarray, state.params)
        state = run.advance(state, 0, steps)
        np.testing.assert_array_equal(optax.tree_utils.tree_get(state.opt_state, "counts"), counts)
        still = jax.tree.map(np.array_equal, before, state.params)
        assert all(jax.tree.leaves(still)) == (counts == [1, 0])  # until all were seen
    assert np.all(state.losses > 0)


@pytest.mark.long
def test_tangent_kernels_are_those_of_the_weights_alone():
    """Thresholds of zero mask nothing: ModSync's loss weights are those of the plain network."""
    plain, masked = program("ntk+dcgd"), program("modsync+ntk+dcgd", structural_gradient=False)
    expected = loss_weights(plain.advance(plain.init(0), 0, 1))
    got = loss_weights(masked.advance(masked.init(0), 0, 1))
    np.testing.assert_allclose(got, expected, rtol=1e-4)  # float32
    assert abs(expected[0] - expected[1]) > 0.1


def test_our_networks_take_jets_and_others_are_differentiated():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(jnp.tanh(nn.Dense(3)(x)))

    for network, takes_jets in ((networks.MLP(width=3, depth=1), True), (Own(), False)):
        variables = network.init(jax.random.key(0), jnp.zeros(2))
        assert field_of(network, ("t", "x"), variables).takes_jets is takes_jets


@pytest.mark.slow
def test_a_step_of_a_million_points_fits_into_little_memory():
    config = TrainConfig(method="modsync+dcgd", points={"residual": 1_000_000})
    run = _step.build(PROBLEM, _step.network_of(PROBLEM, config), config)
    state = jax.eval_shape(run.init, 0)
    compiled = jax.jit(run.advance, static_argnums=(1, 2)).lower(state, 0, 1).compile()
    # Points, random bits and one chunk; all points at once would need 15 GB.
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5e9


@pytest.mark.long
def test_chunks_of_points_change_rounding_only():
    states = [program("modsync+dcgd", block_points=n) for n in (0, 12)]
    plain, chunked = (run.advance(run.init(0), 0, 3).params for run in states)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(chunked), strict=True):
        # Adam's first steps are sign-like, 1e-3 each: rounding of a gradient near 0 may show.
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_solution_evaluates_many_points_in_parts(monkeypatch):
    monkeypatch.setattr(_solution, "_EVALUATED_AT_ONCE", 7)
    network = networks.MLP(width=6, depth=1)
    params = {"network": network.init(jax.random.key(0), jnp.zeros(2)), "unknowns": {}}
    solution = _solution.Solution(network, ("t", "x"), params, params, {}, [])
    sizes = []

    def norms(points):
        sizes.append(len(points))
        return jnp.linalg.norm(points, axis=1)

    for count in (1, 7, 20):
        points = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
        expected = np.linalg.norm(points, axis=1)
        np.testing.assert_allclose(solution._evaluate(norms, points), expected, rtol=1e-6)
    assert max(sizes) <= 7 and sum(sizes) == 28


def test_a_second_moment_at_infinity_stops_a_run():
    """Its update is zero, so that nothing but the state shows that a weight is frozen."""

    class Steep(nn.Module):
        @nn.compact
        def __call__(self, x):
            slope = self.param("slope", nn.initializers.constant(1e-20), (1,))
            return 1e20 * slope * x[:1] + nn.Dense(1)(x)

    problem = problems.get("poisson1d")
    config = TrainConfig(method="sum", points={"residual": 8})
    run = _step.build(problem, Steep(), config)
    before = run.init(0)
    state = run.advance(before, 0, 3)
    assert not state.healthy and state.step == 0 and jnp.isfinite(state.losses).all()
    for a, b in zip(
        jax.tree.leaves(state.opt_state), jax.tree.leaves(before.opt_state), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.long
def test_the_sampler_of_a_problem_is_used_unless_another_is_asked_for():
    """Burgers' is Latin hypercube sampling: one point in every interval of each axis."""
    config = TrainConfig(method="sum")
    for sampler, latin in (("auto", True), ("uniform", False)):
        config = TrainConfig(method="sum", sampler=sampler, points={"residual": 64})
        run = _step.build(PROBLEM, _step.network_of(PROBLEM, config), config)
        points, _ = run.residuals(run.init(0), 0)
        cells = np.floor((np.asarray(points["residual"]) - [0, -1]) / [1, 2] * 64)
        assert all(len(set(column)) == 64 for column in cells.T) is latin


@pytest.mark.long
def test_a_step_of_lbfgs_that_is_not_finite_blames_the_objective_that_is_not():
    config = TrainConfig(method="dcgd", then="lbfgs:2", **SMALL)
    run = _step.build(problems.get("heat"), networks.MLP(width=6, depth=1), config)
    state = run.begin(run.init(0), 1)
    broken = jax.tree.map(lambda x: x, state.params)
    broken["network"]["params"]["Dense_1"]["bias"] = jnp.full(
        1, 1e20
    )  # u² overflows, u_t - u_xx not
    losses = run.advance(state._replace(params=broken), 1, 1).losses
    assert not np.isfinite(losses[0]) and np.isfinite(losses[1])


@pytest.mark.long
def test_validation_selects_by_its_name_whatever_the_order_of_the_references():
    run = program("sum")
    state = run.init(0)
    points = jnp.ones((4, 2)) * 0.3
    sets = {"test": (points, jnp.ones((4, 1))), "validation": (points, 7 * jnp.ones((4, 1)))}
    scores = []
    for order in (["test", "validation"], ["validation", "test"]):
        after, row = run.evaluate(state, {name: sets[name] for name in order})
        assert after.best_score == row["validation/relative_l2"] != row["test/relative_l2"]
        scores.append(float(after.best_score))
    assert scores[0] == scores[1]


@pytest.mark.long
@pytest.mark.parametrize("weights", [{}, {"boundary": 1e-6}])
def test_a_score_by_the_loss_is_of_the_same_points_in_all_rows_and_without_weights(weights):
    """Only a worse network then has a worse score; losses of rows have points of their own."""
    settings = TrainConfig(selection="loss", **SMALL)
    heat, network = problems.get("heat"), networks.MLP(width=6, depth=1)
    plain = _step.build(heat, network, settings)
    run = _step.build(heat, network, dataclasses.replace(settings, loss_weights=weights))
    state = run.init(0)
    _, first = plain.evaluate(state, {})
    after, later = run.evaluate(state._replace(step=jnp.array(7, jnp.int32)), {})
    assert first["score"] == later["score"] == after.best_score
    terms = sum(first[f"term/{name}"] for name in heat.terms)
    np.testing.assert_allclose(first["score"], terms, rtol=1e-6)
    assert first["loss"] != later["loss"]


@pytest.mark.long
def test_a_stopped_run_does_not_improve():
    """Its parameters stay as they were when something was not finite."""
    run = program("sum")
    state = run.init(0)._replace(healthy=jnp.array(False), step=jnp.array(7, jnp.int32))
    after, _ = run.evaluate(state, {})
    assert after.best_step == 0 and after.best_score == jnp.inf
