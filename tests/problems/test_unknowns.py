"""Coefficients that training finds: their bounds, and problems in which they are unknown."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import problems
from modsync_jax.calculus import Field, partials
from modsync_jax.networks import MLP
from modsync_jax.problems import Problem, Unknown, UnknownField, data, robin, value
from modsync_jax.problems import _unknowns as unknowns
from modsync_jax.sampling import box

BOUNDS = {
    "free": Unknown(-0.3),
    "above": Unknown(0.002, low=0.0),
    "below": Unknown(-7.0, high=-2.0),
    "between": Unknown(0.3, low=-1.0, high=0.5),
    "vector": Unknown([0.1, 0.2, 3.0], low=0.0),
    "slow": Unknown(3.0, low=1.0, rate=0.1),
}


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_search_begins_at_the_start(name, dtype, x64):
    unknown = BOUNDS[name]
    trained = unknown.begin(jax.random.key(0), dtype)
    assert trained.dtype == dtype and trained.shape == np.shape(unknown.start)
    found = unknown.value(trained, ())
    # A logarithm and an exponential: a few roundings of z, which is below 10.
    np.testing.assert_allclose(found, unknown.start, rtol=50 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", BOUNDS)
def test_no_trained_number_leaves_the_bounds(name):
    unknown = BOUNDS[name]
    z = np.linspace(-80, 80, 333, dtype=np.float32)
    found = np.asarray(unknown.value(z, ()))
    assert np.all(found >= np.float32(unknown.low)) and np.all(found <= np.float32(unknown.high))
    inner = np.asarray(unknown.value(z[np.abs(z) < 5], ()))  # each value is reached once
    assert np.all(np.diff(inner) > 0) or np.all(np.diff(inner) < 0)


def test_the_rate_is_that_of_the_trained_number():
    slow, fast = (Unknown(2.0, low=1.0, rate=rate) for rate in (0.1, 10.0))

    def slope(unknown):
        z = unknown.begin(jax.random.key(0), jnp.float32)
        return jax.grad(lambda z: unknown.value(z, ()))(z)

    np.testing.assert_allclose(slope(fast), 100 * slope(slow), rtol=1e-5)


@pytest.mark.parametrize("unknown", BOUNDS.values(), ids=BOUNDS)
def test_its_text_describes_it(unknown):
    assert unknowns.read("c", str(unknown)) == unknown


MISTAKES = {
    "on a bound": (lambda: Unknown(0.0, low=0.0), "starts at 0.0; it must start strictly between"),
    "outside": (lambda: Unknown(2.0, high=2.0), "starts at 2.0; it must start strictly between"),
    "word": (lambda: Unknown("fast"), "start of an unknown is 'fast'; give a number or a list"),
    "empty": (lambda: Unknown([]), r"start of an unknown is \[\]; give a number"),
    "not finite": (lambda: Unknown(math.nan), "start of an unknown is nan; give a number"),
    "rate": (lambda: Unknown(1.0, rate=0.0), "rate of an unknown is 0.0; it must be positive"),
    "truth": (lambda: Unknown([1.0, 2.0], truth=1.0), "they must be as many numbers"),
    "field": (
        lambda: UnknownField(MLP(width=3, depth=1), ""),
        "needs the letters of its coordinates",
    ),
    "field outside": (
        lambda: UnknownField(MLP(width=3, depth=1), "x", start=0.0, low=1.0),
        "strictly between 1.0",
    ),
    "text": (lambda: problems.get("burgers", viscosity="unknown(stat=1)"), "viscosity is 'unknown"),
    "range": (
        lambda: problems.get("burgers", viscosity=Unknown(3.0)),
        "burgers: an unknown starts at 3.0; it must start strictly between 0.001 and 1",
    ),
    "name": (
        lambda: problems.get("heat", speed=Unknown(3.0)),
        "unknown coefficient of heat 'speed'",
    ),
    "twice": (
        lambda: problems.get("heat").adding(left=value("x=0", 1.0)),
        "heat has a condition 'left' already",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake):
    make, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def field(problem):
    scales = jnp.arange(1.0, 1 + len(problem.outputs))
    return Field(lambda x: jnp.sin(scales * jnp.sum(x)), problem.coordinates)


COEFFICIENTS = [
    (n, c) for n in problems.names() for c in problems.get(n).coefficients if c != "dimension"
]
MARKS = {  # what each problem's coefficients stand in; the others take a minute
    ("heat", "diffusivity"): [],
    ("burgers", "viscosity"): [pytest.mark.long],
    ("klein_gordon2d", "frequency"): [pytest.mark.long],
    ("helmholtz2d", "a2"): [pytest.mark.long],
}


@pytest.mark.parametrize(
    ("name", "coefficient"),
    [pytest.param(*c, marks=MARKS.get(c, pytest.mark.slow)) for c in COEFFICIENTS],
)
def test_any_coefficient_of_any_problem_can_be_unknown(name, coefficient):
    """The residuals are those of the problem with the value, and depend on what is trained."""
    start = float(problems.get(name).coefficients[coefficient]) or 0.5
    other = 1.1 * start
    problem = problems.get(name, **{coefficient: Unknown(start, truth=other)})
    known = problems.get(name, **{coefficient: other})
    batch = known.sample(jax.random.key(0), dict.fromkeys(known.terms, 5))

    def residuals(trained):
        return problem.pointwise(field(problem), problem.values(trained), batch)

    sought = problem.trained[coefficient]
    z = dataclasses.replace(sought, start=other).begin(jax.random.key(0), jnp.float32)
    found = residuals({coefficient: z})
    wanted = known.pointwise(field(known), {}, batch)
    size = max(float(np.max(np.abs(r))) for of in wanted.values() for r in of.values())
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * size)  # roundings of sines of 4πx
    slopes = jax.jacfwd(residuals)({coefficient: z})
    assert any(np.any(slope != 0) for slope in jax.tree.leaves(slopes))
    points = np.asarray(batch["residual"])
    np.testing.assert_array_equal(problem.reference(points), known.reference(points))


def test_a_coefficient_that_counts_cannot_be_unknown():
    with pytest.raises(ValueError, match="dimension decides shapes and can't be unknown"):
        problems.get("heat_nd", dimension=Unknown(3.0))
    with pytest.raises(ValueError, match=r"dimension must be a whole number, got 2\.5"):
        problems.get("heat_nd", dimension=2.5)


def test_without_the_truth_there_is_no_reference():
    assert problems.get("heat", diffusivity=Unknown(1.0)).reference is None


def rod(loss=1.0, outside=0.0, length=1.0):
    """A rod that loses heat at its right end."""
    return Problem(
        name="rod",
        domain=box(x=(0, length)),
        residual=lambda u, x: {"heat": partials(u, x, "xx")[0]},
        conditions={"left": value("x=0", 1.0), "right": robin("x=1", loss, 1.0, outside)},
        points={"residual": 4, "left": 1, "right": 1},
        observe=lambda u, x: {"lost": loss * u(x)},
        coefficients={"loss": loss, "outside": outside},
    )


def line(slope):
    return Field(lambda x: 1 + slope * x, ("x",))


def test_a_vector_may_be_a_coefficient_and_its_truth_gives_the_reference():
    def line_of(c=(1.0, 1.0)):
        return Problem(
            name="line", domain=box(x=(0, 1)), residual=lambda u, x: {"ode": u(x) - c[0]},
            conditions={}, points={"residual": 4}, reference=lambda x: c[0] + c[1] * x,
        )  # fmt: skip

    problem = problems.get(line_of, c=Unknown([1.0, 2.0], truth=[3.0, 4.0]))
    np.testing.assert_array_equal(problem.reference(np.ones((1, 1))), [[7.0]])
    values = problem.values(problem.begin(jax.random.key(0)))
    assert problem.term("residual")(line(0.0), values, jnp.zeros((1, 1)))["ode"] == 0


def test_a_field_needs_coordinates_of_the_domain():
    with pytest.raises(ValueError, match="plate, residual: an unknown field of 't' needs a domain"):
        plate(of="t")
    with pytest.raises(ValueError, match="rod: an unknown field of 'x' needs the letters of all"):
        problems.get(rod, loss=UnknownField(MLP(width=3, depth=1), of="x"))


def test_conditions_and_quantities_see_unknowns():
    problem = problems.get(rod, loss=Unknown(1.0, low=0.0), outside=Unknown(0.0))
    assert problem.coefficients == problem.trained
    end = jnp.ones((1, 1))
    values = {"loss": jnp.float32(3.0), "outside": jnp.float32(0.5)}
    found = problem.term("right")(line(-0.5), values, end)["u"]
    np.testing.assert_allclose(found, [3.0 * 0.5 - 0.5 - 0.5])
    np.testing.assert_allclose(problem.observed(line(-0.5), values, end), [[1.5]])


def test_what_is_replaced_in_a_problem_stays_replaced():
    problem = problems.get(rod, loss=Unknown(1.0, low=0.0))
    changed = dataclasses.replace(
        problem,
        residual=lambda u, x, loss: {"heat": loss * u(x)},
        observe=lambda u, x, loss: {"both": loss + u(x)},
        conditions={**problem.conditions, "left": value("x=0", 5.0)},
    )
    values, start = {"loss": jnp.float32(3.0)}, jnp.zeros((1, 1))
    assert changed.term("residual")(line(0.0), values, start)["heat"] == 3
    assert changed.term("left")(line(0.0), values, start)["u"] == -4
    assert changed.term("right")(line(0.0), values, start)["u"] == 3
    assert changed.observed(line(0.0), values, start) == 4
    with_data = problem.adding(measured=data([[0.5]], [[2.0]]))
    points = {"point": jnp.array([[0.5]]), "value": jnp.array([[2.0]])}
    assert with_data.term("measured")(line(0.0), values, points)["u"] == -1
    assert list(with_data.measured) == ["measured"] and not problem.measured


def test_a_problem_with_unknowns_may_be_made_of_another():
    def cooled(factor=1.0):
        made = problems.get(rod, loss=Unknown(1.0, low=0.0))
        return dataclasses.replace(
            made, conditions={**made.conditions, "left": value("x=0", factor)}
        )

    problem = problems.get(cooled, factor=Unknown(2.0))
    values, start = {"loss": jnp.float32(3.0), "factor": jnp.float32(7.0)}, jnp.zeros((1, 1))
    assert list(problem.trained) == ["loss", "factor"]
    assert problem.term("left")(line(0.0), values, start)["u"] == -6
    assert problem.term("right")(line(0.0), values, start)["u"] == 3


def test_an_unknown_cannot_shape_the_domain():
    with pytest.raises(ValueError, match=r"length of rod can't be unknown: .* not in the domain"):
        problems.get(rod, length=Unknown(1.0, low=0.0))


def test_a_vector_is_described_by_its_numbers():
    def residual(u, x, c, d):
        return {"ode": d * partials(u, x, "x")[0] - c[0] - c[1] * x}

    problem = Problem(
        name="polynomial", domain=box(x=(0, 1)), residual=residual, conditions={},
        points={"residual": 4}, unknowns={"c": Unknown([1.0, 2.0], truth=[3.0, 4.0]), "d": 5},
    )  # fmt: skip
    readings = problem.readings(problem.values(problem.begin(jax.random.key(0))))
    assert {k: float(v) for k, v in readings.items()} == {"c[0]": 1, "c[1]": 2, "d": 5}
    assert problem.truths == {"c[0]": 3, "c[1]": 4}


def plate(**settings):
    """Conduction in a plate whose conductivity depends on x."""

    def residual(u, x, k):
        u_x, u_xx, u_yy = partials(u, x, "x", "xx", "yy")
        k_here, k_x = partials(k, x, "", "x")
        return {"heat": k_here * (u_xx + u_yy) + k_x * u_x}

    return Problem(
        name="plate", domain=box(x=(0, 2), y=(0, 1)), residual=residual, conditions={},
        points={"residual": 16}, unknowns={"k": UnknownField(MLP(width=5, depth=2), **settings)},
    )  # fmt: skip


@pytest.mark.parametrize("bounds", [{}, {"low": 0.5}, {"high": 4.0}, {"low": 0.5, "high": 4.0}])
def test_a_field_is_a_network_of_its_coordinates_around_its_start(bounds, x64):
    problem = plate(of="y", start=1.5, **bounds)
    trained = problem.begin(jax.random.key(0), jnp.float64)
    trained = jax.tree.map(lambda w: w + 0.3, trained)  # away from the zeros of biases
    k = problem.values(trained)["k"]
    points = np.random.default_rng(0).uniform(0, 1, (9, 2))
    found = jax.vmap(k)(jnp.asarray(points))
    changes = jax.vmap(lambda y: MLP(width=5, depth=2).apply(trained["k"], y))(points[:, 1:])
    low, high = bounds.get("low"), bounds.get("high")
    if low is None and high is None:
        wanted = 1.5 + changes
    elif high is None:
        wanted = low + (1.5 - low) * np.exp(changes)
    elif low is None:
        wanted = high - (high - 1.5) * np.exp(changes)
    else:
        odds = (1.5 - low) / (high - 1.5) * np.exp(changes)
        wanted = (low + high * odds) / (1 + odds)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_an_equation_has_the_derivatives_of_a_field(x64):
    problem = plate(of="x", start=1.0, low=0.1)
    trained = problem.begin(jax.random.key(3), jnp.float64)
    k = problem.values(trained)["k"]

    def flux(x):
        return k(x) * jax.jacfwd(u)(x)[:, 0]

    def u(x):
        return jnp.sin(x[:1]) * jnp.cos(x[1:])

    points = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (9, 2)))
    found = problem.term("residual")(Field(u, ("x", "y")), {"k": k}, points)["heat"]
    divergence = jax.vmap(lambda x: jax.jacfwd(flux)(x)[0, 0])(points)
    wanted = divergence - jax.vmap(lambda x: k(x)[0] * u(x)[0])(points)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_a_field_is_described_by_its_mean_and_error():
    problem = plate(of="x", start=1.0, truth=lambda points: 2 + 0 * points[:, 0])
    k = Field(lambda x: 2 + x[:1], ("x", "y"))
    readings = problem.readings({"k": k})
    # Of x in [0, 2]: the mean of 2 + x is 3, and the error is √mean(x²) / 2. Points are random.
    np.testing.assert_allclose(readings["k (mean)"], 3, atol=4 * np.sqrt(1 / 3 / 1_000))
    np.testing.assert_allclose(readings["k (error)"], np.sqrt(4 / 3) / 2, atol=0.03)
    assert "k (error)" not in plate(of="x").readings({"k": k})


def test_a_field_may_be_a_coefficient_of_any_problem():
    def wall(k=lambda x: jnp.ones(1)):
        def residual(u, x):
            return {"heat": partials(k, x, "", "x")[0] * partials(u, x, "xx")[0]}

        return Problem(
            name="wall", domain=box(t=(0, 1), x=(0, 1)), residual=residual,
            conditions={"left": value("x=0", k)}, points={"residual": 4, "left": 4},
        )  # fmt: skip

    problem = problems.get(wall, k=UnknownField(MLP(width=3, depth=1), of="x", coordinates="tx"))
    k = Field(lambda x: 3 * x[1:], ("t", "x"))
    batch = problem.sample(jax.random.key(0))
    u = Field(lambda x: x[1:] ** 2 + 1, ("t", "x"))
    found = problem.pointwise(u, {"k": k}, batch)
    np.testing.assert_allclose(found["residual"]["heat"], 6 * batch["residual"][:, 1], rtol=1e-6)
    np.testing.assert_allclose(found["left"]["u"], 1.0, rtol=1e-6)
