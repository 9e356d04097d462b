"""Thresholds, masks and what they leave of a network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import sparsity

PARAMS = {
    "Dense_0": {"kernel": np.ones((3, 5), np.float32), "bias": np.ones(5, np.float32)},
    "Conv_0": {"kernel": np.ones((2, 2, 3, 4), np.float32)},
    "steps": np.zeros((2, 2), np.int32),
}


def params():
    return jax.tree.map(jnp.asarray, PARAMS)


def test_floating_leaves_of_two_or_more_axes_get_one_zero_per_objective_and_output():
    thresholds = sparsity.init_thresholds(params(), 3)
    assert thresholds["Dense_0"]["kernel"].shape == (3, 1, 5)
    assert thresholds["Conv_0"]["kernel"].shape == (3, 1, 1, 1, 4)
    assert thresholds["Dense_0"]["bias"] is None
    assert thresholds["steps"] is None
    assert all(not leaf.any() for leaf in jax.tree.leaves(thresholds))


def test_output_axis_serves_other_layouts():
    thresholds = sparsity.init_thresholds(params(), 2, output_axis=0)
    assert thresholds["Dense_0"]["kernel"].shape == (2, 3, 1)
    assert thresholds["Conv_0"]["kernel"].shape == (2, 2, 1, 1, 1)


def test_select_sees_path_and_leaf():
    seen = {}

    def select(path, leaf):
        seen[path] = leaf.shape
        return path == "Dense_0/bias"

    thresholds = sparsity.init_thresholds(params(), 2, select=select)
    assert thresholds["Dense_0"]["bias"].shape == (2, 5)
    assert len(jax.tree.leaves(thresholds)) == 1
    assert seen == {
        "Dense_0/kernel": (3, 5),
        "Dense_0/bias": (5,),
        "Conv_0/kernel": (2, 2, 3, 4),
    }


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_thresholds_are_float32_or_wider_and_masks_have_the_dtype_of_the_weights(x64, dtype):
    weights = {"w": jnp.ones((2, 3), dtype)}
    thresholds = sparsity.init_thresholds(weights, 2)
    assert thresholds["w"].dtype == (jnp.float64 if dtype == jnp.float64 else jnp.float32)
    assert sparsity.masks(weights, thresholds)["w"].dtype == dtype


def test_threshold_of_bfloat16_weights_moves_by_small_steps():
    """In bfloat16 a step of 1e-4 vanishes beside 0.03125, whose unit is 2.4e-4."""
    thresholds = sparsity.init_thresholds({"w": jnp.ones((2, 3), jnp.bfloat16)}, 2)
    moved = thresholds["w"] + 0.03125
    assert (optax.apply_updates(moved, jnp.full_like(moved, 1e-4)) > moved).all()


def test_kernel_of_zeros_is_refused_and_may_be_left_out():
    """It is masked, S(0) = 0, and has no gradient: it would never move."""
    zeros = params() | {"head": jnp.zeros((5, 2))}
    with pytest.raises(ValueError, match=r"head is all zeros, .*or leave it out with select="):
        sparsity.init_thresholds(zeros, 2)
    chosen = sparsity.init_thresholds(zeros, 2, select=lambda path, leaf: path != "head")
    assert chosen["head"] is None
    assert chosen["Dense_0"]["bias"] is not None  # the predicate alone decides
    mixed = {"w": jnp.ones((5, 2)).at[0].set(0.0)}
    assert sparsity.init_thresholds(mixed, 2)["w"].shape == (2, 1, 2)


def test_kernels_that_are_traced_are_not_looked_at():
    got = jax.jit(lambda: sparsity.init_thresholds({"w": jnp.zeros((3, 2))}, 2))()
    assert got["w"].shape == (2, 1, 2)
    host = {"w": np.ones((3, 2))}
    assert jax.eval_shape(lambda: sparsity.init_thresholds(host, 2))["w"].shape == (2, 1, 2)


@pytest.mark.parametrize("broken", ["weight", "threshold"])
def test_share_of_what_is_not_a_number_is_not_a_number(broken):
    weights = {"w": jnp.ones((4, 3)), "v": jnp.ones((4, 3))}
    thresholds = sparsity.init_thresholds(weights, 2)
    target = weights if broken == "weight" else thresholds
    target["w"] = target["w"].at[0, 0].set(jnp.nan)
    kept = sparsity.keep_ratio(weights, thresholds)
    assert jnp.isnan(kept.layers["w"])
    assert kept.layers["v"] == 1.0
    assert jnp.isnan(kept.overall)


def test_select_that_matches_nothing_is_an_error_that_lists_the_names():
    with pytest.raises(ValueError, match=r"no parameter gets thresholds.*Dense_0/kernel"):
        sparsity.init_thresholds(params(), 2, select=lambda path, leaf: "dense" in path)


def test_leaf_without_the_output_axis_is_an_error():
    with pytest.raises(ValueError, match="Dense_0/bias has 1 axes and no output_axis=1"):
        sparsity.init_thresholds(params(), 2, select=lambda path, _: "bias" in path, output_axis=1)


@pytest.mark.parametrize("count", [0, -1])
def test_number_of_objectives_must_be_positive(count):
    with pytest.raises(ValueError, match=f"num_objectives is {count}; it must be 1 or more"):
        sparsity.init_thresholds(params(), count)


# Magnitudes 0.1 .. 0.6 against the mean thresholds 0.35 and 0.5 of two output units.
WEIGHTS = {"w": jnp.asarray([[0.1, -0.2], [-0.3, 0.4], [0.5, -0.6]]), "bias": jnp.ones(2)}
THRESHOLDS = {"w": jnp.asarray([[[0.2, 0.25]], [[0.5, 0.75]]]), "bias": None}


def test_masks_keep_what_is_above_the_mean_threshold_of_its_output():
    masks = sparsity.masks(WEIGHTS, THRESHOLDS)
    np.testing.assert_array_equal(masks["w"], [[0, 0], [0, 0], [1, 1]])
    assert masks["bias"] is None


def test_weight_at_its_threshold_is_cut():
    masks = sparsity.masks(
        {"w": jnp.asarray([[0.0, 0.5, 0.25]])}, {"w": jnp.asarray([[[0.0, 0.5, 0]]])}
    )
    np.testing.assert_array_equal(masks["w"], [[0, 0, 1]])


def test_masks_pass_gradients_to_weights_only_with_the_structural_path(x64):
    # q = |w| - t of the weight -0.6 against 0.5 is 0.1: slope 1.6, and d|w|/dw = -1.
    def cut(w, structural_gradient):
        masks = sparsity.masks(
            {"w": w}, {"w": THRESHOLDS["w"]}, structural_gradient=structural_gradient
        )
        return masks["w"][2, 1]

    w = jnp.asarray(WEIGHTS["w"], jnp.float64)
    np.testing.assert_allclose(jax.grad(cut)(w, True)[2, 1], -1.6, rtol=1e-6)  # 0.6 is a float32
    np.testing.assert_array_equal(jax.grad(cut)(w, False), np.zeros((3, 2)))


def test_keep_ratio_per_layer_and_overall():
    weights = {"net": WEIGHTS, "other": jnp.ones((1, 4))}
    thresholds = {"net": THRESHOLDS, "other": jnp.asarray([[[0.0, 0.0, 0.0, 2.0]]])}
    ratio = jax.jit(sparsity.keep_ratio)(weights, thresholds)
    assert set(ratio.layers) == {"net/w", "other"}
    np.testing.assert_allclose(ratio.layers["net/w"], 2 / 6, rtol=1e-6)  # float32
    np.testing.assert_allclose(ratio.layers["other"], 3 / 4)
    np.testing.assert_allclose(ratio.overall, 5 / 10, rtol=1e-6)  # of 10 weights, not of 2 layers


def test_keep_ratio_of_low_precision_counts_exactly():
    """A bfloat16 mean of 513 kept weights in 1024 would be off by a thousandth."""
    weights = {"w": jnp.asarray(np.arange(1024) < 513, jnp.bfloat16)[:, None]}
    ratio = sparsity.keep_ratio(weights, {"w": jnp.zeros((2, 1, 1), jnp.bfloat16)})
    np.testing.assert_array_equal(ratio.overall, np.float32(513 / 1024))
