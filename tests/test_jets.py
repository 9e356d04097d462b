"""Jets against nested forward mode, which knows nothing of layers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import jets
from modsync_jax.calculus import Field, laplacian, partials
from modsync_jax.networks import ACTIVATIONS, MLP

# Everything that a residual can ask for: orders alone, sums that share first derivatives with them,
# sums that do not, with a value, and with coefficients of any size and sign.
TERMS = (
    "",
    "t",
    "xx",
    "tx",
    {"t": 1.0, "xx": -0.3},
    {"tt": 1.0, "xx": -1.0, "yy": 2.5},
    {"x": 30.0, "y": -2.0},
    {"": 4.0, "xy": 0.5, "yy": 1.0},
    {"": -3.0},
    "yy",
    {"tx": 1.0, "xt": 2.0},
)
POINT = jnp.array([0.3, -0.7, 1.1])


def both_ways(u, terms=TERMS, x=POINT):
    """What `partials` returns by jets and by nested forward mode."""
    field = Field(u, ("t", "x", "y"), takes_jets=True)
    plain = dataclasses.replace(field, takes_jets=False)
    return [jnp.stack(partials(f, jnp.asarray(x, jnp.float64), *terms)) for f in (field, plain)]


def assert_equal(carried, nested):
    # Both in float64: 1e-12 of the largest leaves room for other orders of rounding.
    np.testing.assert_allclose(carried, nested, rtol=0, atol=1e-12 * np.abs(nested).max())


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_a_network_carries_what_forward_mode_computes(x64, activation, scaled):
    scaling = {"shift": (0.5, -1.0, 2.0), "scale": (2.0, 0.3, 1.5)} if scaled else {}
    network = MLP(
        width=9, depth=3, outputs=2, activation=activation, param_dtype=jnp.float64, **scaling
    )
    variables = network.init(jax.random.key(1), POINT)
    u = functools.partial(network.apply, variables)
    assert_equal(*both_ways(u))
    for term in TERMS:  # alone, nothing is shared
        assert_equal(*both_ways(u, (term,)))


def test_arithmetic_follows_the_rules_of_sum_and_product(x64):
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))

    def u(x):
        a = jets.elementwise(jnp.tanh, jets.linear(kernel, x))
        b = jets.elementwise(jnp.exp, 0.3 * x * np.array([1.0, -2.0, 0.5]) + 1.0)
        b = jets.linear(kernel, b, jnp.arange(4.0))
        gate = jnp.arange(4.0) * a * b - (1.0 - a) * (-b) + 2.0 - a
        return jets.concatenate([gate, jets.elementwise(jnp.sin, gate), x * x])

    assert_equal(*both_ways(u))


@pytest.fixture
def network(x64):
    """Fields of a small network by its variables, the variables, and points."""
    module = MLP(width=5, depth=2, param_dtype=jnp.float64)
    points = jax.random.normal(jax.random.key(1), (6, 3), jnp.float64)

    def field(variables, takes_jets):
        return Field(functools.partial(module.apply, variables), ("t", "x", "y"), takes_jets)

    return field, module.init(jax.random.key(0), POINT), points


def assert_gradients_equal(by_jets, by_jvp):
    for got, want in zip(*map(jax.tree.leaves, (by_jets, by_jvp)), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * max(1, np.abs(want).max()))


def test_gradients_pass_through_jets_and_their_coefficients(network):
    field, variables, points = network

    def loss(variables, coefficient, takes_jets):
        u = field(variables, takes_jets)

        def residual(x):
            value, u_x, heat = partials(u, x, "", "x", {"t": 1.0, "xx": -coefficient, "yy": 0.2})
            return heat + value * u_x

        return jnp.mean(jax.vmap(residual)(points) ** 2)

    slopes = jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)
    assert_gradients_equal(*(slopes(variables, 0.7, takes_jets) for takes_jets in (True, False)))


def test_gradients_of_single_points_can_be_mapped(network):
    """What an exact trace of a tangent kernel does."""
    field, variables, points = network

    def at_point(variables, x, takes_jets):
        return laplacian(field(variables, takes_jets), x)[0]

    slopes = jax.vmap(jax.grad(at_point), (None, 0, None))
    assert_gradients_equal(*(slopes(variables, points, takes_jets) for takes_jets in (True, False)))


def test_sums_are_carried_as_one(x64):
    """The Laplacian costs one product a layer, beside the value and the first derivatives."""
    network = MLP(width=8, depth=2)
    variables = network.init(jax.random.key(0), POINT)
    u = Field(functools.partial(network.apply, variables), ("t", "x", "y"), takes_jets=True)

    def products(*terms):
        jaxpr = jax.make_jaxpr(lambda x: partials(u, x, *terms))(POINT).jaxpr
        dots = [e for e in jaxpr.eqns if e.primitive.name == "dot_general"]
        return sum([v.aval.shape for v in e.invars] == [(8, 8), (8,)] for e in dots)

    assert products("", "tt", "xx", "yy") == 7
    assert products("", {"tt": 1.0, "xx": 1.0, "yy": 1.0}) == 5
    assert products("", {"t": 1.0, "x": 3.0}) == 2


def test_orders_above_the_second_are_left_to_forward_mode():
    network = MLP(width=4, depth=2)
    x = jnp.array([0.2])
    variables = network.init(jax.random.key(0), x)
    apply = functools.partial(network.apply, variables)
    assert jets.operate(apply, x, [{(): 1.0}, {(0, 0, 0): 1.0}]) is None
    third = jax.jacfwd(jax.jacfwd(jax.jacfwd(lambda x: apply(x)[0])))(x)
    # float32, the same nesting of forward mode
    np.testing.assert_allclose(
        partials(Field(apply, ("x",), takes_jets=True), x, "xxx")[0], third.ravel(), rtol=1e-4
    )
