"""From a weighting to a transformation: groups, keys, extra arguments, and life in optax."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import aggregators


@pytest.fixture
def stack():
    """Gradients of two objectives that conflict, for three leaves, and parameters."""
    rng = np.random.default_rng(11)
    shapes = {"coefficient": (), "kernel": (4, 3), "bias": (3,)}
    params = {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}
    grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=(2, *p.shape)), jnp.float32), params)
    grads["kernel"] = grads["kernel"].at[1].add(-2.0 * grads["kernel"][0])
    return grads, params


def by_hand(grads, params, names):
    """The update of some leaves alone."""
    tx = aggregators.dcgd()
    some = {name: grads[name] for name in names}
    return tx.update(some, tx.init(params), {name: params[name] for name in names})[0]


def assert_same(got, expected):
    """Equal up to the order of float32 sums: norms are about 10, eps 1e-7."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-6), got, expected)


def test_groups_of_leaves_are_aggregated_apart(stack):
    grads, params = stack
    tx = aggregators.from_weights(aggregators.dcgd_weights, groups="leaf")
    out, _ = tx.update(grads, tx.init(params), params)
    together, _ = aggregators.dcgd().update(grads, aggregators.AggregatorState(None), params)
    assert_same(out, {name: by_hand(grads, params, [name])[name] for name in params})
    assert float(jnp.abs(out["bias"] - together["bias"]).max()) > 0.01


def test_groups_by_predicate_are_aggregated_apart_and_see_path_and_leaf(stack):
    grads, params = stack
    seen = {}

    def label(path, leaf):
        seen[path] = leaf.shape
        return "physics" if path == "net/coefficient" else leaf.ndim > 0

    tx = aggregators.from_weights(aggregators.dcgd_weights, groups=label)
    out, _ = tx.update({"net": grads}, tx.init({"net": params}), {"net": params})
    expected = by_hand(grads, params, ["coefficient"]) | by_hand(grads, params, ["kernel", "bias"])
    assert_same(out, {"net": expected})
    assert seen == {"net/coefficient": (), "net/kernel": (4, 3), "net/bias": (3,)}


def test_moved_names_say_where_they_are():
    for name in ("momentum_config", "MomentumConfigState"):
        with pytest.raises(AttributeError, match=f"use modsync_jax.optimizers.{name}"):
            getattr(aggregators, name)
    with pytest.raises(AttributeError, match=r"use modsync_jax.value_and_objective_grad"):
        aggregators.value_and_objective_grad  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'dcdg'"):
        aggregators.dcdg  # noqa: B018


def test_unknown_groups_are_an_error_when_built():
    with pytest.raises(ValueError, match="groups is 'layer'; give None, 'leaf' or a function"):
        aggregators.from_weights(aggregators.sum_weights, groups="layer")


def random_weights(gramian, *, key):
    return jax.random.normal(key, gramian.shape[:1])


def test_key_in_the_state_is_split_every_update_and_reproducible(stack):
    grads, params = stack
    tx = aggregators.from_weights(random_weights, key=jax.random.key(5))

    def three_updates():
        state, outs = tx.init(params), []
        for _ in range(3):
            out, state = tx.update(grads, state, params)
            outs.append(np.asarray(out["bias"]))
        return outs

    first, second = three_updates(), three_updates()
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first[0], first[1])
    assert not np.allclose(first[1], first[2])


def test_key_given_to_update_takes_the_place_of_the_one_in_the_state(stack):
    grads, params = stack
    given = jax.random.key(99)
    weights = random_weights(jnp.zeros((2, 2)), key=given)
    for start in (jax.random.key(5), None):
        tx = aggregators.from_weights(random_weights, key=start)
        out, _ = tx.update(grads, tx.init(params), params, key=given)
        expected = jax.tree.map(lambda g: jnp.tensordot(weights, g, axes=1), grads)
        assert_same(out, expected)


def test_keys_of_every_kind_are_kept_as_numbers_and_used_as_they_are(stack):
    """Checkpoints hold numbers; old keys are numbers already; other generators stay themselves."""
    grads, params = stack
    for key in (jax.random.key(5), jax.random.PRNGKey(5), jax.random.key(5, impl="rbg")):
        tx = aggregators.from_weights(random_weights, key=key)
        state = tx.init(params)
        assert state.key.dtype == jnp.uint32
        out, _ = tx.update(grads, state, params)
        weights = random_weights(jnp.zeros((2, 2)), key=jax.random.split(key)[1])
        assert_same(out, jax.tree.map(lambda g, w=weights: jnp.tensordot(w, g, axes=1), grads))


def test_key_of_none_given_to_update_leaves_the_one_in_the_state(stack):
    grads, params = stack
    tx = aggregators.from_weights(random_weights, key=jax.random.key(5))
    out, _ = tx.update(grads, tx.init(params), params, key=None)
    expected, _ = tx.update(grads, tx.init(params), params)
    assert_same(out, expected)


def test_key_in_the_state_is_drawn_apart_in_each_step_of_a_scan(stack):
    grads, params = stack
    tx = aggregators.from_weights(random_weights, key=jax.random.key(5))
    _, outs = jax.lax.scan(
        lambda state, _: tx.update(grads, state, params)[::-1], tx.init(params), length=3
    )
    assert len(np.unique(np.asarray(outs["coefficient"]))) == 3


def test_missing_key_is_an_error_that_names_it(stack):
    grads, params = stack
    tx = aggregators.from_weights(random_weights)
    with pytest.raises(ValueError, match="random_weights needs 'key'"):
        tx.update(grads, tx.init(params), params)


def loss_weights(gramian, *, losses, power=1.0):
    return losses**power


def test_losses_reach_a_weighting_that_asks_for_them_through_a_chain(stack):
    grads, params = stack
    losses = jnp.array([0.25, 3.0])
    tx = optax.chain(aggregators.from_weights(loss_weights), optax.adam(1e-2))
    expected_tx = optax.adam(1e-2)
    # The others' extra arguments pass by, and an argument with a default is not asked for.
    out, _ = jax.jit(tx.update)(grads, tx.init(params), params, losses=losses, other=1.0)
    weighted = jax.tree.map(lambda g: 0.25 * g[0] + 3.0 * g[1], grads)
    expected, _ = expected_tx.update(weighted, expected_tx.init(params), params)
    assert_same(out, expected)


def test_missing_losses_are_an_error_that_names_them(stack):
    grads, params = stack
    tx = aggregators.from_weights(loss_weights)
    with pytest.raises(
        ValueError, match=r"loss_weights needs 'losses': call update.*losses=\.\.\."
    ):
        tx.update(grads, tx.init(params), params)


def test_chain_with_adam_is_adam_of_the_aggregated_gradient(stack):
    grads, params = stack
    chained, adam = optax.chain(aggregators.dcgd(), optax.adam(1e-2)), optax.adam(1e-2)
    state, adam_state = chained.init(params), adam.init(params)
    for scale in (1.0, -0.5, 2.0):
        scaled = jax.tree.map(lambda g, s=scale: s * g, grads)
        out, state = chained.update(scaled, state, params)
        single = by_hand(scaled, params, list(params))
        expected, adam_state = adam.update(single, adam_state, params)
        assert_same(out, expected)


def test_multi_steps_after_the_aggregator_averages_aggregated_gradients(stack):
    grads, params = stack
    other = jax.tree.map(lambda g: 0.5 * g[::-1] + 1.0, grads)
    multi = optax.MultiSteps(optax.sgd(1.0), every_k_schedule=2).gradient_transformation()
    tx = optax.chain(aggregators.dcgd(), multi)
    state = tx.init(params)
    first, state = tx.update(grads, state, params)
    second, state = tx.update(other, state, params)
    assert_same(first, jax.tree.map(jnp.zeros_like, params))
    mean = jax.tree.map(
        lambda a, b: -(a + b) / 2,
        by_hand(grads, params, list(params)),
        by_hand(other, params, list(params)),
    )
    assert_same(second, mean)


def test_apply_if_finite_after_the_aggregator_skips_a_broken_step(stack):
    grads, params = stack
    tx = optax.chain(aggregators.dcgd(), optax.apply_if_finite(optax.sgd(1.0), 3))
    state = tx.init(params)
    broken = grads | {"bias": grads["bias"].at[0, 0].set(jnp.nan)}
    skipped, state = tx.update(broken, state, params)
    assert_same(skipped, jax.tree.map(jnp.zeros_like, params))
    taken, state = tx.update(grads, state, params)
    assert_same(taken, jax.tree.map(jnp.negative, by_hand(grads, params, list(params))))


def test_gradients_of_other_parameters_are_an_error(stack):
    grads, params = stack
    tx = aggregators.dcgd()
    del grads["bias"]
    with pytest.raises(ValueError, match=r"gradients have the structure.*but params"):
        tx.update(grads, tx.init(params), params)


MODULES = [
    info.name
    for info in pkgutil.iter_modules(aggregators.__path__, prefix=f"{aggregators.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_print_what_they_say(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_docstrings_of_the_methods_hold_examples():
    finder = doctest.DocTestFinder()
    factories = [
        make
        for name, make in vars(aggregators).items()
        if f"{name}_weights" in aggregators.__all__ and name not in ("sum", "mean")
    ]
    assert len(factories) >= 10
    for make in [*factories, aggregators.grad_drop]:
        assert any(test.examples for test in finder.find(make))
