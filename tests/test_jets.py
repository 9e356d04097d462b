"""Jets against nested forward mode, which knows nothing of layers."""

import collections
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
# What is carried for these are orders of the above, and new ones.
HIGHER = ("xxx", {"t": 1.0, "xxx": 0.2}, "txy", {"xxt": 1.0, "ttx": -2.0, "xy": 3.0, "y": 1.0})
FOURTH = ("xxxx", {"tttt": 1.0, "ttxx": 2.0, "xxxx": 1.0}, "txyy")
POINT = jnp.array([0.3, -0.7, 1.1])


def both_ways(u, terms=TERMS, x=POINT):
    """What `partials` returns by jets and by nested forward mode."""
    field = Field(u, ("t", "x", "y"), takes_jets=True)
    plain = dataclasses.replace(field, takes_jets=False)
    return [jnp.stack(partials(f, jnp.asarray(x, jnp.float64), *terms)) for f in (field, plain)]


def assert_equal(carried, nested):
    # Both in float64: 1e-12 of the largest leaves room for other orders of rounding.
    np.testing.assert_allclose(carried, nested, rtol=0, atol=1e-12 * np.abs(nested).max())


@pytest.mark.long
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
    assert_equal(*both_ways(u, TERMS + HIGHER))
    for term in TERMS + HIGHER:  # alone, nothing is shared
        assert_equal(*both_ways(u, (term,)))


@pytest.mark.long
def test_arithmetic_follows_the_rules_of_sum_and_product(x64):
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))

    def u(x):
        a = jets.elementwise(jnp.tanh, jets.linear(kernel, x))
        b = jets.elementwise(jnp.exp, 0.3 * x * np.array([1.0, -2.0, 0.5]) + 1.0)
        b = jets.linear(kernel, b, jnp.arange(4.0))
        gate = jnp.arange(4.0) * a * b - (1.0 - a) * (-b) + 2.0 - a
        return jets.concatenate([gate, jets.elementwise(jnp.sin, gate), x * x])

    assert_equal(*both_ways(u))
    assert_equal(*both_ways(u, TERMS + HIGHER + FOURTH))


@pytest.mark.long
def test_any_function_can_be_called(x64):
    """Its derivatives are taken by forward mode, and composed with those of what it is given."""

    def inner(x):
        return jets.elementwise(jnp.tanh, jets.linear(jnp.arange(9.0).reshape(3, 3) / 9, x))

    def u(x):
        return jets.call(lambda y: jnp.stack([y[0] * y[1] * y[2], jnp.exp(y[0] - y[2])]), inner(x))

    assert_equal(*both_ways(u))
    assert_equal(*both_ways(u, TERMS + HIGHER + FOURTH))


@pytest.mark.parametrize("size", [1.0, 30.0, 1e4, 1e6, 1e12])
@pytest.mark.parametrize(("ours", "exact"), [(jnp.sin, np.sin), (jnp.cos, np.cos)])
def test_sines_and_cosines_have_the_digits_of_a_library(x64, ours, exact, size):
    """At random numbers, and where the quarter turns change; NumPy's are below one unit."""
    z = size * np.random.default_rng(0).uniform(-1, 1, 4000)
    quarters = np.round(size) // 2 + np.arange(-40, 41) / 2
    z = np.concatenate([z, quarters * np.pi / 2, np.nextafter(quarters * np.pi / 2, 0), [0.0]])
    # a unit at 1; beyond 2^20 quarter turns, the rounding of the angle itself
    allowed = np.finfo(float).eps * np.where(np.abs(z) < 2**20, 1, np.abs(z))
    assert (np.abs(jets.elementwise(ours, jnp.asarray(z)) - exact(z)) <= allowed).all()


def test_sines_and_cosines_of_other_dtypes_and_of_what_is_not_finite(x64):
    z = jnp.linspace(-9, 9, 50, dtype=jnp.float32)
    assert jets.elementwise(jnp.sin, z).dtype == np.float32
    np.testing.assert_array_equal(jets.elementwise(jnp.sin, z), jnp.sin(z))
    np.testing.assert_array_equal(jets.elementwise(jnp.cos, z), jnp.cos(z))
    assert np.isnan(jets.elementwise(jnp.sin, jnp.array([np.nan, np.inf, -np.inf]))).all()
    slope = jax.grad(jax.grad(lambda z: jets.elementwise(jnp.sin, z)))
    assert slope(0.3) == pytest.approx(-np.sin(0.3), rel=1e-14)


@pytest.mark.parametrize("function", [jnp.tanh, jnp.sin, jnp.cos, jnp.exp])
def test_derivatives_of_an_activation_are_those_of_forward_mode(x64, function):
    """Of the first four; those written out are three, and the fourth is the slope of the third."""
    z, x = jnp.linspace(-3, 3, 13), jnp.array([0.4])

    def u(x):
        return jets.elementwise(function, jets.linear(z[None], x))

    names = ("", "x", "xx", "xxx", "xxxx")
    got = partials(Field(u, ("x",), takes_jets=True), x, *names)
    want = partials(Field(u, ("x",)), x, *names)
    np.testing.assert_allclose(jnp.stack(got), jnp.stack(want), rtol=1e-12, atol=1e-12)


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


@pytest.mark.long
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
    assert products("", "x", {"t": 1.0, "xxx": 0.1}) == 4  # Korteweg-de Vries: u, u_x, u_xx, one


def test_a_split_of_an_order_is_counted_as_often_as_it_occurs():
    """Faà di Bruno's formula for the fourth derivative, 1 + 4 + 3 + 6 splits with all apart."""
    counts = collections.Counter(tuple(sorted(map(len, s))) for s in jets._splits((0, 0, 0, 0)))
    assert counts == {(1, 3): 4, (2, 2): 3, (1, 1, 2): 6, (1, 1, 1, 1): 1}
