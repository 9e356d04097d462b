"""What is said of ConFIG alone; the battery holds the rest."""

import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import aggregators


@pytest.mark.parametrize("count", [2, 3, 6])
def test_direction_has_the_same_cosine_to_every_gradient(x64, count):
    g = np.random.default_rng(count).normal(size=(count, 30)) * np.logspace(-3, 3, count)[:, None]
    tx = aggregators.config()
    update, _ = tx.update(jnp.asarray(g), tx.init(jnp.zeros(30)), jnp.zeros(30))
    cosines = g @ update / np.linalg.norm(g, axis=1) / np.linalg.norm(update)
    np.testing.assert_allclose(cosines, cosines[0], rtol=1e-12)  # cond(C) < 20, eps = 2e-16
    assert cosines[0] > 0


def test_length_is_the_sum_of_projections(x64):
    g = np.random.default_rng(0).normal(size=(4, 30))
    tx = aggregators.config()
    update, _ = tx.update(jnp.asarray(g), tx.init(jnp.zeros(30)), jnp.zeros(30))
    length = np.linalg.norm(update)
    np.testing.assert_allclose(length, (g @ update).sum() / length, rtol=1e-12)


def test_orthogonal_worked_example():
    # u_k are axes, so C = I, d = (1, 1, 1) and g = (1 + 2 + 3) / 3 (1, 1, 1).
    g = jnp.diag(jnp.array([1.0, 2.0, 3.0]))
    tx = aggregators.config()
    update, _ = tx.update(g, tx.init(g[0]), g[0])
    np.testing.assert_allclose(update, [2.0, 2.0, 2.0], rtol=1e-6)  # float32
    weights = aggregators.config_weights(g @ g.T)
    np.testing.assert_allclose(weights, [2.0, 1.0, 2.0 / 3.0], rtol=1e-6)


def test_zero_gradient_among_others_leaves_the_update_of_the_others(x64):
    g = np.random.default_rng(1).normal(size=(3, 30))
    tx = aggregators.config()
    with_zero = jnp.asarray(np.insert(g, 1, 0.0, axis=0))
    update, _ = tx.update(with_zero, tx.init(jnp.zeros(30)), jnp.zeros(30))
    expected, _ = tx.update(jnp.asarray(g), tx.init(jnp.zeros(30)), jnp.zeros(30))
    np.testing.assert_allclose(update, expected, atol=1e-12)
