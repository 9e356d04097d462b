"""Confidence intervals, against least squares with known answers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import modsync_jax
from modsync_jax import problems
from modsync_jax.calculus import partials
from modsync_jax.networks import MLP
from modsync_jax.problems import Problem, Unknown, UnknownField, data, value
from modsync_jax.sampling import box
from modsync_jax.training import TrainConfig, _intervals


class Line(nn.Module):
    """u = a + b x, linear in its parameters."""

    takes_jets = False

    @nn.compact
    def __call__(self, x):
        a, b = (self.param(n, nn.initializers.ones, (1,), x.dtype) for n in "ab")
        return a + b * x


X = np.linspace(0, 1, 21)


def slope(measured, noise=None, unknown=None):
    """u' = c, u(0) = 0.5, with measurements."""
    return Problem(
        name="slope",
        domain=box(x=(0, 1)),
        residual=lambda u, x, c: {"ode": partials(u, x, "x")[0] - c},
        conditions={"left": value("x=0", 0.5), "data": data(X[:, None], measured, noise=noise)},
        points={"residual": 5, "left": 1},
        unknowns={"c": unknown or Unknown(1.0)},
    )


def least_squares(measured, weights, noise):
    """The minimum over (a, b, c) by NumPy, and the 95% interval of c from textbook formulas."""
    rows = {
        "residual": (np.array([[0.0, 1.0, -1.0]]), np.zeros(1)),
        "boundary": (np.array([[1.0, 0.0, 0.0]]), np.array([0.5])),
        "data": (np.stack([np.ones(21), X, np.zeros(21)], 1), measured),
    }
    rows["data"] = tuple(part / (noise or 1.0) for part in rows["data"])
    factors = {name: np.sqrt(weights.get(name, 1.0) / len(y)) for name, (_, y) in rows.items()}
    matrix = np.concatenate([factors[n] * m for n, (m, _) in rows.items()])
    target = np.concatenate([factors[n] * y for n, (_, y) in rows.items()])
    found = np.linalg.lstsq(matrix, target)[0]
    covariance = np.linalg.inv(matrix.T @ matrix)
    misfit = rows["data"][0] @ found - rows["data"][1]
    hat = np.trace(rows["data"][0] @ covariance @ rows["data"][0].T) * factors["data"] ** 2
    variance = 1.0 if noise else misfit @ misfit / (21 - hat)
    return found, 1.96 * np.sqrt(variance * covariance[2, 2]) * factors["data"]


def of(problem, params, weights, **settings):
    config = TrainConfig(loss_weights=weights, sampler="uniform", **settings)
    return _intervals.of(problem, Line(), config, params)


@pytest.mark.parametrize("noise", [None, 0.1])
@pytest.mark.parametrize("weights", [{}, {"residual": 100.0, "data": 3.0}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_at_the_minimum_it_is_that_of_linear_least_squares(noise, weights, dtype, x64):
    measured = 0.5 + 2 * X + 0.1 * np.random.default_rng(0).normal(size=21)
    (a, b, c), half = least_squares(measured, weights, noise)
    network = {"params": {"a": jnp.array([a], dtype), "b": jnp.array([b], dtype)}}
    params = {"network": network, "unknowns": {"c": jnp.array(c, dtype)}}
    low, high = of(slope(measured[:, None], noise), params, weights)["c"]
    # In float32 the minimum is missed by roundings, which count to the width.
    np.testing.assert_allclose((low, high), (c - half, c + half), atol=3e-5)


def test_the_distance_from_the_minimum_counts(x64):
    measured = 0.5 + 2 * X
    (a, b, c), half = least_squares(measured, {}, 0.1)
    network = {"params": {"a": jnp.array([a]), "b": jnp.array([b])}}
    params = {"network": network, "unknowns": {"c": jnp.array(c + 0.3)}}
    low, high = of(slope(measured[:, None], 0.1), params, {})["c"]
    np.testing.assert_allclose(high - low, 2 * (half + 0.3), rtol=1e-4)
    assert low < c < high


def test_a_bounded_unknown_has_its_interval_within_the_bounds(x64):
    measured = 0.5 + 0.05 * X
    unknown = Unknown(0.05, low=0.0)
    z = unknown.begin(jax.random.key(0), jnp.float64)
    network = {"params": {"a": jnp.array([0.5]), "b": jnp.array([0.05])}}
    params = {"network": network, "unknowns": {"c": z}}
    low, high = of(slope(measured[:, None], 0.1, unknown), params, {})["c"]
    _, half = least_squares(measured, {}, 0.1)
    # dc/dz = c: the interval of z is that of c over c.
    np.testing.assert_allclose((low, high), 0.05 * np.exp([-half / 0.05, half / 0.05]), rtol=1e-3)


def test_cut_weights_do_not_move(x64):
    """Without the slope of the line, c follows the slope 0 by the equation alone."""
    measured = 0.5 + 2 * X
    network = {"params": {"a": jnp.array([0.5]), "b": jnp.array([0.0])}}
    params = {"network": network, "unknowns": {"c": jnp.array(0.0)}}
    low, high = of(slope(measured[:, None], 0.1), params, {})["c"]
    half = 1.96 / np.sqrt(21)  # of one row of the equation, with the variance of a measurement's
    np.testing.assert_allclose((low, high), (-half, half), rtol=1e-4)


@pytest.mark.parametrize(
    "unknown", [Unknown(1.0), Unknown(1.0, low=0.0), Unknown(1.0, low=0.0, high=3.0)]
)
@pytest.mark.parametrize("confounded", [False, True])
def test_what_nothing_determines_has_an_interval_without_end(unknown, confounded, x64):
    """c stands in no equation, or only in a product with d."""

    def residual(u, x, c, d):
        return {"ode": partials(u, x, "x")[0] - (c * d if confounded else d)}

    problem = slope(X[:, None], 0.1)
    problem = dataclasses.replace(problem, residual=residual, unknowns={"c": unknown, "d": 1.0})
    network = {"params": {"a": jnp.array([0.5]), "b": jnp.array([1.0])}}
    params = {"network": network, "unknowns": problem.begin(jax.random.key(0), jnp.float64)}
    low, high = of(problem, params, {})["c"]
    assert low < max(unknown.low + 1e-3, -1e4) and high > min(unknown.high - 1e-3, 1e4)
    assert np.isfinite([low, high]).all()  # as files need it


def test_vectors_have_an_interval_for_each_number_and_fields_none(x64):
    measured = 0.5 + 2 * X + 0.1 * np.random.default_rng(0).normal(size=21)
    (a, b, c), half = least_squares(measured, {}, 0.1)
    problem = dataclasses.replace(
        slope(measured[:, None], 0.1),
        residual=lambda u, x, c, k: {"ode": partials(u, x, "x")[0] - c[1] + 0 * (c[0] + k(x))},
        unknowns={
            "c": Unknown([0.0, 1.0]),
            "k": UnknownField(MLP(width=2, depth=1, param_dtype=jnp.float64), of="x"),
        },
    )
    network = {"params": {"a": jnp.array([a]), "b": jnp.array([b])}}
    unknowns = {**problem.begin(jax.random.key(0), jnp.float64), "c": jnp.array([0.0, c])}
    found = of(problem, {"network": network, "unknowns": unknowns}, {})
    assert list(found) == ["c[0]", "c[1]"]
    assert found["c[0]"][0] < -1e4 and found["c[0]"][1] > 1e4  # in no equation
    np.testing.assert_allclose(found["c[1]"], (c - half, c + half), rtol=1e-4)
    without = problems.get("poisson1d", frequency=Unknown(3.0))
    assert not of(without, {"network": network, "unknowns": {"frequency": jnp.ones(())}}, {})


@pytest.mark.long
def test_a_coefficient_of_a_problem_is_found_within_its_interval(tmp_path, x64, capsys):
    problem = problems.get("poisson1d", frequency=Unknown(2.5, low=1.0, high=5.0, truth=3.0))
    points = np.random.default_rng(0).uniform(0, 1, (50, 1))
    values = problem.reference(points)
    noisy = values + 0.02 * np.random.default_rng(1).normal(size=values.shape)
    problem = problem.adding(measured=data(points, noisy, noise=0.02))
    u = modsync_jax.solve(
        problem, "sum", width=8, depth=2, steps=0, then="ssbroyden:300", balance=10.0,
        loss_weights={"residual": 1e3, "boundary": 1e3}, output_dir=tmp_path / "run",
    )  # fmt: skip
    low, high = u.intervals["frequency"]
    assert low < 3.0 < high and high - low < 0.1
    assert low < u.unknowns["frequency"] < high
    assert u.result["truths"] == {"frequency": 3.0}
    assert f"({low:.4g} to {high:.4g})" in repr(u)
    again = modsync_jax.load(tmp_path / "run")
    assert again.unknowns == u.unknowns and again.intervals == u.intervals
    report = (tmp_path / "run" / "report.html").read_text()
    assert "poisson1d (frequency unknown)" in report and "95% from" in report
    assert "frequency" in capsys.readouterr().err  # progress
