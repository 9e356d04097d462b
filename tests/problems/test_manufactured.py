"""Problems made from their solution: the forcing against formulas, the reference's precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax.calculus import Field, partials
from modsync_jax.problems import manufactured, value
from modsync_jax.sampling import box


def operator(u, x):
    """A system of two equations for (a, b)."""
    (a, b), (a_x, b_x), (a_tt, _) = partials(u, x, "", "x", "tt")
    return {"first": a_tt + b_x, "second": a * b - a_x}


def exact(p):
    t, x = p
    return jnp.stack([jnp.sin(3 * t) * x, t**2 * x**3])


def make(**changes):
    settings = {
        "name": "made",
        "domain": box(t=(0, 1), x=(0, 2)),
        "outputs": ("a", "b"),
        "conditions": {"left": value("x=2", exact)},
        "points": {"residual": 40, "left": 8},
    }
    return manufactured(operator, exact, **(settings | changes))


def test_the_residual_is_the_operator_minus_that_of_the_solution():
    problem = make()
    points = problem.sample(jax.random.key(0))["residual"]
    u = Field(lambda p: jnp.stack([p[1] ** 2, p[0] * p[1]]), ("t", "x"))
    residuals = jax.jit(lambda points: problem.term("residual")(u, {}, points))(points)
    t, x = np.asarray(points, np.float64).T
    forcing = {
        "first": -9 * np.sin(3 * t) * x + 3 * t**2 * x**2,
        "second": np.sin(3 * t) * t**2 * x**4 - np.sin(3 * t),
    }
    left = {"first": t, "second": t * x**3 - 2 * x}
    assert set(residuals) == set(forcing)
    for name, values in residuals.items():
        # float32: a few roundings of terms up to 20.
        np.testing.assert_allclose(values, left[name] - forcing[name], atol=1e-5)


def test_the_solution_satisfies_its_problem():
    problem = make()
    batch = problem.sample(jax.random.key(0))
    for values in problem.pointwise(Field(exact, ("t", "x")), {}, batch).values():
        for vector in values.values():
            np.testing.assert_array_equal(vector, 0.0)  # the same computation twice


def test_the_reference_is_in_float64_whether_or_not_jax_is():
    assert not jax.config.jax_enable_x64
    points = make().domain.grid((9, 9))
    reference = make().reference(points)
    assert reference.dtype == np.float64
    t, x = points.T
    expected = np.stack([np.sin(3 * t) * x, t**2 * x**3], axis=1)
    np.testing.assert_allclose(reference, expected, rtol=1e-15, atol=1e-15)  # a few roundings
    assert not jax.config.jax_enable_x64
    assert jnp.ones(1).dtype == jnp.float32


def test_a_solution_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"made: reference must return \[N, 1\]"):
        manufactured(
            lambda u, x: {"ode": partials(u, x, "t")[0]},
            lambda p: p[0],
            name="made", domain=box(t=(0, 1)), conditions={}, points={"residual": 4},
        )  # fmt: skip
