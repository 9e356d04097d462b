"""Thresholds, masks and what they leave of a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import sparsity

PARAMS = {
    "Dense_0": {"kernel": np.zeros((3, 5), np.float32), "bias": np.zeros(5, np.float32)},
    "Conv_0": {"kernel": np.zeros((2, 2, 3, 4), np.float32)},
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


def test_thresholds_have_the_dtype_of_their_parameter():
    low = {"w": jnp.ones((2, 3), jnp.bfloat16)}
    assert sparsity.init_thresholds(low, 2)["w"].dtype == jnp.bfloat16


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
