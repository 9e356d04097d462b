"""Eq. 7-9 of ModSync, term by term."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax.sparsity import sparsity_loss

TIGHT = {"rtol": 1e-13}  # a sum of some tens of exponentials in float64


def thresholds(count, size=0.2, seed=0):
    """Thresholds of two layers of 4 and 3 units; biases have none."""
    rng = np.random.default_rng(seed)
    return {
        "first": {"kernel": jnp.asarray(size * rng.normal(size=(count, 1, 4))), "bias": None},
        "last": {"kernel": jnp.asarray(size * rng.normal(size=(count, 1, 3))), "bias": None},
    }


def guarded(x):
    """exp, continued linearly past 4."""
    return np.where(x <= 4.0, np.exp(np.minimum(x, 4.0)), np.exp(4.0) * (x - 3.0))


def by_hand(tree, beta, granularity):
    total = 0.0
    for layer in tree.values():
        t = np.asarray(layer["kernel"])[:, 0]
        pairs = list(itertools.combinations(range(len(t)), 2))
        squared = np.mean([(t[i] - t[j]) ** 2 for i, j in pairs], axis=0) if pairs else 0.0 * t[0]
        r_s = guarded(-t)  # [K, out]
        if granularity == "layer":
            total += guarded(squared.sum() / beta) * r_s.sum()
        else:
            total += (guarded(squared / beta) * r_s.sum(0)).sum()
    return total


@pytest.mark.parametrize("granularity", ["layer", "unit"])
@pytest.mark.parametrize("beta", [0.3, 2.0, math.inf])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("size", [0.0, 0.2, 3.0])  # 3 is beyond the guard of R_w
def test_loss_is_the_sum_over_layers_of_r_w_times_r_s(x64, granularity, beta, count, size):
    tree = thresholds(count, size)
    got = sparsity_loss(tree, beta=beta, granularity=granularity)
    np.testing.assert_allclose(got, by_hand(tree, beta, granularity), **TIGHT)


def test_r_s_alone_is_the_sum_of_exponentials_over_units(x64):
    """Equal thresholds leave R_w = 1 (Eq. 8): two objectives, one unit at 0.5, one at -1."""
    t = {"w": jnp.asarray([[[0.5, -1.0]], [[0.5, -1.0]]])}
    np.testing.assert_allclose(sparsity_loss(t), 2 * (math.exp(-0.5) + math.e), **TIGHT)


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [
        # Distances 0.3 and 0.1, so R_w = exp(0.1 / 0.3) for the layer, exp(0.09 / 0.3) and
        # exp(0.01 / 0.3) for the units; R_s = 1 + exp(-distance) each.
        ("layer", math.exp(0.1 / 0.3) * (2 + math.exp(-0.3) + math.exp(-0.1))),
        (
            "unit",
            math.exp(0.09 / 0.3) * (1 + math.exp(-0.3))
            + math.exp(0.01 / 0.3) * (1 + math.exp(-0.1)),
        ),
    ],
)
def test_r_w_of_two_units_per_layer_and_per_unit(x64, granularity, expected):
    t = {"w": jnp.asarray([[[0.3, 0.0]], [[0.0, 0.1]]])}
    np.testing.assert_allclose(sparsity_loss(t, granularity=granularity), expected, **TIGHT)


def test_r_w_of_three_objectives_is_of_the_mean_over_pairs(x64):
    # Distances 0.1, 0.2 and 0.3: mean square 0.14 / 3.
    t = {"w": jnp.asarray([[[0.0]], [[0.1]], [[0.3]]])}
    expected = math.exp(0.14 / 3 / 0.3) * (1 + math.exp(-0.1) + math.exp(-0.3))
    np.testing.assert_allclose(sparsity_loss(t), expected, **TIGHT)


def test_gradient_passes_both_factors(x64):
    """d/dt_r of R_w (R_s(t_r) + R_s(t_b)): 2 (t_r - t_b) / beta times it, and -R_w exp(-t_r)."""
    t_r, t_b, beta = np.array([0.3, 0.0]), np.array([0.1, 0.2]), 0.3
    grad = jax.grad(sparsity_loss)({"w": jnp.asarray(np.stack([t_r, t_b])[:, None])})["w"][:, 0]
    r_w = np.exp(np.sum((t_r - t_b) ** 2) / beta)
    r_s = np.exp(-t_r).sum() + np.exp(-t_b).sum()
    pull = 2 * (t_r - t_b) / beta * r_w * r_s
    np.testing.assert_allclose(grad[0], pull - r_w * np.exp(-t_r), **TIGHT)
    np.testing.assert_allclose(grad[1], -pull - r_w * np.exp(-t_b), **TIGHT)


def test_gradient_without_synchronisation_only_raises(x64):
    tree = thresholds(2)
    grad = jax.grad(functools.partial(sparsity_loss, beta=math.inf))(tree)
    jax.tree.map(lambda g, t: np.testing.assert_allclose(g, -np.exp(-t), **TIGHT), grad, tree)


@pytest.mark.parametrize("granularity", ["layer", "unit"])
def test_guard_continues_value_and_slope(x64, granularity):
    """Around the exponent 4, distance^2 = 1.2 at beta = 0.3, neither value nor slope jumps."""
    edge = math.sqrt(4 * 0.3)
    loss = jax.value_and_grad(
        lambda d: sparsity_loss({"w": jnp.stack([d, 0.0])[:, None, None]}, granularity=granularity)
    )
    (below, slope_below), (above, slope_above) = loss(edge - 1e-9), loss(edge + 1e-9)
    np.testing.assert_allclose(above, below, rtol=1e-7)  # slope / value is about 7
    np.testing.assert_allclose(slope_above, slope_below, rtol=1e-7)


@pytest.mark.parametrize("granularity", ["layer", "unit"])
@pytest.mark.parametrize("apart", [10.0, 1e3])
def test_far_thresholds_of_a_wide_layer_are_finite_and_still_pulled_together(granularity, apart):
    """In float32, where squares of the gradient must fit Adam's second moment."""
    t = {"w": jnp.stack([jnp.full((1, 512), apart), jnp.full((1, 512), -apart)])}
    loss, grad = jax.value_and_grad(functools.partial(sparsity_loss, granularity=granularity))(t)
    assert np.isfinite(loss)
    assert np.isfinite(np.square(1e-4 * grad["w"])).all()  # as the paper's weight scales it
    assert (grad["w"][0] > 0).all()
    assert (grad["w"][1] < 0).all()


def test_beta_may_be_traced(x64):
    tree = thresholds(2)
    betas = jnp.asarray([0.3, 2.0])
    got = jax.jit(jax.vmap(lambda beta: sparsity_loss(tree, beta=beta)))(betas)
    np.testing.assert_allclose(got, [by_hand(tree, b, "layer") for b in (0.3, 2.0)], **TIGHT)


@pytest.mark.parametrize(
    "wrong", [{"granularity": "row"}, {"beta": 0.0}, {"beta": -0.3}, {"beta": math.nan}]
)
def test_settings_out_of_range_are_an_error(wrong):
    with pytest.raises(ValueError, match="granularity is 'layer' or 'unit', beta > 0; not"):
        sparsity_loss(thresholds(2), **wrong)
