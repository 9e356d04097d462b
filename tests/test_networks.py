"""The multilayer perceptron against its formula in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax.networks import ACTIVATIONS, MLP


def parameters(network, d=2):
    return network.init(jax.random.key(0), jnp.zeros(d))


def test_the_network_is_its_formula_with_depth_hidden_layers(x64):
    network = MLP(
        width=5, depth=3, outputs=2, shift=(1.0, -2.0), scale=(0.5, 3.0), param_dtype=jnp.float64
    )
    params = parameters(network)
    x = np.random.default_rng(0).normal(size=(4, 2))
    layers = [params["params"][f"Dense_{i}"] for i in range(4)]
    assert len(params["params"]) == 4
    hidden = (x - [1.0, -2.0]) / [0.5, 3.0]
    for layer in layers[:-1]:
        hidden = np.tanh(hidden @ layer["kernel"] + layer["bias"])
    expected = hidden @ layers[-1]["kernel"] + layers[-1]["bias"]
    # 1e-13: float64 rounding over four layers.
    np.testing.assert_allclose(
        network.apply(params, jnp.asarray(x)), expected, rtol=1e-13, atol=1e-13
    )


def test_any_leading_axes_are_points():
    network = MLP(width=4, depth=1, outputs=3)
    params, x = parameters(network), jnp.arange(12.0).reshape(2, 3, 2)
    values = network.apply(params, x)
    assert values.shape == (2, 3, 3)
    # 1e-6: float32; the batched product may add in another order.
    np.testing.assert_allclose(values[1, 2], network.apply(params, x[1, 2]), rtol=1e-6, atol=1e-6)


def test_kernels_start_xavier_normal_and_biases_zero():
    params = parameters(MLP(width=200, depth=2))["params"]
    kernel = params["Dense_1"]["kernel"]
    # The standard deviation of 40,000 draws scatters by 0.35%; 2% is more than five of that.
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / (200 + 200)), rtol=0.02)
    assert np.max(np.abs(kernel)) > 2 * np.std(kernel)  # a uniform one ends at √3 deviations
    assert all(not np.any(layer["bias"]) for layer in params.values())


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_is_the_one_applied(name):
    network = MLP(width=3, depth=1, activation=name)
    params = parameters(network)
    x = jnp.array([0.3, -0.8])
    first, last = params["params"]["Dense_0"]["kernel"], params["params"]["Dense_1"]["kernel"]
    # 1e-6: float32 rounding of values of order 1.
    expected = ACTIVATIONS[name](x @ first) @ last
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-6, atol=1e-6)


def test_parameter_dtype(x64):
    for dtype in (jnp.float32, jnp.float64):
        params = parameters(MLP(width=3, depth=1, param_dtype=dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"depth": -1}, "depth must be at least 1, got -1"),
        ({"outputs": 0}, "outputs must be at least 1, got 0"),
        ({"activation": "tahn"}, "unknown activation 'tahn'; did you mean 'tanh'"),
        ({"shift": (0.0,)}, "shift and scale need one number each"),
        ({"shift": (0.0, 0.0), "scale": (1.0, 0.0)}, "no scale of zero"),
    ],
)
def test_bad_arguments_are_named_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**{"width": 3, "depth": 1, **arguments})


def test_standardisation_of_other_points_is_an_error():
    with pytest.raises(ValueError, match=r"have 1 coordinates, but the points have shape \(2,\)"):
        parameters(MLP(width=3, depth=1, shift=(0.0,), scale=(1.0,)))
