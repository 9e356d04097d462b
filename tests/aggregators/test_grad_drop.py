"""GradDrop: one sign for each coordinate, by its purity."""

import jax
import jax.numpy as jnp
import numpy as np

from modsync_jax import aggregators

DRAWS = 4000


def draws(g):
    """The updates of many keys, `[DRAWS, D]`."""
    tx = aggregators.grad_drop()
    params = jnp.zeros(g.shape[1:])
    keys = jax.random.split(jax.random.key(1), DRAWS)
    one = jax.vmap(lambda key: tx.update(jnp.asarray(g), tx.init(params), params, key=key)[0])
    return np.asarray(one(keys), np.float64)


def test_each_coordinate_is_the_sum_of_one_sign_with_the_probability_of_its_purity():
    g = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    positive, negative = np.maximum(g, 0).sum(0), np.minimum(g, 0).sum(0)
    got = draws(g)
    is_positive = np.abs(got - positive) < 1e-5  # float32 sums of three
    is_negative = np.abs(got - negative) < 1e-5
    assert (is_positive | is_negative).all()
    purity = 0.5 * (1 + g.sum(0) / np.abs(g).sum(0))
    # Five standard deviations of a share of DRAWS draws; exact where the signs agree.
    deviation = np.sqrt(purity * (1 - purity) / DRAWS)
    assert (np.abs(is_positive.mean(0) - purity) <= 5 * deviation + 1e-6).all()
    assert ((purity > 0.05) & (purity < 0.95)).sum() > 20  # else there is nothing to draw


def test_coordinates_are_drawn_apart():
    got = draws(np.tile([[1.0], [-1.0]], (1, 20)).astype(np.float32))
    correlation = np.corrcoef(got.T) - np.eye(20)
    assert np.abs(correlation).max() < 5 / np.sqrt(DRAWS)


def test_leaves_of_one_shape_are_drawn_apart():
    tx = aggregators.grad_drop()
    g = jnp.tile(jnp.array([[1.0], [-1.0]]), (1, 200))
    params = {"a": g[0], "b": g[0]}
    out, _ = tx.update({"a": g, "b": g}, tx.init(params), params)
    assert 50 < int((out["a"] == out["b"]).sum()) < 150  # 100 by chance


def test_agreement_one_objective_and_zeros_are_kept_as_they_are():
    agreed = np.array([[1.0, -2.0, 0.0], [3.0, 0.0, 0.0]], np.float32)
    np.testing.assert_array_equal(draws(agreed), np.tile([4.0, -2.0, 0.0], (DRAWS, 1)))
    single = np.array([[1.0, -2.0, 0.0]], np.float32)
    np.testing.assert_array_equal(draws(single), np.tile(single[0], (DRAWS, 1)))


def test_key_of_the_state_is_drawn_anew_every_update():
    tx = aggregators.grad_drop(key=jax.random.key(2))
    g, params = jnp.tile(jnp.array([[1.0], [-1.0]]), (1, 64)), jnp.zeros(64)
    first, state = tx.update(g, tx.init(params), params)
    second, _ = tx.update(g, state, params)
    assert (first != second).any()
