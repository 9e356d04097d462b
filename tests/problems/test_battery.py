"""What every problem must pass; a new problem is one more row of `ROWS`."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev
from scipy.integrate import solve_ivp

from benchmarks.rows import MANY_DIMENSIONS
from modsync_jax import problems
from modsync_jax.calculus import Field

# --- solutions, each a function of one point, `[d]` to `[m]`, and of the coefficients ------------


def burgers(p, viscosity=0.01 / np.pi):
    """Cole-Hopf by the trapezoidal rule, independent of the reference's quadrature.

    The integrand is analytic and decays like a Gaussian, so that the rule converges geometrically;
    with 2,501 nodes it is converged to rounding, for viscosities from 0.001 to 1.
    """
    t, x = p
    z = jnp.linspace(-20.0, 20.0, 2501)
    y = x - 2 * jnp.sqrt(viscosity * t) * z
    weights = jax.nn.softmax(-(z**2) - jnp.cos(jnp.pi * y) / (2 * jnp.pi * viscosity))
    return -jnp.sum(weights * jnp.sin(jnp.pi * y))[None]


def helmholtz2d(p, wave_number=1, a1=1, a2=4):
    return jnp.prod(jnp.sin(jnp.pi * jnp.array([a1, a2]) * p), keepdims=True)


def helmholtz3d(p, wave_number=1, a1=4, a2=4, a3=3):
    return jnp.prod(jnp.sin(jnp.pi * jnp.array([a1, a2, a3]) * p), keepdims=True)


def klein_gordon2d(p, frequency=5 * np.pi):
    t, x = p[:1], p[1:]
    return x * jnp.cos(frequency * t) + (x * t) ** 3


def klein_gordon3d(p, frequency=2):
    t, x, y = p
    angle = frequency * t
    return jnp.array([x + y, x * y]) @ jnp.stack([jnp.cos(angle), jnp.sin(angle)])[:, None]


def poisson1d(p, frequency=4 * np.pi):
    return jnp.sin(frequency * p)


def poisson2d(p, frequency=np.pi):
    return jnp.prod(jnp.sin(frequency * p), keepdims=True)


def wave(p, speed=2):
    """D'Alembert's form, two waves that travel apart."""
    t, x = p[:1], p[1:]
    here, there = (jnp.pi * (x + s * speed * t) for s in (1, -1))
    return (jnp.sin(here) + jnp.sin(there) + (jnp.sin(4 * here) + jnp.sin(4 * there)) / 2) / 2


def convection(p, speed=30):
    return jnp.sin(p[1:] - speed * p[:1])


def reaction(p, rate=5):
    """The logistic function, from the logit of the start."""
    t, x = p[:1], p[1:]
    exponent = -((x - jnp.pi) ** 2) / (2 * (jnp.pi / 4) ** 2)
    return jax.nn.sigmoid(rate * t + exponent - jnp.log1p(-jnp.exp(exponent)))


def heat(p, diffusivity=0.4):
    return jnp.exp(-diffusivity * jnp.pi**2 * p[:1]) * jnp.sin(jnp.pi * p[1:])


def poisson_nd(p, dimension=10):
    pairs = jnp.stack([p[:-1], p[1:]], axis=1)
    return jnp.mean(
        jax.vmap(lambda ab: jnp.sin(ab @ jnp.array([1, jnp.cos(ab[0])]) + jnp.cos(ab[1])))(pairs)
    )[None]


def heat_nd(p, dimension=10, diffusivity=1.0):
    return (p[1:] @ p[1:] / dimension + 2 * diffusivity * p[0])[None]


def allen_cahn_nd(p, dimension=10):
    """The front as a logistic function."""
    normal = jnp.full(dimension, dimension**-0.5)
    return jax.nn.sigmoid((p[1:] @ normal + 3 / np.sqrt(2) * p[0]) / np.sqrt(2))[None]


def hamilton_jacobi_bellman(p, dimension=10):
    """Cole and Hopf's form, by the trapezoidal rule over two lengths of the Brownian motion.

    z is its component along x, and w the length of the others, whose density is even in w for an
    even dimension. The integrand's poles are 0.7 from the real axes, so that the rule's error is
    exp(-2π 0.7/0.15) = 1e-13.
    """
    z, w = jnp.arange(-8.55, 8.6, 0.15)[:, None], jnp.arange(0.075, 12.0, 0.15)
    density = jnp.exp(-(z**2 + w**2) / 2) * w ** (dimension - 2)
    scale = jnp.sqrt(2 * (1 - p[0]) + 1e-300)  # differentiable where no time is left
    distance = jnp.sqrt(p[1:] @ p[1:] + 1e-300)
    goal = 2 / (1 + (distance + scale * z) ** 2 + (scale * w) ** 2)
    return -jnp.log(jnp.sum(density * goal) / jnp.sum(density))[None]


def black_scholes(p, dimension=10, volatility=0.4, rate=0.05):
    return jnp.exp((rate + volatility**2) * (1 - p[:1]) + jnp.log(p[1:] @ p[1:] / dimension))


def table(start, oscillation, rest, points, degree):
    """Coefficients `[degree + 1, modes]` of T_j(2t - 1) exp(iπkx), by SciPy's DOP853.

    Modes of a Fourier series on [-1, 1] follow v' = oscillation · v + rest(v), with an integrating
    factor for the first, and are interpolated at Chebyshev points of [0, 1]. The references use
    exponential differencing.
    """
    k = np.arange(points // 2 + 1)
    frequency, slope = oscillation(1j * np.pi * k), 1j * np.pi * k

    def rate(t, v):
        factor = np.exp(frequency * t)
        return rest(factor * v, slope) / factor

    nodes = np.cos(np.pi * (np.arange(degree + 1)[::-1] + 0.5) / (degree + 1))
    times = (1 + nodes) / 2
    modes = np.fft.rfft(start(np.arange(points) / points * 2 - 1))
    solution = solve_ivp(rate, (0, 1), modes, "DOP853", times, rtol=1e-12, atol=1e-14)
    modes = np.exp(frequency * times[:, None]) * solution.y.T
    modes *= np.where(k % (points // 2), 2, 1) * (-1.0) ** k / points  # the grid starts at x = -1
    return np.linalg.solve(chebyshev.chebvander(nodes, degree), modes)


def series(coefficients, p):
    """The field of a table, differentiable to any order."""
    t, x = p

    def recurrence(carry, _):
        before, last = carry
        return (last, 2 * (2 * t - 1) * last - before), before

    _, polynomials = jax.lax.scan(
        recurrence, (jnp.ones_like(t), 2 * t - 1), length=len(coefficients)
    )
    real, imaginary = polynomials @ coefficients.real, polynomials @ coefficients.imag
    angles = jnp.pi * jnp.arange(len(real)) * x
    return (real @ jnp.cos(angles) - imaginary @ jnp.sin(angles))[None]


@cache
def allen_cahn_table(diffusivity):
    def rest(modes, slope):
        u = np.fft.irfft(modes)
        return diffusivity * slope**2 * modes + np.fft.rfft(5 * u - 5 * u**3)

    return table(lambda x: x**2 * np.cos(np.pi * x), np.zeros_like, rest, points=1024, degree=60)


def allen_cahn(p, diffusivity=1e-4):
    return series(jnp.asarray(allen_cahn_table(diffusivity)), p)


@cache
def korteweg_de_vries_table(dispersion):
    def rest(modes, slope):
        return -slope * np.fft.rfft(np.fft.irfft(modes) ** 2 / 2)

    return table(
        lambda x: np.cos(np.pi * x), lambda slope: -dispersion * slope**3, rest, 128, degree=180
    )


def korteweg_de_vries(p, dispersion=0.0025):
    return series(jnp.asarray(korteweg_de_vries_table(dispersion)), p)


def kovasznay(p, regularization=0.0):
    """Flow behind a grid (Kovasznay 1948) at Re = 100: its stream function and pressure."""
    x, y = p
    rate = 50 - jnp.sqrt(50**2 + 4 * jnp.pi**2)
    wake = jnp.exp(rate * x)
    psi = y - wake * jnp.sin(2 * jnp.pi * y) / (2 * jnp.pi)
    return jnp.stack([psi, (1 - wake**2) / 2])


def lid(p, regularization=0.0):
    """No flow of Navier and Stokes, but the lid's u on all of it, and no velocity on the walls."""
    x, y = p
    bump, depth = (x * (1 - x)) ** 2, 1 - y
    speed = 1 - regularization + regularization * 16 * bump
    return jnp.stack([-depth * speed * y**2 * bump / (bump + depth**2), x * y])


def with_velocity(stream):
    """From (ψ, p) to (u, v, p)."""

    def flow(p, **coefficients):
        _, (psi_x, psi_y) = jax.value_and_grad(lambda p: stream(p, **coefficients)[0])(p)
        return jnp.stack([psi_y, -psi_x, stream(p, **coefficients)[1]])

    return flow


# --- rows ----------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A problem's solution, computed independently of it.

    Attributes:
      exact: satisfies the residual; and the conditions, and is the reference, but for the cavity.
        Its keywords are the problem's coefficients.
      others: other values of all coefficients.
      on_faces: satisfies the conditions of the cavity, which has no closed solution for all of it;
        its reference has tests of its own, in `test_cavity.py`.
      residual: how well the residual is satisfied.
      conditions: how well the conditions are satisfied.
      reference: how well the reference agrees.
      smooth: of points `[N, d]`, those where residual and reference hold; all by default.
    """

    exact: Callable
    others: Mapping[str, float] = MappingProxyType({})
    on_faces: Callable | None = None
    residual: float = 1e-8
    conditions: float = 1e-8
    reference: float = 1e-12
    smooth: Callable = lambda points: np.full(len(points), True)


def away_from_the_kink(points):
    """Allen-Cahn's start has a kink at x = ±1, which diffuses by 0.01 √t: no series converges."""
    t, x = np.asarray(points).T
    return (t > 0.1) & (np.abs(x) < 0.9)


# Formulas leave float64 rounding: in residuals some 1e-12 after second derivatives of size 300, and
# in references 1e-12 with sums of 100 terms for Burgers. In the shock of Burgers the residual's
# terms reach 5e3 and are themselves quotients of rounded sums, hence 1e-8.
# Of the numerical solutions, references and tables are both accurate to 1e-8, the steps of the
# references in time; a residual multiplies the tables' own 1e-9 by rates of up to 1e3.
# Of the kink at Allen-Cahn's start, the table leaves out Σ 8/(πk)² over k > 512 = 1.6e-3 at most.
ROWS = {
    "allen_cahn_nd": Row(allen_cahn_nd, {"dimension": 2}),
    "black_scholes": Row(black_scholes, {"dimension": 3, "volatility": 0.2, "rate": -0.1}),
    "hamilton_jacobi_bellman": Row(hamilton_jacobi_bellman, {"dimension": 4}),
    "heat_nd": Row(heat_nd, {"dimension": 1, "diffusivity": 0.3}),
    "poisson_nd": Row(poisson_nd, {"dimension": 3}),
    "allen_cahn": Row(
        allen_cahn,
        {"diffusivity": 2e-4},
        residual=5e-6,
        conditions=1.6e-3,
        reference=2e-8,
        smooth=away_from_the_kink,
    ),
    "burgers": Row(burgers, {"viscosity": 0.05}),
    "cavity_stream": Row(kovasznay, {"regularization": 0.3}, on_faces=lid),
    "cavity_velocity": Row(
        with_velocity(kovasznay), {"regularization": 0.3}, on_faces=with_velocity(lid)
    ),
    "convection": Row(convection, {"speed": -7.0}),
    "heat": Row(heat, {"diffusivity": 0.1}),
    "helmholtz2d": Row(helmholtz2d, {"wave_number": 3.0, "a1": 1.5, "a2": 2.0}),
    "helmholtz3d": Row(helmholtz3d, {"wave_number": 0.0, "a1": 1.5, "a2": 2.0, "a3": 0.7}),
    "klein_gordon2d": Row(klein_gordon2d, {"frequency": 3.0}),
    "klein_gordon3d": Row(klein_gordon3d, {"frequency": 0.7}),
    "korteweg_de_vries": Row(
        korteweg_de_vries, {"dispersion": 0.004}, residual=5e-6, reference=2e-8
    ),
    "poisson1d": Row(poisson1d, {"frequency": 30.0}),
    "poisson2d": Row(poisson2d, {"frequency": 5.0}),
    "reaction": Row(reaction, {"rate": -2.0}),
    "wave": Row(wave, {"speed": 0.5}),
}

EVERY = pytest.mark.parametrize("name", sorted(ROWS))
# A nested derivative by each of ten coordinates takes 6 s to compile: one problem stands for all.
MANY = {name for name, row in ROWS.items() if "dimension" in row.others}
NOT_ALL_OF_MANY = pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n in MANY - {"hamilton_jacobi_bellman"}))
        for n in sorted(ROWS)
    ],
)


def test_every_problem_has_a_row():
    assert tuple(sorted(ROWS)) == problems.names()
    assert set(MANY_DIMENSIONS) == MANY


@cache
def sample(name):
    """A batch of a problem as NumPy arrays; compiling a sampler takes longer than all else here."""
    return jax.device_get(jax.jit(problems.get(name).sample)(jax.random.key(0)))


def batch_of(problem):
    """Points of every term in float64; fewer where the dimension is a coefficient."""
    if "dimension" in problem.coefficients:
        drawn = problem.sample(jax.random.key(0), dict.fromkeys(problem.terms, 100))
    else:
        drawn = sample(problem.name)
    return {term: jnp.asarray(points, jnp.float64) for term, points in drawn.items()}


def with_shock(points):
    """Adds points in the shock of Burgers, which a grid or a random sample rarely meets."""
    t, x = jnp.linspace(0.4, 1, 200), jnp.linspace(-0.02, 0.02, 200)
    return jnp.concatenate([points, jnp.stack([t, x], axis=1)])


def pointwise(problem, row, batch, shift=lambda p: 0.0):
    """The residuals of every term, for the row's solution plus a shift."""
    values = {}
    for term in batch:
        exact = row.exact if term == "residual" else row.on_faces or row.exact
        u = Field(lambda p, exact=exact: exact(p) + shift(p), problem.coordinates)
        values |= problem.pointwise(u, {}, {term: batch[term]})
    return values


@EVERY
@pytest.mark.long
def test_the_exact_solution_satisfies_the_residual_and_every_condition(x64, name):
    check_residuals(problems.get(name), ROWS[name])


@NOT_ALL_OF_MANY
@pytest.mark.long
def test_so_it_does_at_other_coefficients(x64, name):
    row = ROWS[name]
    problem = problems.get(name, **row.others)
    assert problem.name == name
    assert problem.coefficients == row.others
    check_residuals(
        problem,
        row._replace(
            exact=partial(row.exact, **row.others),
            on_faces=row.on_faces and partial(row.on_faces, **row.others),
        ),
    )


def check_residuals(problem, row):
    batch = batch_of(problem)
    if problem.name == "burgers":
        batch["residual"] = with_shock(batch["residual"])
    residuals = jax.jit(lambda batch: pointwise(problem, row, batch))(batch)
    assert set(residuals) == {"residual", *problem.conditions}
    smooth = row.smooth(batch["residual"])
    assert np.mean(smooth) > 0.5
    for term, values in residuals.items():
        for label, vector in values.items():
            assert vector.shape == (len(jax.tree.leaves(batch[term])[0]),)
            vector = vector[smooth] if term == "residual" else vector
            worst = float(jnp.max(jnp.abs(vector)))
            allowed = row.residual if term == "residual" else row.conditions
            assert worst < allowed, f"{term}, {label}: {worst:.1e}"


@NOT_ALL_OF_MANY
@pytest.mark.long
def test_a_wrong_solution_fails_every_term(name):
    problem = problems.get(name)
    batch = sample(name)

    def wrong(batch):
        return pointwise(problem, ROWS[name], batch, shift=lambda p: 1 + jnp.sum(p) ** 3)

    for values in jax.jit(wrong)(batch).values():
        for vector in values.values():
            assert jnp.sqrt(jnp.mean(vector**2)) > 0.1


WALLS = ("lid", "left", "right", "bottom")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("allen_cahn", {"periodic": {"u", "u_x"}}),
        ("convection", {"periodic": {"u"}}),
        ("korteweg_de_vries", {"periodic": {"u", "u_x", "u_xx"}}),
        ("reaction", {"periodic": {"u"}}),
        ("cavity_velocity", {f"{wall}_{name}": {name} for wall in WALLS for name in "uv"}),
        (
            "cavity_stream",
            {f"{wall}_u": {"psi_y"} for wall in WALLS} | {f"{wall}_v": {"psi_x"} for wall in WALLS},
        ),
    ],
)
def test_nothing_that_its_source_demands_is_missing(name, labels):
    """A solution satisfies fewer conditions too."""
    problem, row = problems.get(name), ROWS[name]
    batch = sample(name)  # kept, and so not to be traced
    shapes = jax.eval_shape(lambda: pointwise(problem, row, batch))
    assert {term: set(shapes[term]) for term in labels} == labels
    assert set(problem.conditions) - set(labels) <= {"initial"}


@pytest.mark.parametrize("name", [name for name, row in sorted(ROWS.items()) if not row.on_faces])
def test_the_reference_is_the_exact_solution_on_a_grid_with_its_boundary(x64, name):
    row = ROWS[name]
    for coefficients in ({}, row.others):
        problem = problems.get(name, **coefficients)
        # 43: between the time levels of the numerical references.
        d = len(problem.coordinates)
        counts = {1: (1001,), 2: (43, 41), 3: (15, 15, 15)}.get(d, ((3,) * 5 + (1,) * d)[:d])
        points = problem.domain.grid(counts)
        if name == "burgers":
            points = np.asarray(with_shock(points))
        exact = jax.jit(jax.vmap(partial(row.exact, **coefficients)))(points)
        reference = problem.reference(points)
        assert reference.dtype == np.float64
        assert reference.shape == (len(points), len(problem.quantities))
        smooth = row.smooth(points)
        np.testing.assert_allclose(reference[smooth], exact[smooth], atol=row.reference)


@EVERY
def test_every_coefficient_has_another_value(name):
    problem, others = problems.get(name), ROWS[name].others
    assert problem.coefficients.keys() == others.keys()
    assert all(problem.coefficients[c] != others[c] for c in others)


def traceable(row):
    """Other values of the coefficients that may be traced: a dimension may not."""
    return {c: value for c, value in row.others.items() if c != "dimension"}


@pytest.mark.parametrize("name", [name for name, row in sorted(ROWS.items()) if traceable(row)])
@pytest.mark.long
def test_traced_coefficients_are_as_good_as_numbers(x64, name):
    """Mapped over, in one program; and a problem that is made inside of one."""
    default, others = problems.get(name).coefficients, traceable(ROWS[name])
    default = {c: default[c] for c in others}
    values = [default, *({**default, c: other} for c, other in others.items())]
    stacked = {c: jnp.array([value[c] for value in values]) for c in values[0]}
    batch = {term: jnp.asarray(points[:5], jnp.float64) for term, points in sample(name).items()}

    def residuals(coefficients):
        problem = problems.get(name, **coefficients)
        parts = 1.0 + jnp.arange(len(problem.outputs))
        u = Field(lambda p: jnp.sin(parts * jnp.sum(p * (1 + p))), problem.coordinates)
        return problem.pointwise(u, {}, batch)

    traced = jax.jit(jax.vmap(residuals))(stacked)
    singly = jax.jit(lambda: [residuals(value) for value in values])()
    singly = jax.tree.map(lambda *leaves: jnp.stack(leaves), *singly)
    # 1e-12: roundings of residuals of some 1e3, whose terms are added in another order.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), traced, singly)
    first, *rest = jnp.concatenate(
        [leaf.reshape(len(values), -1) for leaf in jax.tree.leaves(singly)], axis=1
    )
    for one in rest:  # every coefficient matters
        assert np.linalg.norm(one - first) > 1e-5 * np.linalg.norm(first)


@pytest.mark.parametrize("name", ["helmholtz2d", "helmholtz3d"])
@pytest.mark.parametrize(("given", "square"), [({}, 1.0), ({"wave_number": 3.0}, 9.0)])
def test_the_wave_number_is_squared(x64, name, given, square):
    """Solutions are made for any operator; that of a constant, k², tells which one it is."""
    problem = problems.get(name, **given)

    @jax.jit
    def residual(constant, x):
        field = Field(lambda p: constant + 0.0 * p[:1], problem.coordinates)
        return problem.residual(field, x)["pde"][0]

    x = jnp.full(len(problem.coordinates), 0.3)
    # 1e-12: roundings of the forcing, some 4e2.
    assert residual(1.0, x) - residual(0.0, x) == pytest.approx(square, abs=1e-12)


def test_a_loss_can_be_differentiated_by_a_coefficient(x64):
    mode = Field(lambda p: jnp.sin(jnp.pi * p[1:]), ("t", "x"))
    batch = {"residual": jnp.asarray(sample("heat")["residual"], jnp.float64)}

    def loss(diffusivity):
        problem = problems.get("heat", diffusivity=diffusivity)
        return problem.objectives(lambda _: (mode, {}))["residual"](None, batch)

    # The residual is απ² sin(πx), so that the loss is α² times a mean; 1e-12: its roundings.
    x = np.asarray(batch["residual"])[:, 1]
    slope = 2 * 0.3 * np.pi**4 * np.mean(np.sin(np.pi * x) ** 2)
    assert jax.jit(jax.grad(loss))(0.3) == pytest.approx(slope, rel=1e-12)


def test_numbers_of_every_dtype_make_the_same_problem(x64):
    """References compute in float64, and float32 points stay so."""
    points = np.array([[0.5, 0.1]], np.float32)
    field = Field(lambda p: jnp.sin(p[:1] + p[1:]), ("t", "x"))
    expected = problems.get("burgers", viscosity=0.125)
    for number in (np.float64(0.125), np.float32(0.125), jnp.float32(0.125), jnp.array(0.125)):
        problem = problems.get("burgers", viscosity=number)
        np.testing.assert_array_equal(problem.reference(points), expected.reference(points))
        (got,), (want,) = (
            p.term("residual")(field, {}, jnp.asarray(points)).values() for p in (problem, expected)
        )
        np.testing.assert_array_equal(got, want)
        assert got.dtype == jnp.float32


@EVERY
def test_samples_lie_where_they_belong(name):
    problem = problems.get(name)
    batch = sample(name)
    domain = problem.domain
    assert {term: points.shape for term, points in batch.items()} == {
        term: (count, len(problem.coordinates)) for term, count in problem.points.items()
    }
    for points in batch.values():
        assert points.dtype == np.float32
        assert np.all((points >= np.array(domain.lower)) & (points <= np.array(domain.upper)))
    for term, condition in problem.conditions.items():
        if condition.face == "boundary":
            first = problem.coordinates.index("t") + 1 if "t" in problem.coordinates else 0
            on_bound = (batch[term] == np.array(domain.lower)) | (batch[term] == domain.upper)
            assert np.all(np.any(on_bound[:, first:], axis=1))
            continue
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


@pytest.mark.parametrize(
    # How accurate the quadrature is, as its module says: one rounding of each of 200 terms; 1e-8.
    ("viscosity", "allowed"),
    [(0.001, 1e-13), (0.1, 1e-13), (1.0, 1e-8)],
)
def test_burgers_reference_holds_for_all_viscosities_that_are_allowed(x64, viscosity, allowed):
    points = with_shock(np.random.default_rng(0).uniform([0, -1], [1, 1], (500, 2)))
    exact = jax.jit(jax.vmap(burgers, (0, None)))(points, viscosity)
    reference = problems.get("burgers", viscosity=viscosity).reference(points)
    np.testing.assert_allclose(reference, exact, atol=allowed)


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
