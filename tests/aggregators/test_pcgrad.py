"""What is said of PCGrad alone; the battery holds the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import aggregators

# g_1 conflicts with both others, and what is left of it depends on which comes first.
G = np.array([[1.0, 0.0, 0.2], [-1.0, 1.0, 0.0], [-0.6, -1.0, 0.5]])


def outcomes(tx, count):
    """Updates of `count` steps, `[count, 3]`."""
    g = jnp.asarray(G, jnp.float32)

    def step(state, _):
        update, state = tx.update(g, state, g[0])
        return state, update

    return np.asarray(jax.lax.scan(step, tx.init(g[0]), length=count)[1])


def test_random_orders_are_drawn_for_each_gradient_and_all_occur():
    """Two orders for each of three gradients; here they make 2 x 2 x 2 different sums."""
    got = outcomes(aggregators.pcgrad(key=jax.random.key(7)), 400)
    different, times = np.unique(got.round(4), axis=0, return_counts=True)
    rows = []
    for i, others in enumerate([(1, 2), (0, 2), (0, 1)]):
        rows.append([])
        for order in (others, others[::-1]):
            left = G[i].copy()
            for j in order:
                left -= min(left @ G[j], 0.0) / (G[j] @ G[j]) * G[j]
            rows[i].append(left)
    expected = np.unique([[a + b + c] for a in rows[0] for b in rows[1] for c in rows[2]], axis=0)
    assert len(np.unique(expected.reshape(-1, 3).round(4), axis=0)) == len(different)
    # Each of 400 / n, to five standard deviations of a binomial count.
    mean = 400 / len(different)
    assert (np.abs(times - mean) < 5 * np.sqrt(mean)).all()


def test_keys_decide_the_random_order_and_a_fixed_one_needs_none():
    one = outcomes(aggregators.pcgrad(key=jax.random.key(1)), 20)
    np.testing.assert_array_equal(one, outcomes(aggregators.pcgrad(key=jax.random.key(1)), 20))
    assert (one != outcomes(aggregators.pcgrad(key=jax.random.key(2)), 20)).any()
    fixed = outcomes(aggregators.pcgrad("fixed"), 20)
    np.testing.assert_array_equal(fixed, np.tile(fixed[0], (20, 1)))
    assert aggregators.pcgrad("fixed").init(jnp.zeros(3)).key is None


def test_unknown_order_is_an_error_when_built():
    with pytest.raises(ValueError, match=r"unknown order 'sorted'.*'random' or 'fixed'"):
        aggregators.pcgrad("sorted")
