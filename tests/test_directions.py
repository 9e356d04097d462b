"""Sums of second derivatives along random directions, against all of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from modsync_jax import directions
from modsync_jax.calculus import Field, laplacian, partials
from modsync_jax.directions import Directions
from modsync_jax.networks import MLP
from modsync_jax.sampling import numbered

D = 9
NAMES = ("t", *numbered("x", D))
KINDS = pytest.mark.parametrize("kind", directions.KINDS)
EQUAL = {2 * name: 0.7 for name in NAMES[1:]}
OTHERS = {2 * name: k - 3.0 for k, name in enumerate(NAMES[1:])}  # of both signs, one zero


def network():
    """A network of two values, its parameters and a point."""
    module = MLP(width=8, depth=2, outputs=2, param_dtype=jnp.float64)
    point = jnp.linspace(-0.5, 0.5, D + 1)
    return module, module.init(jax.random.key(0), point), point


def fields(kind, number, takes_jets=True):
    """The network with exact derivatives, with estimated ones, and the point."""
    module, variables, point = network()
    exact = Field(lambda x: module.apply(variables, x), NAMES, takes_jets)
    return exact, dataclasses.replace(exact, directions=Directions(kind, number)), point


def near(point, count):
    """So many points that differ by roundings, and so have other directions."""
    return point + 1e-12 * jnp.arange(count)[:, None]


@pytest.mark.long
@KINDS
@pytest.mark.parametrize("coefficients", [EQUAL, OTHERS], ids=["equal", "others"])
@pytest.mark.parametrize("takes_jets", [True, False], ids=["jets", "nested"])
def test_the_mean_of_estimates_is_the_sum(x64, kind, coefficients, takes_jets):
    exact, estimated, point = fields(kind, 3, takes_jets)
    (true,) = partials(exact, point, coefficients)
    found = jax.jit(jax.vmap(lambda x: partials(estimated, x, coefficients)[0]))(near(point, 4_000))
    spread = found.std(axis=0)
    assert np.all(spread > 1e-3 * np.abs(true))
    # Five standard errors of a mean of 4,000: passed by chance but for one seed in a million.
    assert np.all(np.abs(found.mean(axis=0) - true) < 5 * spread / np.sqrt(4_000))


@pytest.mark.long
def test_variances_are_those_of_the_papers(x64):
    """Of the mixed derivatives along signs, of the pure ones along coordinates."""
    hessian = np.random.default_rng(0).normal(size=(D, D))
    hessian = hessian + hessian.T

    def u(x):
        return (x[1:] @ hessian @ x[1:] / 2)[None]

    pure = np.diag(hessian)
    mixed = hessian - np.diag(pure)
    expected = {
        "hutchinson": 2 * np.sum(mixed**2) / 3,
        # Sampling 3 of 9 without replacement: D² s²/V (1 - V/D), s² with D - 1 in its denominator.
        "stde": D**2 * np.var(pure, ddof=1) / 3 * (1 - 3 / D),
    }
    points = near(jnp.zeros(D + 1) + 0.1, 20_000)
    for kind, variance in expected.items():
        field = Field(u, NAMES, directions=Directions(kind, 3))
        found = jax.jit(jax.vmap(lambda x, field=field: laplacian(field, x, "".join(NAMES[1:]))))
        # 5%: the standard error of a variance of 20,000 draws is 1% to 2%.
        assert np.var(found(points)) == pytest.approx(variance, rel=0.05)


@pytest.mark.long
@KINDS
def test_all_else_stays_exact(x64, kind):
    """Values, first and mixed derivatives, and sums with no more terms than directions."""
    exact, estimated, point = fields(kind, 3)
    terms = ["", "t", "tt", "x2", "x1x2", {"x1x1": 1.0, "x2x2": 2.0}, {"x3": 4.0, "x4": -1.0}]
    (*found, _), (*true, _) = (partials(u, point, *terms, EQUAL) for u in (estimated, exact))
    # 1e-12: roundings of sums in another order.
    np.testing.assert_allclose(jnp.stack(found), jnp.stack(true), atol=1e-12)


@pytest.mark.long
@KINDS
def test_an_operator_is_the_sum_of_its_exact_and_its_estimated_part(x64, kind):
    _, u, point = fields(kind, 3)
    rest = {"": 2.0, "t": 1.0, "x2": -3.0, "x1x2": 0.5}
    whole, one, other = partials(u, point, {**rest, **EQUAL}, rest, EQUAL)
    np.testing.assert_allclose(whole, one + other, atol=1e-12)


@KINDS
def test_nothing_is_estimated_with_as_many_directions_as_terms(x64, kind):
    exact, estimated, point = fields(kind, D)
    (true,), (found,) = (partials(u, point, OTHERS) for u in (exact, estimated))
    np.testing.assert_array_equal(found, true)


def test_equal_coefficients_share_their_directions(x64):
    """Numbers, or one array; other arrays need as many directions again."""
    point = jnp.linspace(0, 1, D + 1)

    def rows(*coefficients):
        return len(Directions("hutchinson", 5).second(point, range(1, D + 1), coefficients)[0])

    one, other = jnp.array(2.0), jnp.array(2.0)
    assert rows(*[2.0] * D) == rows(*[one] * D) == rows(2, *[2.0] * (D - 1)) == 5
    assert rows(one, *[2.0] * (D - 1)) == rows(one, *[other] * (D - 1)) == rows(*range(D)) == 10
    estimated = Field(jnp.sin, NAMES, directions=Directions("hutchinson", 4))
    traced = jax.make_jaxpr(lambda c: partials(estimated, point, dict.fromkeys(EQUAL, c)))
    text = str(traced(0.7))
    assert "f64[4,10]" in text  # a frame of four directions
    assert "f64[8,10]" not in text


def test_signs_leave_out_no_coordinate_and_coordinates_come_once(x64):
    point = jnp.linspace(0, 1, D + 1)
    signs, _ = Directions("hutchinson", 5).second(point, range(1, D + 1), [1.0] * D)
    np.testing.assert_array_equal(np.abs(signs), np.tile([0.0] + [1.0] * D, (5, 1)))
    chosen, _ = Directions("stde", 5).second(point, range(1, D + 1), [1.0] * D)
    assert np.all(chosen.sum(axis=1) == 1)
    assert np.all(chosen.sum(axis=0) <= 1)
    assert not np.any(chosen[:, 0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_directions_are_a_function_of_all_bits_of_the_point(x64, dtype):
    point = jnp.linspace(0.1, 0.9, D + 1, dtype=dtype)
    last = [point.at[k].set(jnp.nextafter(point[k], dtype(1))) for k in range(D + 1)]
    two = jnp.ones(D + 1, dtype).at[jnp.array([2, 5])].set(-1)
    last.append(point * two)  # sign bits alone, in two numbers
    keys = [
        tuple(jax.random.key_data(directions.key_of(x)).tolist()) for x in (point, point, *last)
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == D + 3


def test_signs_are_independent_and_fair():
    keys = jax.vmap(directions.key_of)(jax.random.uniform(jax.random.key(0), (4_000, 3)))
    signs = jax.vmap(lambda key: directions._signs(key, 2, 40))(keys)
    flat = np.asarray(signs, np.float64).reshape(4_000, 80)
    assert set(np.unique(flat)) == {-1.0, 1.0}
    # 3,240 means and correlations of 4,000 signs: 6 standard errors, once in a hundred thousand.
    assert np.abs(flat.mean(axis=0)).max() < 6 / np.sqrt(4_000)
    correlations = flat.T @ flat / 4_000 - np.eye(80)
    assert np.abs(correlations).max() < 6 / np.sqrt(4_000)


@pytest.mark.long
@KINDS
def test_gradients_by_parameters_are_those_of_the_estimate(x64, kind):
    module, variables, point = network()

    def value(variables):
        field = Field(lambda x: module.apply(variables, x), NAMES, True, Directions(kind, 3))
        return jnp.sum(partials(field, point, {**OTHERS, "x1": 1.0, "t": 2.0})[0] ** 2)

    flat, structure = ravel_pytree(variables)
    ways = np.random.default_rng(0).normal(size=(3, len(flat)))
    slopes = ways @ np.asarray(jax.jit(jax.grad(lambda w: value(structure(w))))(flat))
    at = jax.jit(jax.vmap(lambda way, step: value(structure(flat + step * way)), (0, None)))
    differences = (at(ways, 1e-5) - at(ways, -1e-5)) / 2e-5
    # 1e-6: a central difference's error, the step's square times third derivatives.
    np.testing.assert_allclose(slopes, differences, rtol=1e-6)


@pytest.mark.parametrize("text", ["", "hutchinson", "hutchinson:0", "stde:x", "folx:4", "exact:1"])
def test_what_is_no_way_to_compute_a_laplacian_is_said(text):
    with pytest.raises(
        ValueError, match=f"laplacian is '{text}'; it must be exact, or a number of"
    ):
        directions.read(text)


def test_ways_are_read():
    assert directions.read("exact") is None
    assert directions.read("stde:4") == Directions("stde", 4)
