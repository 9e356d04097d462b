"""Derivatives against formulas and against `jax.jacobian` and `jax.hessian`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax.calculus import Field, directional, divergence, gradient, laplacian, partials
from modsync_jax.sampling import numbered

ROUNDING = 1e-12  # float64: a few hundred operations on values of order 1 to 10


def wave(p):
    t, x = p
    return jnp.stack([jnp.exp(-t) * jnp.sin(2 * x), t**3 * x**4])


def tiny_network(d, m):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(d, 7)), rng.normal(size=(7, m))
    return lambda p: jnp.tanh(p @ first) @ second


WAVE_DERIVATIVES = {
    "": lambda t, x: (np.exp(-t) * np.sin(2 * x), t**3 * x**4),
    "t": lambda t, x: (-np.exp(-t) * np.sin(2 * x), 3 * t**2 * x**4),
    "x": lambda t, x: (2 * np.exp(-t) * np.cos(2 * x), 4 * t**3 * x**3),
    "xx": lambda t, x: (-4 * np.exp(-t) * np.sin(2 * x), 12 * t**3 * x**2),
    "tx": lambda t, x: (-2 * np.exp(-t) * np.cos(2 * x), 12 * t**2 * x**3),
    "xt": lambda t, x: (-2 * np.exp(-t) * np.cos(2 * x), 12 * t**2 * x**3),
    "xxx": lambda t, x: (-8 * np.exp(-t) * np.cos(2 * x), 24 * t**3 * x),
    "ttxx": lambda t, x: (-4 * np.exp(-t) * np.sin(2 * x), 72 * t * x**2),
}


@pytest.mark.parametrize(
    "names", [tuple(WAVE_DERIVATIVES), ("xx", ""), ("xt",), ("t", "t"), ("ttxx",), ("",)]
)
def test_partials_equal_the_formulas_in_the_order_asked(x64, names):
    t, x = 0.7, -0.4
    values = partials(Field(wave, ("t", "x")), jnp.array([t, x]), *names)
    assert len(values) == len(names)
    for name, value in zip(names, values, strict=True):
        np.testing.assert_allclose(value, WAVE_DERIVATIVES[name](t, x), rtol=ROUNDING)


def test_value_and_all_orders_along_one_axis_evaluate_the_field_once(x64):
    calls = []

    def u(p):
        calls.append(p)
        return wave(p)

    partials(u, jnp.array([0.7, -0.4]), "", "x", "xx", "xxx", coordinates=("t", "x"))
    assert len(calls) == 1


def test_an_operator_is_the_sum_of_its_terms(x64):
    field, x = Field(wave, ("t", "x")), jnp.array([0.7, -0.4])
    u, u_t, u_xx, u_tx = partials(field, x, "", "t", "xx", "tx")
    (operator,) = partials(field, x, {"": 2.0, "t": 1.0, "xx": -0.5, "tx": 1.0, "xt": 3.0})
    np.testing.assert_allclose(operator, 2 * u + u_t - 0.5 * u_xx + 4 * u_tx, rtol=ROUNDING)


def test_derivatives_of_a_network_equal_reverse_mode(x64):
    u, x = tiny_network(3, 2), jnp.array([0.3, -0.2, 0.5])
    jacobian, hessian = jax.jacrev(u)(x), jax.hessian(u)(x)
    field = Field(u, ("t", "x", "y"))
    u_xy, u_tt, u_yt = partials(field, x, "xy", "tt", "yt")
    np.testing.assert_allclose(u_xy, hessian[:, 1, 2], atol=ROUNDING)
    np.testing.assert_allclose(u_tt, hessian[:, 0, 0], atol=ROUNDING)
    np.testing.assert_allclose(u_yt, hessian[:, 2, 0], atol=ROUNDING)
    np.testing.assert_allclose(gradient(field, x), jacobian, atol=ROUNDING)
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    np.testing.assert_allclose(laplacian(field, x), diagonal.sum(-1), atol=ROUNDING)
    np.testing.assert_allclose(
        laplacian(field, x, over="xy"), diagonal[:, 1:].sum(-1), atol=ROUNDING
    )
    direction = jnp.array([0.1, -2.0, 0.7])
    value, slope = directional(field, x, direction)
    np.testing.assert_allclose(value, u(x), atol=ROUNDING)
    np.testing.assert_allclose(slope, jacobian @ direction, atol=ROUNDING)


@pytest.mark.parametrize("over", ["txy", "xy", "yx"])
def test_divergence_pairs_values_with_coordinates(x64, over):
    u, x = tiny_network(3, len(over)), jnp.array([0.3, -0.2, 0.5])
    jacobian = jax.jacrev(u)(x)
    expected = sum(jacobian[row, "txy".index(letter)] for row, letter in enumerate(over))
    got = divergence(u, x, over=over, coordinates="txy")
    assert got.shape == ()
    np.testing.assert_allclose(got, expected, atol=ROUNDING)


def test_partials_work_under_vmap_jit_and_grad(x64):
    u, points = tiny_network(2, 1), jnp.array([[0.1, 0.2], [0.3, -0.4]])

    @jax.jit
    def loss(scale):
        field = Field(lambda p: scale * u(p), ("t", "x"))
        return jnp.sum(jax.vmap(lambda p: partials(field, p, "xx")[0])(points))

    expected = sum(jax.hessian(u)(p)[0, 1, 1] for p in points)
    np.testing.assert_allclose(jax.grad(loss)(2.0), expected, atol=ROUNDING)


def test_mistakes_are_named():
    field, x = Field(wave, ("t", "x")), jnp.array([0.7, -0.4])
    with pytest.raises(ValueError, match=r"unknown coordinate 'y'.*known: t, x"):
        partials(field, x, "xy")
    with pytest.raises(ValueError, match=r"unknown coordinate 'z'"):
        partials(field, x, {"t": 1.0, "zz": 1.0})
    with pytest.raises(ValueError, match="an operator needs terms"):
        partials(field, x, {})
    with pytest.raises(ValueError, match="pass a Field, or coordinates="):
        partials(wave, x, "x")
    with pytest.raises(ValueError, match=r"got shape \(5, 2\); map over points with jax.vmap"):
        partials(field, jnp.zeros((5, 2)), "x")
    with pytest.raises(ValueError, match=r"field of shape \(1,\), but u has shape \(2,\)"):
        divergence(field, x, over="x")


def test_numbered_coordinates_are_told_apart(x64):
    names = ("t", *numbered("x", 12))
    field = Field(lambda p: jnp.stack([p[1] * p[12] ** 2, p[0] * p[2] ** 3]), names)
    x = jnp.linspace(1.0, 3.0, 13)
    x1x12, x12x12, mixed, x2x2 = partials(field, x, "x1x12", "x12x12", "x12x1", "x2x2")
    np.testing.assert_allclose(x1x12, [2 * x[12], 0], atol=ROUNDING)
    np.testing.assert_allclose(mixed, x1x12, atol=0)
    np.testing.assert_allclose(x12x12, [2 * x[1], 0], atol=ROUNDING)
    np.testing.assert_allclose(x2x2, [0, 6 * x[0] * x[2]], atol=ROUNDING)
    np.testing.assert_allclose(laplacian(field, x, over="x2x12"), x12x12 + x2x2, atol=ROUNDING)
    np.testing.assert_allclose(
        divergence(field, x, over="x12x2"), 2 * x[1] * x[12] + 3 * x[0] * x[2] ** 2
    )


@pytest.mark.parametrize("name", ["x", "x13", "1", "x1 x2"])
def test_what_is_no_numbered_coordinate_is_named(name):
    field = Field(lambda p: p[:1], numbered("x", 12))
    with pytest.raises(ValueError, match="unknown coordinate"):
        partials(field, jnp.ones(12), name)
