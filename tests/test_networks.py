"""The networks against their formulas in NumPy, and jets through them against forward mode."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import aggregators, modsync, with_thresholds
from modsync_jax.calculus import Field, divergence, gradient, laplacian, partials
from modsync_jax.networks import ACTIVATIONS, MLP, NETWORKS, Constrained


def parameters(network, d=2):
    return network.init(jax.random.key(0), jnp.zeros(d))


def test_the_network_is_its_formula_with_depth_hidden_layers(x64):
    network = MLP(
        width=5, depth=3, outputs=2, shift=(1.0, -2.0), scale=(0.5, 3.0), activation="sin/tanh",
        omega=1.5, param_dtype=jnp.float64,
    )  # fmt: skip
    params = parameters(network)
    x = np.random.default_rng(0).normal(size=(4, 2))
    layers = [params["params"][f"Dense_{i}"] for i in range(4)]
    assert len(params["params"]) == 4
    hidden = 1.5 * (x - [1.0, -2.0]) / [0.5, 3.0]
    for layer, function in zip(layers, (np.sin, np.tanh, np.sin), strict=False):
        hidden = function(hidden @ layer["kernel"] + layer["bias"])
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
        ({"activation": "tanh/sni"}, "unknown activation 'sni'; did you mean 'sin'"),
        ({"shift": (0.0,)}, "shift and scale need one number each"),
        ({"shift": (0.0, 0.0), "scale": (1.0, 0.0)}, "no scale of zero"),
        ({"fourier_features": 3}, "fourier_features must be even"),
    ],
)
def test_bad_arguments_are_named_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**{"width": 3, "depth": 1, **arguments})


def test_standardisation_of_other_points_is_an_error():
    with pytest.raises(ValueError, match=r"has 1 coordinates, but the points have shape \(2,\)"):
        parameters(MLP(width=3, depth=1, shift=(0.0,), scale=(1.0,)))


# --- the other networks ---------------------------------------------------------------------------

OPTIONS = {
    "plain": {},
    "adaptive": {"adaptive": 5.0},
    "factorized": {"factorized": True},
    "fourier": {"fourier_features": 6, "fourier_scale": 2.0},
    "periodic": {"periods": (0.0, 2.0)},
    "turns": {"activation": "sin/tanh/swish", "omega": 3.0},
    "all": {
        "adaptive": 2.0,
        "factorized": True,
        "fourier_features": 8,
        "periods": (0.0, 2.0),
        "shift": (0.5, 0.1),
        "scale": (0.3, 2.0),
        "activation": "swish",
    },
}
KINDS = pytest.mark.parametrize("kind", sorted(NETWORKS))


def trained_a_little(params):
    """Parameters that are neither zero nor one anywhere, so that no term hides."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    moved = [x + 0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, moved)


def make(kind, option, **more):
    network = NETWORKS[kind](
        width=6, depth=2, outputs=2, param_dtype=jnp.float64, **OPTIONS[option], **more
    )
    return network, trained_a_little(parameters(network))


def modified_mlp(p, x, turn=lambda index: np.tanh):
    """`turn(index)` is the activation of a hidden layer, and of the encoders at 0."""
    d = [lambda h, i=i: h @ p[f"Dense_{i}"]["kernel"] + p[f"Dense_{i}"]["bias"] for i in range(5)]
    u, v = turn(0)(d[0](x)), turn(0)(d[1](x))
    for i in (2, 3):
        h = turn(i - 2)(d[i](x))
        x = (1 - h) * u + h * v
    return d[4](x)


def piratenet(p, x, turn=lambda index: np.tanh):
    d = [lambda h, i=i: h @ p[f"Dense_{i}"]["kernel"] + p[f"Dense_{i}"]["bias"] for i in range(9)]
    u, v = turn(0)(d[0](x)), turn(0)(d[1](x))
    for block in range(2):
        first, second, third = d[2 + 3 * block : 5 + 3 * block]
        f = turn(3 * block)(first(x))
        z = f * u + (1 - f) * v
        g = turn(3 * block + 1)(second(z))
        z = g * u + (1 - g) * v
        h, alpha = turn(3 * block + 2)(third(z)), p[f"alpha_{block}"]
        x = alpha * h + (1 - alpha) * x
    return d[8](x)


def swish(z):
    return z / (1 + np.exp(-z))


# The settings of networks, and what they mean in the formulas: a factor of the points, and `turn`.
MEANT = {
    "plain": (1.0, lambda index: np.tanh),
    "turns": (3.0, lambda index: (np.sin, np.tanh, swish)[index % 3]),
}


@pytest.mark.parametrize("option", sorted(MEANT))
def test_the_modified_mlp_is_its_formula(x64, option):
    network, params = make("modified-mlp", option)
    x = np.random.default_rng(0).normal(size=(4, 2))
    factor, turn = MEANT[option]
    expected = modified_mlp(params["params"], factor * x, turn)
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("option", sorted(MEANT))
def test_a_piratenet_is_its_formula_with_the_encoders_in_the_papers_order(x64, option):
    network, params = make("piratenet", option)
    x = np.random.default_rng(0).normal(size=(4, 2))
    swapped = params["params"] | {  # the gate is (1 - H) U + H V here, and f U + (1 - f) V there
        "Dense_0": params["params"]["Dense_1"],
        "Dense_1": params["params"]["Dense_0"],
    }
    factor, turn = MEANT[option]
    expected = piratenet(swapped, factor * x, turn)
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-13, atol=1e-13)


def test_the_blocks_of_a_piratenet_start_as_the_identity(x64):
    network = NETWORKS["piratenet"](width=6, depth=3, fourier_features=8, param_dtype=jnp.float64)
    params = parameters(network)
    p, x = params["params"], np.array([0.3, -0.8])
    angles = x @ p["FourierFeatures_0"]["frequencies"].reshape(2, 4)
    last = p["Dense_11"]
    expected = np.concatenate([np.cos(angles), np.sin(angles)]) @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.long
def test_factorised_kernels_and_adaptive_slopes_start_as_plain_ones(x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    network, _ = make("mlp", "all")
    plain = dataclasses.replace(network, factorized=False, adaptive=0.0)
    params = parameters(network)["params"]
    for name, layer in params.items():
        if "Dense" in name:
            factor = jnp.exp(layer["log_factor"])
            assert 0.5 < jnp.log(factor).min() < jnp.log(factor).max() < 1.5
            params[name] = {"kernel": factor * layer["kernel"], "bias": layer["bias"]}
    plain_params = {k: v for k, v in params.items() if "Activation" not in k}
    expected = plain.apply({"params": plain_params}, x)
    got = network.apply(parameters(network), x)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    kernel = params["Dense_1"]["kernel"]  # 36 draws: the deviation scatters by 12%
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / 12), rtol=0.5)


@KINDS
def test_periods_hold_for_the_field_and_its_derivatives(x64, kind):
    network, params = make(kind, "all")
    u = Field(functools.partial(network.apply, params), ("t", "x"), takes_jets=True)
    x = jnp.array([0.2, -0.7])
    one, other = (
        jnp.stack(partials(u, p, "", "x", "xx", "tx")) for p in (x, x + jnp.array([0.0, 2.0]))
    )
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * np.abs(one).max())
    assert np.abs(u(x) - u(x + jnp.array([0.3, 0.0]))).max() > 1e-3


@pytest.mark.long
@KINDS
@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_every_network_carries_what_forward_mode_computes(x64, kind, option):
    network, params = make(kind, option)
    terms = ("", "t", "tx", "xx", {"": 2.0, "t": 1.0, "xx": -0.3}, {"tt": 1.0, "xx": -1.0})

    def field(takes_jets, dtype):
        narrow = dataclasses.replace(network, param_dtype=dtype)
        variables = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        u = Field(functools.partial(narrow.apply, variables), ("t", "x"), takes_jets)
        return u, jnp.array([0.3, -0.7], dtype)

    def operators(takes_jets, dtype=jnp.float64):
        u, x = field(takes_jets, dtype)
        ours = [laplacian(u, x), *gradient(u, x).T, divergence(u, x) * jnp.ones(2, dtype)]
        found = jnp.stack([*partials(u, x, *terms), *ours])
        assert found.dtype == dtype
        return found

    carried, nested = operators(True), operators(False)
    # 1e-12 of the largest leaves room for other orders of rounding; a float32 has 2e9 times that of
    # a float64, but nothing here is as bad as 1e-12 allows.
    atol = np.abs(nested).max()
    np.testing.assert_allclose(carried, nested, rtol=0, atol=1e-12 * atol)
    np.testing.assert_allclose(operators(True, jnp.float32), nested, rtol=0, atol=2e-5 * atol)
    (third,), (plain,) = (partials(*field(jets, jnp.float64), "txx") for jets in (True, False))
    np.testing.assert_allclose(third, plain, rtol=0, atol=1e-12 * np.abs(plain).max())


@KINDS
@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_any_leading_axes_are_points_of_every_network(x64, kind, option):
    network, params = make(kind, option)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 2)))
    values = network.apply(params, x)
    assert values.shape == (2, 3, 2)
    np.testing.assert_allclose(values[1, 2], network.apply(params, x[1, 2]), rtol=1e-12)


def test_a_constrained_network_satisfies_its_conditions_and_carries_derivatives(x64):
    inner, _ = make("modified-mlp", "plain")
    network = Constrained(
        inner,
        offset=lambda x: jnp.stack([jnp.sin(x[0]), x[1] ** 2]),
        distance=lambda x: x[:1] * (1 - x[1:] ** 2),
    )
    params = trained_a_little(parameters(network))
    for point in ([0.0, 0.3], [0.7, 1.0], [0.2, -1.0]):
        t, x = point
        value = network.apply(params, jnp.array(point))
        np.testing.assert_allclose(value, [np.sin(t), x**2], atol=1e-15)
    field = Field(functools.partial(network.apply, params), ("t", "x"), network.takes_jets)
    x = jnp.array([0.3, -0.7])
    plain = dataclasses.replace(field, takes_jets=False)
    assert field.takes_jets
    for terms in (("", "x", {"t": 1.0, "xx": -0.3, "tx": 2.0}), ({"x": 1.0, "txx": 0.5},)):
        carried, nested = (jnp.stack(partials(f, x, *terms)) for f in (field, plain))
        np.testing.assert_allclose(carried, nested, rtol=0, atol=1e-12 * np.abs(nested).max())
    batch = jnp.stack([x, -x])
    np.testing.assert_allclose(network.apply(params, batch)[0], network.apply(params, x))


@KINDS
def test_modsync_masks_kernels_and_nothing_else(x64, kind):
    _, params = make(kind, "all")
    thresholds = with_thresholds(params, 2).thresholds
    owners = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(thresholds)
    }
    layers = {"mlp": 3, "modified-mlp": 5, "piratenet": 9}[kind]
    assert owners == {f"params/Dense_{i}/kernel" for i in range(layers)}


@pytest.mark.long
@KINDS
def test_random_frequencies_are_not_trained(kind):
    network = NETWORKS[kind](width=4, depth=1, fourier_features=6)
    params = with_thresholds(parameters(network), 2)
    tx = modsync(optax.chain(aggregators.dcgd(), optax.adam(1e-2)))
    x = jnp.ones((3, 2))

    def loss(params):
        return jnp.sum(network.apply(params.weights, x) ** 2)

    grads = jax.tree.map(lambda g: jnp.stack([g, g]), jax.grad(loss)(params))
    updates = tx.update(grads, tx.init(params), params)[0].weights["params"]
    assert not updates["FourierFeatures_0"]["frequencies"].any()
    # Dense_0 of a piratenet is an encoder, which α = 0 switches off at the start.
    assert all(updates[n]["kernel"].any() for n in updates if "Dense" in n) or kind == "piratenet"
