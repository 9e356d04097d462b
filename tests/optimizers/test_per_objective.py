"""A transformation per objective, MultiAdam, and weights of points."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import aggregators, balancing, optimizers, value_and_objective_grads
from tests.balancing.test_battery import setting


@pytest.mark.long
def test_every_objective_has_an_optimiser_of_its_own(x64):
    params, objectives, _, _ = setting(3, np.float64)
    schedule = optax.exponential_decay(0.1, 1, 0.5)  # counts its steps
    tx = optimizers.per_objective(optax.adam(schedule), 3)
    single = [optax.adam(schedule) for _ in range(3)]
    state, states = tx.init(params), [t.init(params) for t in single]
    _, grads = value_and_objective_grads(objectives)(params)
    for factor in (1.0, -2.0, 0.3):
        now = jax.tree.map(lambda g, f=factor: f * g, grads)
        updates, state = tx.update(now, state, params)
        for k in range(3):
            row, states[k] = single[k].update(jax.tree.map(lambda g, k=k: g[k], now), states[k])
            for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(row), strict=True):
                np.testing.assert_allclose(a[k], b, rtol=1e-12)


@pytest.mark.long
def test_multi_adam_is_the_mean_of_adams(x64):
    params, objectives, _, _ = setting(2, np.float64)
    tx = optimizers.multi_adam(2, 1e-2)
    state = tx.init(params)
    start = jax.tree.map(np.asarray, params)
    m = [jax.tree.map(np.zeros_like, start) for _ in range(2)]
    v = [jax.tree.map(np.zeros_like, start) for _ in range(2)]
    expected = start
    for t in range(1, 21):
        _, grads = value_and_objective_grads(objectives)(params)
        for k in range(2):
            g = jax.tree.map(lambda x, k=k: np.asarray(x[k]), grads)
            m[k] = jax.tree.map(lambda a, b: 0.99 * a + 0.01 * b, m[k], g)
            v[k] = jax.tree.map(lambda a, b: 0.99 * a + 0.01 * b**2, v[k], g)
        c = 1 - 0.99**t

        def move(p, m0, m1, v0, v1, c=c):
            steps = [(a / c) / (np.sqrt(b / c) + 1e-8) for a, b in ((m0, v0), (m1, v1))]
            return p - 1e-2 * sum(steps) / 2

        expected = jax.tree.map(move, expected, m[0], m[1], v[0], v[1])
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        # The gradients are those at the parameters of the code under test: one step's rounding.
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_point_weights_ascend_while_parameters_descend(x64):
    params, _, residuals, points = setting(2, np.float64)
    on_points = {name: lambda p, f=f, n=name: f(p, points[n]) for name, f in residuals.items()}
    objectives = balancing.point_weighted(on_points)
    weights = {name: jnp.linspace(1.0, 2.0, len(points[name])) for name in residuals}
    both = balancing.PointWeighted(params, weights)
    losses, grads = value_and_objective_grads(objectives)(both)
    for k, name in enumerate(sorted(residuals)):
        r = np.asarray(on_points[name](params))
        w = np.asarray(weights[name])
        np.testing.assert_allclose(losses[k], np.mean(w**2 * r**2), rtol=1e-12)
    tx = balancing.self_adaptive_points(
        optax.chain(aggregators.sum(), optax.sgd(0.1)), optax.sgd(0.5)
    )
    updates, _ = tx.update(grads, tx.init(both), both)
    for name in sorted(residuals):
        r, w = np.asarray(on_points[name](params)), np.asarray(weights[name])
        np.testing.assert_allclose(
            updates.point_weights[name], 0.5 * 2 * w * r**2 / len(r), rtol=1e-12
        )
    summed = jax.tree.map(lambda g: -0.1 * g.sum(0), grads.params)
    for a, b in zip(jax.tree.leaves(updates.params), jax.tree.leaves(summed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
