"""The pure functions of a run: what methods with more than a moment are given, and keep."""

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


@pytest.mark.parametrize(
    "method", ["m-config", "multi-adam", "relobralo+pcgrad", "modsync+gradnorm+ntk+grad-drop"]
)
def test_a_checkpoint_holds_all_that_a_method_remembers(method, tmp_path):
    run = program(method)
    folder = RunFolder(tmp_path / "run", {}, resume=False)
    unbroken = run.advance(run.advance(run.init(3), 5), 5)
    half = run.advance(run.init(3), 5)
    folder.save(5, half)
    resumed = run.advance(folder.restore(5, run.init(0)), 5)
    for (path, a), b in zip(
        jax.tree.leaves_with_path(unbroken), jax.tree.leaves(resumed), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("method", ["relobralo+pcgrad", "grad-drop"])
def test_the_seed_of_a_run_sets_what_a_method_draws(method):
    """From the same weights, two seeds move elsewhere though points and losses are the same."""
    run = program(method)
    one, other = run.init(1), run.init(2)
    assert not np.array_equal(one.key, other.key)
    moved = [run.advance(s, 3).params for s in (one, other, run.init(1))]
    same, differ = (jax.tree.map(np.array_equal, moved[0], moved[k]) for k in (2, 1))
    assert all(jax.tree.leaves(same)) and not any(jax.tree.leaves(differ["network"]))


def test_m_config_takes_the_objectives_in_turn():
    run = program("m-config")
    state = run.init(0)
    for steps, counts in ((1, [1, 0]), (1, [1, 1]), (3, [3, 2])):
        before = jax.tree.map(np.asarray, state.params)
        state = run.advance(state, steps)
        np.testing.assert_array_equal(optax.tree_utils.tree_get(state.opt_state, "counts"), counts)
        still = jax.tree.map(np.array_equal, before, state.params)
        assert all(jax.tree.leaves(still)) == (counts == [1, 0])  # until all were seen
    assert np.all(state.losses > 0)


def test_tangent_kernels_are_those_of_the_weights_alone():
    """Thresholds of zero mask nothing: ModSync's loss weights are those of the plain network."""
    plain, masked = program("ntk+dcgd"), program("modsync+ntk+dcgd", structural_gradient=False)
    expected = loss_weights(plain.advance(plain.init(0), 1))
    got = loss_weights(masked.advance(masked.init(0), 1))
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


def test_a_step_of_a_million_points_fits_into_little_memory():
    config = TrainConfig(method="modsync+dcgd", points={"residual": 1_000_000})
    run = _step.build(PROBLEM, _step.network_of(PROBLEM, config), config)
    state = jax.eval_shape(run.init, 0)
    compiled = jax.jit(run.advance, static_argnums=1).lower(state, 1).compile()
    # Points, random bits and one chunk; all points at once would need 15 GB.
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5e9


def test_chunks_of_points_change_rounding_only():
    states = [program("modsync+dcgd", chunk_points=n) for n in (0, 12)]
    plain, chunked = (run.advance(run.init(0), 3).params for run in states)
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
