"""The metric of an optimiser, against the steps that it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import aggregators, diagnostics, methods, optimizers, transform


def weights():
    rng = np.random.default_rng(0)
    return {"b": jnp.asarray(rng.normal(size=3)), "w": jnp.asarray(rng.normal(size=(4, 3)))}


def stack(seed, count=2):
    """Stacked gradients of `weights`."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda w: jnp.asarray(rng.normal(size=(count, *w.shape))), weights())


def row(tree, k):
    return jax.tree.map(lambda leaf: leaf[k], tree)


def after(tx, steps, params=None):
    """A state, and the update of the last of `steps` gradients."""
    params = weights() if params is None else params
    state = tx.init(params)
    for seed in range(steps):
        moves, state = tx.update(row(stack(seed), 0), state, params)
    return state, moves


@pytest.mark.parametrize("name", ["adam", "soap"])
def test_it_is_the_step_without_momentum(x64, name):
    """With b1 = 0 a step is the gradient in the metric, up to the correction of the average."""
    tx = {
        "adam": lambda: optax.adam(1.0, b1=0.0, b2=0.9, eps=0.0),
        "soap": lambda: optimizers.soap(1.0, b1=0.0, b2=0.9, eps=0.0, frequency=1_000),
    }[name]()
    state, moves = after(tx, 7)
    found = optimizers.metric(state, weights())(stack(6))
    correction = np.sqrt(1 - 0.9**7)
    for leaf, move in zip(jax.tree.leaves(found), jax.tree.leaves(moves), strict=True):
        np.testing.assert_allclose(-correction * leaf[0], move, rtol=1e-9)


@pytest.mark.long
def test_that_of_a_quasi_newton_method_is_its_inverse_hessian(x64):
    scale = jnp.array([1.0, 10.0, 100.0])
    tx = optimizers.bfgs()
    params = jnp.ones(3)
    state = tx.init(params)

    def loss(x):
        return jnp.sum(scale * x**2) / 2

    for _ in range(20):
        value, grad = jax.value_and_grad(loss)(params)
        moves, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        params = optax.apply_updates(params, moves)
    grads = jnp.eye(3)[:2]
    found = optimizers.metric(state, params)(grads)
    np.testing.assert_allclose(found, grads @ state.inverse_hessian, rtol=1e-12)


def test_it_is_one_before_the_first_step():
    tx, grads = optax.adam(1e-3), stack(1)
    found = optimizers.metric(tx.init(weights()), weights())(grads)
    jax.tree.map(np.testing.assert_array_equal, found, grads)


def test_it_is_that_of_the_weights_and_not_of_the_thresholds():
    method = methods.parse("modsync+dcgd")
    kind = methods.indexed(method, optax.adam(1e-4))
    tx = methods.build(method, optax.adam(1e-3), kind, num_objectives=2)
    params = transform.with_thresholds({"w": weights()["w"]}, 2)
    state = tx.init(params)
    grads = jax.tree.map(lambda p: jnp.ones((2, *p.shape)), params)
    _, state = tx.update(grads, state, params)
    found = optimizers.metric(state, params.weights)({"w": grads.weights["w"]})
    assert found["w"].shape == (2, 4, 3)


def test_optimisers_without_one_have_none():
    for tx in (optax.sgd(0.1), optax.lion(0.1), optax.chain(aggregators.dcgd(), optax.sgd(0.1))):
        assert optimizers.metric(tx.init(weights()), weights()) is None


def test_measures_in_the_metric_are_those_of_scaled_gradients(x64):
    """`g_iᵀ P⁻¹ g_j` is the Euclidean product of gradients times the root of a diagonal P⁻¹."""
    state, _ = after(optax.adam(1e-3), 5)
    grads = stack(9)
    metric = optimizers.metric(state, weights())
    seen = diagnostics.Snapshot(weights(), jnp.zeros(2), grads, ("a", "b"), metric=metric)
    roots = jax.tree.map(lambda v: v**-0.25, state[0].nu)
    scaled = jax.tree.map(lambda g, r: g * r, grads, roots)
    euclidean = seen._replace(grads=scaled)
    for name in ("alignment", "norm_ratio", "stationarity"):
        found = diagnostics.MEASURES[f"metric_{name}"](seen)
        for column, value in diagnostics.MEASURES[name](euclidean).items():
            np.testing.assert_allclose(found[f"metric_{column}"], value, rtol=1e-9)
    blind = diagnostics.MEASURES["metric_alignment"](seen._replace(metric=None))
    assert np.isnan(blind["metric_alignment"])
