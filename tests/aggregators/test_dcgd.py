"""What is said of DCGD alone; the battery holds the rest."""

import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import aggregators


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("angle", [0.0, 0.5, 2.0, np.pi - 1e-3, np.pi - 1e-6, np.pi])
def test_center_of_two_is_half_the_sum_of_norms_along_the_bisector_at_every_angle(
    x64, angle, dtype
):
    """The closed form for K = 2: no division by a small number, so no condition in the bound."""
    g = jnp.array([[2.0, 0.0, 0.0], [5.0 * np.cos(angle), 5.0 * np.sin(angle), 0.0]], dtype)
    exact = np.asarray(g, np.float64)
    n = np.linalg.norm(exact, axis=1)
    expected = 0.5 * n.sum() * (exact[0] / n[0] + exact[1] / n[1])
    for tx in (aggregators.dcgd(), aggregators.config()):
        update, _ = tx.update(g, tx.init(g[0]), g[0])
        # A norm, a quotient, a product and a sum, each rounded to eps of the largest norm.
        error = np.linalg.norm(np.asarray(update, np.float64) - expected)
        assert error <= 8 * float(jnp.finfo(dtype).eps) * n.max()


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        # g_r = (1, 0), g_b = (-4, 2): the sum (-3, 2) conflicts with g_r alone. The face of g_r is
        # g_b - <g_r, g_b> / |g_r|^2 g_r = (0, 2); that of g_b is g_r + 4/20 g_b = (1/5, 2/5).
        ("proj", [0.0, 2.0]),
        ("avg", [0.1, 1.2]),
        # u_r + u_b = (1 - 2/s, 1/s) with s = sqrt(5) = |g_b| / 2, times (1 + 2 s) / 2.
        ("center", np.array([1 - 2 / 5**0.5, 1 / 5**0.5]) * (1 + 2 * 5**0.5) / 2),
    ],
)
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_worked_example(variant, expected, order):
    g = jnp.array([[1.0, 0.0], [-4.0, 2.0]])[jnp.array(order)]
    tx = aggregators.dcgd(variant)
    update, _ = tx.update(g, tx.init(g[0]), g[0])
    np.testing.assert_allclose(update, expected, atol=5e-6)  # float32, norms up to 5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_center_of_three_whose_units_nearly_cancel_is_exact_or_zero_but_never_noise(x64, dtype):
    """||g_c||^2 = 1e-6 is below what float32 can tell from zero, and far above it in float64."""
    angles = 2 * np.pi / 3 * np.arange(3)
    u = np.stack([np.cos(angles), np.sin(angles), np.full(3, 1e-3 / 3)], axis=1)
    g = jnp.asarray(np.array([[1.0], [2.0], [4.0]]) * u, dtype)
    tx = aggregators.dcgd()
    update = np.asarray(tx.update(g, tx.init(g[0]), g[0])[0])
    if dtype == jnp.float32:
        np.testing.assert_array_equal(update, np.zeros(3))
        return
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    g_c = u.sum(0)
    expected = (g_c @ np.asarray(g).sum(0)) / (g_c @ g_c) * g_c
    # Rounding of the cosines, a few eps = 2e-16, over 1e-6, of the largest norm, 4.
    np.testing.assert_allclose(update, expected, atol=1e-8)
    assert np.linalg.norm(expected) > 1e-4  # else zero would pass too


@pytest.mark.parametrize("variant", ["avg", "proj"])
def test_variants_for_pairs_refuse_three_objectives(variant):
    tx = aggregators.dcgd(variant)
    with pytest.raises(ValueError, match=f"{variant}.*two objectives, not 3"):
        tx.update(jnp.ones((3, 4)), tx.init(jnp.ones(4)), jnp.ones(4))


def test_unknown_variant_is_an_error_when_built():
    with pytest.raises(ValueError, match=r"unknown variant 'centre'.*'center', 'avg' or 'proj'"):
        aggregators.dcgd("centre")


@pytest.mark.parametrize("variant", ["center", "avg", "proj"])
def test_weights_function_gives_the_weights_of_the_update(variant):
    g = jnp.array([[1.0, 0.5, 0.0], [-0.8, 0.3, 0.7]])
    tx = aggregators.dcgd(variant)
    update, _ = tx.update(g, tx.init(g[0]), g[0])
    weights = aggregators.dcgd_weights(g @ g.T, variant=variant)
    np.testing.assert_allclose(weights @ g, update, atol=1e-6)  # float32, norms near 1


@pytest.mark.parametrize("variant", ["center", "avg", "proj"])
def test_groups_of_objectives_are_summed_first(x64, variant):
    """Three residuals against one condition, out of order, equal the update of the two sums."""
    g = np.random.default_rng(3).normal(size=(4, 20))
    g[1] -= 1.5 * (g[0] + g[2] + g[3])
    tx = aggregators.dcgd(variant, partition=((0, 3, 2), (1,)))
    update, _ = tx.update(jnp.asarray(g), tx.init(jnp.zeros(20)), jnp.zeros(20))
    sums = np.stack([g[0] + g[2] + g[3], g[1]])
    assert sums.sum(0) @ sums[0] < 0  # they conflict
    pair = aggregators.dcgd(variant)
    expected, _ = pair.update(jnp.asarray(sums), pair.init(jnp.zeros(20)), jnp.zeros(20))
    np.testing.assert_allclose(update, expected, atol=1e-13)  # norms near 20, eps 2e-16


def test_worked_example_of_grouped_objectives():
    # g_r = (1, 0) in two parts, g_b = (-4, 2): proj keeps the part of g_b across g_r, (0, 2).
    g = jnp.array([[3.0, -1.0], [-4.0, 2.0], [-2.0, 1.0]])
    tx = aggregators.dcgd("proj", partition=((0, 2), (1,)))
    update, _ = tx.update(g, tx.init(g[0]), g[0])
    np.testing.assert_allclose(update, [0.0, 2.0], atol=1e-5)  # float32, norms up to 5


@pytest.mark.parametrize(
    "partition", [((0, 1), (1, 2)), ((0, 1),), ((0,), (1, 2, 3)), ((0, -1, 1), (2,))]
)
def test_groups_that_do_not_hold_each_objective_once_are_an_error(partition):
    tx = aggregators.dcgd("avg", partition=partition)
    with pytest.raises(ValueError, match="each index of the 3 objectives, 0 to 2 by sorted name"):
        tx.update(jnp.ones((3, 4)), tx.init(jnp.ones(4)), jnp.ones(4))
