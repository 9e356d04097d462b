"""Samplers and boxes: on the device, exact where they claim it, the same under `jit`."""

import decimal
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import sampling
from modsync_jax.sampling import box, numbered

BOX = box(t=(0, 2), x=(-1, 3), y=(-math.pi, math.pi))


@pytest.mark.parametrize("dims", [0, 1, 3])
@pytest.mark.parametrize("name", sorted(sampling.SAMPLERS))
def test_samplers_fill_the_unit_cube(name, dims):
    sampler = sampling.get(name)
    draw = jax.jit(sampler, static_argnums=(1, 2, 3))
    points = draw(jax.random.key(0), 500, dims, jnp.float32)
    assert points.shape == (500, dims)
    assert points.dtype == jnp.float32
    assert np.all((points >= 0) & (points <= 1))
    if dims:
        # Standard deviation of a uniform mean over 500 points: 0.013; four of that.
        np.testing.assert_allclose(np.mean(points, axis=0), 0.5, atol=0.052)
        assert not np.array_equal(points, draw(jax.random.key(1), 500, dims, jnp.float32))


def test_latin_hypercube_has_one_point_in_every_interval_of_every_axis(x64):
    points = sampling.latin_hypercube(jax.random.key(3), 1000, 4, jnp.float64)
    strata = np.sort(np.floor(np.asarray(points) * 1000), axis=0)
    np.testing.assert_array_equal(strata, np.arange(1000)[:, None] * np.ones(4))
    # Axes are shuffled independently: correlations scatter by 1/√1000; five of that.
    correlation = np.corrcoef(points.T) - np.eye(4)
    assert np.max(np.abs(correlation)) < 0.16


def test_latin_hypercubes_of_few_points_come_in_every_order_equally_often():
    draw = jax.vmap(lambda key: sampling.latin_hypercube(key, 4, 1)[:, 0])
    points = draw(jax.random.split(jax.random.key(0), 24_000))
    orders = np.floor(np.asarray(points) * 4) @ 4 ** np.arange(4)
    _, counts = np.unique(orders, return_counts=True)
    assert len(counts) == 24
    # Chi-squared of 23 degrees of freedom: mean 23, deviation 7; five of that.
    assert np.sum((counts - 1000) ** 2 / 1000) < 23 + 5 * 7


def test_latin_hypercube_has_no_memory_from_point_to_point():
    """Correlations of points a lag apart, and of a point with its number, as by chance."""
    draw = jax.jit(jax.vmap(lambda key: sampling.latin_hypercube(key, 1000, 1)[:, 0]))
    points = np.asarray(draw(jax.random.split(jax.random.key(1), 100)), np.float64)
    number = np.broadcast_to(np.arange(1000), points.shape)
    pairs = [(points[:, lag:], points[:, :-lag]) for lag in (1, 2, 3, 500)] + [(points, number)]
    for a, b in pairs:
        r = np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)])
        z = r * np.sqrt(a.shape[1])  # standard normal, over 100 draws; five deviations
        assert abs(np.mean(z)) < 5 / np.sqrt(100)
        assert abs(np.mean(z**2) - 1) < 5 * np.sqrt(2 / 100)


@pytest.mark.parametrize("dims", [1, 2, 5])
def test_low_discrepancy_is_exact_integer_arithmetic_for_a_million_points(x64, dims):
    points = sampling.low_discrepancy(jax.random.key(0), 1_000_001, dims, jnp.float64)
    with decimal.localcontext(prec=60):
        low, high = decimal.Decimal(1), decimal.Decimal(2)
        while high - low > decimal.Decimal("1e-50"):  # bisection for φ^(dims + 1) = φ + 1
            middle = (low + high) / 2
            low, high = (middle, high) if middle ** (dims + 1) < middle + 1 else (low, middle)
        steps = [round(low**-axis * 2**32) for axis in range(1, dims + 1)]
    first = [int(value * 2**32) for value in points[0]]
    for n in (1, 2, 999_999, 1_000_000):
        expected = [
            (shift + n * step) % 2**32 / 2**32 for shift, step in zip(first, steps, strict=True)
        ]
        assert points[n].tolist() == expected


def test_low_discrepancy_in_float32_is_the_float64_sequence_cut_off(x64):
    double = np.asarray(sampling.low_discrepancy(jax.random.key(0), 10_000, 2, jnp.float64))
    single = np.asarray(sampling.low_discrepancy(jax.random.key(0), 10_000, 2, jnp.float32))
    np.testing.assert_array_equal(single, np.floor(double * 2**24) / 2**24)


def test_low_discrepancy_is_more_even_than_chance():
    points = np.asarray(sampling.low_discrepancy(jax.random.key(0), 1024, 2, jnp.float32))
    counts = np.histogram2d(*points.T, bins=8, range=[[0, 1], [0, 1]])[0]
    assert np.std(counts) < 2  # a uniform sample has √16 = 4


def test_unknown_sampler_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown sampler 'latin'.*known: latin-hypercube"):
        sampling.get("latin")


def test_box_knows_its_moments():
    points = np.asarray(BOX.sample(jax.random.key(0), 100_000))
    # 100,000 points: means scatter by 0.6% of a width of at most 2π, deviations less; five of that.
    np.testing.assert_allclose(points.mean(axis=0), BOX.mean, atol=0.03)
    np.testing.assert_allclose(points.std(axis=0), BOX.std, atol=0.03)
    assert BOX.coordinates == ("t", "x", "y")
    assert BOX.std == pytest.approx([2 / 12**0.5, 4 / 12**0.5, 2 * math.pi / 12**0.5])


@pytest.mark.parametrize("name", [side.name for side in BOX.sides])
def test_faces_hold_their_points_exactly_and_point_outward(name):
    face = BOX.face(name)
    points = face.sample(jax.random.key(0), 64, sampling.latin_hypercube)
    assert points.shape == (64, 3)
    assert np.all(points[:, face.axis] == np.float32(face.bound))
    others = np.delete(points, face.axis, axis=1)
    lower, upper = np.delete(BOX.lower, face.axis), np.delete(BOX.upper, face.axis)
    # 64 Latin hypercube points leave at most two intervals of 1/64 free at an end.
    np.testing.assert_allclose(others.min(axis=0), lower, atol=2 / 64 * (upper - lower).max())
    np.testing.assert_allclose(others.max(axis=0), upper, atol=2 / 64 * (upper - lower).max())
    normal = np.asarray(face.normal(points[0]))
    assert np.linalg.norm(normal) == 1
    outside = np.asarray(points[0]) + 0.01 * normal
    assert np.any((outside < BOX.lower) | (outside > BOX.upper))
    assert face.opposite.opposite == face
    across = face.opposite.project(points)
    assert np.all(across[:, face.axis] == np.float32(face.opposite.bound))
    np.testing.assert_array_equal(np.delete(across, face.axis, axis=1), others)


def test_faces_are_found_by_rounded_numbers_and_spaces():
    assert BOX.face("y = 3.14159") == BOX.sides[-1]
    assert BOX.face("x=-1.0").side == -1
    assert box(x=(1e6, 1e6 + 1)).face("x=1000001").side == 1


@pytest.mark.parametrize("name", ["x=0", "z=0", "x", "x=left", ""])
def test_a_face_that_does_not_exist_lists_those_that_do(name):
    with pytest.raises(
        ValueError, match=r"unknown face .*known: boundary, t=0, t=2, x=-1, x=3, y=-3.14159"
    ):
        BOX.face(name)


def test_a_face_of_an_interval_is_a_point():
    points = box(x=(-1, 1)).face("x=1").sample(jax.random.key(0), 3)
    np.testing.assert_array_equal(points, np.ones((3, 1)))


def test_grid_is_regular_with_its_boundary():
    grid = box(t=(0, 1), x=(-1, 1)).grid((2, 3))
    assert grid.dtype == np.float64
    np.testing.assert_array_equal(grid, [[0, -1], [0, 0], [0, 1], [1, -1], [1, 0], [1, 1]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: box(), "coordinates must be distinct letters"),
        (lambda: box(time=(0, 1)), "or letters with a number such as x12"),
        (lambda: box(t=(1, 0)), r"bounds of t must be finite and increasing, got \(1.0, 0.0\)"),
        (lambda: box(t=(0, math.inf)), "bounds of t must be finite"),
        (lambda: box(t=1), "bounds of t must be two numbers, lower and upper, got 1"),
        (lambda: box(t=(0, 1)).grid((0,)), "a count of at least 1 for each of t"),
        (lambda: box(t=(0, 1)).grid((3, 3)), "a count of at least 1 for each of t"),
    ],
)
def test_bad_boxes_and_grids_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


SPACE = box(t=(0, 2), x=(0, 1), y=(-1, 3))


def on_boundary(count, sampler=sampling.uniform):
    """Points of the boundary in space, the axis and the side of each."""
    points = np.asarray(SPACE.face("boundary").sample(jax.random.key(0), count, sampler))
    gaps = np.abs(np.stack([points - SPACE.lower, points - SPACE.upper], axis=1))
    side, axis = np.unravel_index(np.argmin(gaps.reshape(count, -1), axis=1), (2, 3))
    return points, axis, side


@pytest.mark.parametrize("name", sorted(sampling.SAMPLERS))
def test_the_boundary_of_a_box_is_drawn_by_area(name):
    """Sides of x have the area 4 times 2, and those of y 1 times 2; t has none."""
    points, axis, side = on_boundary(8_000, sampling.SAMPLERS[name])
    found = np.array([[np.sum((axis == k) & (side == s)) for s in (0, 1)] for k in range(3)])
    expected = np.array([[0, 0], [3_200, 3_200], [800, 800]])
    assert found.sum() == 8_000
    statistic = np.sum((found - expected)[1:] ** 2 / expected[1:])
    assert statistic < 16.3  # χ² of three degrees of freedom: once in a thousand
    assert np.all(found[0] == 0)
    # On each side points are uniform: the means of t and of the other coordinate.
    for of, other in ((1, 2), (2, 1)):
        own = points[axis == of]
        assert own[:, 0].mean() == pytest.approx(1.0, abs=0.06)  # 4 standard errors of 1,600 points
        middle = (SPACE.lower[other] + SPACE.upper[other]) / 2
        width = SPACE.upper[other] - SPACE.lower[other]
        assert own[:, other].mean() == pytest.approx(middle, abs=0.03 * width)


def test_points_of_the_boundary_lie_on_it_and_normals_point_outward():
    points, axis, side = on_boundary(200)
    bounds = np.array([SPACE.lower, SPACE.upper])
    np.testing.assert_array_equal(points[np.arange(200), axis], bounds[side, axis])
    normals = np.asarray(jax.vmap(SPACE.face("boundary").normal)(jnp.asarray(points)))
    expected = np.zeros((200, 3))
    expected[np.arange(200), axis] = 2 * side - 1
    np.testing.assert_array_equal(normals, expected)


def test_a_box_of_time_alone_has_no_boundary_in_space():
    assert box(t=(0, 1)).faces == ("t=0", "t=1")
    with pytest.raises(ValueError, match="unknown face 'boundary'"):
        box(t=(0, 1)).face("boundary")


def test_a_grid_with_single_points_lies_in_the_middle_of_these_axes():
    many = box(**dict.fromkeys(numbered("x", 80), (0, 4)))
    points = many.grid((2, *[1] * 78, 3))
    assert points.shape == (6, 80)
    np.testing.assert_array_equal(points[:, 1:-1], 2.0)
    np.testing.assert_array_equal(
        points[:, [0, -1]], [(0, 0), (0, 2), (0, 4), (4, 0), (4, 2), (4, 4)]
    )
