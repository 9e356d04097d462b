"""What every problem must pass; a new problem is one more row of `EXACT`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import problems
from modsync_jax.calculus import Field


def burgers(p):
    """Cole-Hopf by the trapezoidal rule, independent of the reference's quadrature.

    The integrand is analytic and decays like a Gaussian, so that the rule converges geometrically;
    with 2,001 nodes it is converged to rounding.
    """
    t, x = p
    nu, z = 0.01 / jnp.pi, jnp.linspace(-16.0, 16.0, 2001)
    y = x - 2 * jnp.sqrt(nu * t) * z
    weights = jax.nn.softmax(-(z**2) - jnp.cos(jnp.pi * y) / (2 * jnp.pi * nu))
    return -jnp.sum(weights * jnp.sin(jnp.pi * y))[None]


def helmholtz2d(p):
    return jnp.sin(jnp.pi * p[:1]) * jnp.sin(4 * jnp.pi * p[1:])


def klein_gordon2d(p):
    t, x = p[:1], p[1:]
    return x * jnp.cos(5 * jnp.pi * t) + (x * t) ** 3


EXACT = {"burgers": burgers, "helmholtz2d": helmholtz2d, "klein_gordon2d": klein_gordon2d}

EVERY = pytest.mark.parametrize("name", sorted(EXACT))

# Formulas leave float64 rounding, some 1e-12 after second derivatives of size 160. In the shock of
# Burgers the terms reach 5e3 and are themselves quotients of rounded sums.
TOLERANCE = 1e-8


def test_every_problem_has_a_row():
    assert tuple(sorted(EXACT)) == problems.names()


def with_shock(points):
    """Adds points in the shock of Burgers, which a grid or a random sample rarely meets."""
    t, x = jnp.linspace(0.4, 1, 200), jnp.linspace(-0.02, 0.02, 200)
    return jnp.concatenate([points, jnp.stack([t, x], axis=1)])


@EVERY
def test_the_exact_solution_satisfies_the_residual_and_every_condition(x64, name):
    problem = problems.get(name)
    batch = problem.sample(jax.random.key(0), dtype=jnp.float64)
    if name == "burgers":
        batch["residual"] = with_shock(batch["residual"])
    u = Field(EXACT[name], problem.coordinates)
    residuals = jax.jit(lambda batch: problem.pointwise(u, {}, batch))(batch)
    assert set(residuals) == {"residual", *problem.conditions}
    for term, values in residuals.items():
        for label, vector in values.items():
            assert vector.shape == (len(jax.tree.leaves(batch[term])[0]),)
            worst = float(jnp.max(jnp.abs(vector)))
            assert worst < TOLERANCE, f"{term}, {label}: {worst:.1e}"


@EVERY
def test_a_wrong_solution_fails_every_term(name):
    problem = problems.get(name)
    batch = problem.sample(jax.random.key(0))
    wrong = Field(lambda p: EXACT[name](p) + 1 + jnp.sum(p) ** 2, problem.coordinates)
    for values in jax.jit(lambda b: problem.pointwise(wrong, {}, b))(batch).values():
        for vector in values.values():
            assert jnp.sqrt(jnp.mean(vector**2)) > 0.1


@EVERY
def test_the_reference_is_the_exact_solution_on_a_grid_with_its_boundary(x64, name):
    problem = problems.get(name)
    points = problem.domain.grid([41] * len(problem.coordinates))
    if name == "burgers":
        points = np.asarray(with_shock(points))
    exact = jax.jit(jax.vmap(EXACT[name]))(points)
    reference = problem.reference(points)
    assert reference.dtype == np.float64
    assert reference.shape == (len(points), len(problem.outputs))
    # 1e-12: rounding of float64, and of sums of 100 terms for Burgers.
    np.testing.assert_allclose(reference, exact, atol=1e-12)


@EVERY
def test_samples_lie_where_they_belong(name):
    problem = problems.get(name)
    batch = problem.sample(jax.random.key(0))
    domain = problem.domain
    assert {term: points.shape for term, points in batch.items()} == {
        term: (count, len(problem.coordinates)) for term, count in problem.points.items()
    }
    for points in batch.values():
        assert points.dtype == jnp.float32
        assert np.all((points >= np.array(domain.lower)) & (points <= np.array(domain.upper)))
    for term, condition in problem.conditions.items():
        face = domain.face(condition.face)
        assert np.all(batch[term][:, face.axis] == face.bound)


@EVERY
def test_float32_points_stay_float32_where_64_bits_are_enabled(x64, name):
    problem = problems.get(name)
    u = Field(lambda p: jnp.full(len(problem.outputs), jnp.sum(p)), problem.coordinates)
    residuals = jax.eval_shape(
        lambda key: problem.pointwise(u, {}, problem.sample(key)), jax.random.key(0)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(residuals)} == {jnp.dtype(jnp.float32)}


def test_burgers_reference_at_its_difficult_points():
    reference = problems.get("burgers").reference
    x = np.linspace(-1, 1, 11)
    at_start = reference(np.stack([np.zeros(11), x], axis=1))[:, 0]
    np.testing.assert_allclose(at_start, -np.sin(np.pi * x), atol=1e-15)  # one rounding
    # Basdevant et al. 1986 give max |∂u/∂x| = 152.00516 at x = 0, t = 1.6037/π; all their digits.
    steps = np.array([-2, -1, 1, 2]) * 1e-5
    values = reference(np.stack([np.full(4, 1.6037 / np.pi), steps], axis=1))[:, 0]
    slope = (values @ [1, -8, 8, -1]) / (12 * 1e-5)
    assert slope == pytest.approx(-152.00516, abs=5e-5)
    many = reference(np.random.default_rng(0).uniform([0, -1], [1, 1], (10_000, 2)))
    assert many.shape == (10_000, 1)
    assert np.all(np.isfinite(many))
