"""Shapes: what lies inside, points and normals of faces, distances, and meshes from files."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import meshio
import numpy as np
import pytest
from scipy import stats
from scipy.spatial import Delaunay

from modsync_jax import sampling
from modsync_jax.geometry import ball, disk, extruded, mesh, polygon, read_mesh, rectangle
from modsync_jax.geometry._shapes import Combined
from modsync_jax.sampling import box, low_discrepancy

L = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]


def lens(distance, radius=1.0):
    """The area that two disks of one radius share."""
    half = distance / 2
    return 2 * radius**2 * math.acos(half / radius) - half * math.sqrt(4 * radius**2 - distance**2)


def square_mesh(n=6, hole=False):
    """The unit square in triangles of unlike sizes; with a square hole if asked."""
    axis = np.linspace(0, 1, n) ** 1.3
    nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    cells = []
    for i in range(n - 1):
        for j in range(n - 1):
            if hole and i == j == 2:
                continue
            a, b, c, d = i * n + j, (i + 1) * n + j, (i + 1) * n + j + 1, i * n + j + 1
            cells += [(a, b, c), (d, a, c)]  # turning both ways
    return nodes, np.array(cells)


HOLE = float(np.diff(np.linspace(0, 1, 6) ** 1.3)[2]) ** 2
# Shapes, with their areas or volumes and the lengths or areas of their faces.
SHAPES = {
    "disk": (disk(0.7, x=0.2, y=-0.1), math.pi * 0.49, {"circle": 1.4 * math.pi}),
    "rectangle": (
        rectangle(x=(0, 2), y=(-1, 0.5)),
        3.0,
        {"x=0": 1.5, "x=2": 1.5, "y=-1": 2.0, "y=0.5": 2.0},
    ),
    "polygon": (polygon(L, names=["floor", *["wall"] * 5]), 3.0, {"floor": 2.0, "wall": 6.0}),
    "union": (
        disk(1, x=0, y=0, name="left") | disk(1, x=1, y=0, name="right"),
        2 * math.pi - lens(1),
        {"left": 4 * math.pi / 3, "right": 4 * math.pi / 3},
    ),
    "intersection": (
        disk(1, x=0, y=0, name="left") & disk(1, x=1, y=0, name="right"),
        lens(1),
        {"left": 2 * math.pi / 3, "right": 2 * math.pi / 3},
    ),
    "channel": (
        rectangle(x=(0, 2), y=(0, 1)) - disk(0.2, x=0.5, y=0.5, name="cylinder"),
        2 - 0.04 * math.pi,
        {"x=0": 1, "x=2": 1, "y=0": 2, "y=1": 2, "cylinder": 0.4 * math.pi},
    ),
    "bite": (  # half of the circle, and a part of one side
        rectangle(x=(0, 1), y=(0, 1)) - disk(0.25, x=0, y=0.5),
        1 - math.pi / 32,
        {"x=0": 0.5, "x=1": 1, "y=0": 1, "y=1": 1, "circle": math.pi / 4},
    ),
    "two boxes": (  # faces of one name in two boxes, which overlap
        rectangle(x=(0, 2), y=(0, 1)) | rectangle(x=(0, 1), y=(0, 2)),
        3.0,
        {"x=0": 2, "x=2": 1, "y=0": 2, "y=1": 1, "x=1": 1, "y=2": 1},
    ),
    "mesh": (mesh(*square_mesh(hole=True)), 1 - HOLE, {"boundary": 4 + 4 * math.sqrt(HOLE)}),
    "shell": (
        ball(1, x=0, y=0, z=0, name="outside") - ball(0.5, x=0, y=0, z=0, name="inside"),
        4 / 3 * math.pi * (1 - 1 / 8),
        {"outside": 4 * math.pi, "inside": math.pi},
    ),
    "cuboid": (
        rectangle(x=(0, 1), y=(0, 2), z=(0, 3)),
        6.0,
        {"x=0": 6, "x=1": 6, "y=0": 3, "y=2": 3, "z=0": 2, "z=3": 2},
    ),
}
LOW, HIGH = (np.linspace(0, 1, 6) ** 1.3)[2:4]  # of the hole in the mesh


def _square(x, y, low=0.0, high=1.0):
    return (x > low) & (x < high) & (y > low) & (y < high)


def _in_l(x, y):
    return (x > 0) & (y > 0) & (x < 2) & (y < 2) & ((x < 1) | (y < 1))


# What lies inside, written out.
INSIDE = {
    "disk": lambda x, y: (x - 0.2) ** 2 + (y + 0.1) ** 2 < 0.49,
    "rectangle": lambda x, y: (x > 0) & (x < 2) & (y > -1) & (y < 0.5),
    "polygon": _in_l,
    "union": lambda x, y: (x**2 + y**2 < 1) | ((x - 1) ** 2 + y**2 < 1),
    "intersection": lambda x, y: (x**2 + y**2 < 1) & ((x - 1) ** 2 + y**2 < 1),
    "channel": lambda x, y: (
        (x > 0) & (x < 2) & (y > 0) & (y < 1) & ((x - 0.5) ** 2 + (y - 0.5) ** 2 > 0.04)
    ),
    "bite": lambda x, y: _square(x, y) & (x**2 + (y - 0.5) ** 2 > 0.0625),
    "two boxes": _in_l,
    "mesh": lambda x, y: _square(x, y) & ~_square(x, y, LOW, HIGH),
    "shell": lambda x, y, z: np.abs(np.sqrt(x**2 + y**2 + z**2) - 0.75) < 0.25,
    "cuboid": lambda x, y, z: (x > 0) & (x < 1) & (y > 0) & (y < 2) & (z > 0) & (z < 3),
}
QUICK, LONG = ("disk", "mesh"), ("channel", "shell")  # the others take minutes


def shapes(first, then):
    """Parametrises a test over the shapes, with marks for those in QUICK and LONG."""
    marks = dict.fromkeys(SHAPES, pytest.mark.slow)
    marks |= dict.fromkeys(LONG, then) | dict.fromkeys(QUICK, first)
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=marks[name]) for name in SHAPES]
    )


cheap = shapes((), pytest.mark.long)
dear = shapes(pytest.mark.long, pytest.mark.long)


def drawn(of, seed, count, sampler=sampling.uniform):
    """Points of a shape or face."""
    draw = jax.jit(partial(of.sample, count=count, sampler=sampler))
    return np.asarray(draw(jax.random.key(seed)))


def normals_at(face, points):
    return np.asarray(jax.jit(jax.vmap(face.normal))(points))


def box_share(shape, count=200_000):
    """The share of the box around a shape that it fills, by evenly spread points."""
    lower, upper = np.array(shape.bounds.lower), np.array(shape.bounds.upper)
    unit = np.asarray(low_discrepancy(jax.random.key(1), count, len(lower)))
    inside = np.asarray(shape.contains(lower + (upper - lower) * unit))
    return inside.mean() * np.prod(upper - lower)


@cheap
def test_a_shape_has_its_area(name):
    shape, area, _ = SHAPES[name]
    # Evenly spread points: the error is a few thousandths of the box.
    assert box_share(shape) == pytest.approx(area, rel=5e-3)


@dear
def test_points_of_the_inside_are_uniform(name):
    """A χ² test over cells, whose expected shares are counted on many evenly spread points."""
    shape, _, _ = SHAPES[name]
    d, bins = len(shape.coordinates), 5
    points = drawn(shape, 0, 20_000)
    assert np.asarray(shape.contains(points)).mean() > 0.9999  # rounding at the boundary
    lower, upper = np.array(shape.bounds.lower), np.array(shape.bounds.upper)
    unit = np.asarray(low_discrepancy(jax.random.key(1), 400_000, d))
    even = lower + (upper - lower) * unit
    even = even[np.asarray(shape.contains(even))]
    edges = [np.linspace(a, b, bins + 1) for a, b in zip(lower, upper, strict=True)]
    counts, _ = np.histogramdd(points, edges)
    expected = np.histogramdd(even, edges)[0] * len(points) / len(even)
    used = expected > 50
    rest = (counts[~used].sum(), expected[~used].sum())
    seen, of = np.append(counts[used], rest[0]), np.append(expected[used], rest[1])
    chi = np.sum((seen - of)[of > 0] ** 2 / of[of > 0])
    assert stats.chi2.sf(chi, len(seen) - 1) > 1e-4


@cheap
def test_means_and_deviations_are_those_of_the_points(name):
    shape, _, _ = SHAPES[name]
    points = drawn(shape, 2, 40_000)
    scale = points.std(0)  # the standard errors of both are below scale / 200
    np.testing.assert_allclose(points.mean(0), shape.mean, atol=0.03 * scale.max())
    np.testing.assert_allclose(scale, shape.std, rtol=0.03)


@dear
def test_faces_are_the_boundary_and_normals_point_outward(name):
    shape, _, faces = SHAPES[name]
    assert set(shape.faces) == set(faces)
    step = 1e-3 * shape.size
    for face in faces:
        points = drawn(shape.face(face), 3, 500)
        normals = normals_at(shape.face(face), points)
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(shape.level(jnp.asarray(points)), 0, atol=1e-5 * shape.size)
        inner, outer = (
            shape.contains(points - step * normals),
            shape.contains(points + step * normals),
        )
        assert np.mean(inner & ~outer) > 0.98  # within a step of a corner, both may fail


@dear
def test_the_divergence_theorem_holds(name):
    """The fluxes of F = r |r|² through the faces, r from a point, integrate (d + 2) |r|².

    A flux is the mean of F·n over the points of a face, times its length. On no face is F·n
    constant, so this holds only for uniform points, right lengths and outward normals.
    """
    shape, area, faces = SHAPES[name]
    d, total, error, count = len(shape.coordinates), 0.0, 0.0, 20_000
    c = np.array([0.3, -0.2, 0.6])[:d]
    for face, length in faces.items():
        points = drawn(shape.face(face), 4, count).astype(float)
        r = points - c
        flux = np.sum(r * normals_at(shape.face(face), points), axis=1) * np.sum(r**2, axis=1)
        assert flux.std() > 1e-3
        total += length * flux.mean()
        error += (length * flux.std()) ** 2 / count
    square = np.sum(np.square(shape.std) + np.square(np.array(shape.mean) - c))
    expected = (d + 2) * square * area
    assert total == pytest.approx(expected, abs=4 * math.sqrt(error) + 2e-3 * expected)


@pytest.mark.long
def test_points_of_a_clipped_circle_are_uniform_in_angle():
    shape, _, _ = SHAPES["union"]
    x, y = np.asarray(shape.face("left").sample(jax.random.key(5), 10_000)).T
    angle = np.arctan2(y, x) % (2 * np.pi)  # what is left goes from 60 to 300 degrees
    assert stats.kstest(angle, stats.uniform(np.pi / 3, 4 * np.pi / 3).cdf).pvalue > 1e-4


@pytest.mark.long
def test_edges_get_points_in_proportion_to_their_lengths():
    wall = SHAPES["polygon"][0].face("wall")
    x, y = np.asarray(wall.sample(jax.random.key(6), 12_000)).T
    counts = [np.sum(np.abs(x - 2) < 1e-5), np.sum(np.abs(y - 2) < 1e-5), np.sum(np.abs(x) < 1e-5)]
    of = np.array([1, 1, 2]) * 2_000
    assert stats.chi2.sf(np.sum((counts - of) ** 2 / (of * (1 - of / 12_000))), 3) > 1e-4


@cheap
def test_levels_are_signed_distances(name):
    """Exact for single shapes; of combined ones, no more than the distance."""
    shape, _, faces = SHAPES[name]
    rng = np.random.default_rng(0)
    span = np.subtract(shape.bounds.upper, shape.bounds.lower)
    points = np.array(shape.bounds.lower) + span * rng.uniform(-0.5, 1.5, (200, len(span)))
    points = points.astype(np.float32)
    dense = np.concatenate([drawn(shape.face(face), 7, 20_000, low_discrepancy) for face in faces])
    nearest = np.array([np.linalg.norm(dense - point, axis=1).min() for point in points])
    spacing = 0.02 if len(span) == 3 else 1e-3  # of the dense points
    found = np.asarray(shape.level(jnp.asarray(points)))
    if isinstance(shape, Combined):
        assert np.all(np.abs(found) <= nearest + spacing)
    else:
        np.testing.assert_allclose(np.abs(found), nearest, atol=spacing)
    x, y, *z = points.T
    inside = INSIDE[name](x, y, *z)
    sure = np.abs(found) > 1e-5  # of rounding
    np.testing.assert_array_equal((found > 0)[sure], inside[sure])


@dear
def test_smooth_distances_vanish_on_faces_with_slope_one(name):
    shape, _, faces = SHAPES[name]
    inside = drawn(shape, 8, 2_000)
    assert np.all(shape.distance(inside) > 0)
    # The second derivative is of the order of one over the size, or over an edge of the mesh. The
    # boundaries of the two boxes run along each other.
    tolerance = {"two boxes": 2.5, "mesh": 0.4}.get(name, 0.08)
    for chosen in [(), *((face,) for face in (*faces,)[-2:])]:
        distance = jax.jit(lambda x, c=chosen: shape.distance(x, *c))
        assert np.all(distance(inside) > 0)
        for face in chosen or faces:
            points = drawn(shape.face(face), 9, 200)
            normals = normals_at(shape.face(face), points)
            away = corner_distance(shape, name, points)
            kept = away > 0.1 * shape.size
            np.testing.assert_allclose(distance(points)[kept], 0, atol=2e-5 * shape.size)
            step = 1e-3 * shape.size
            slope = (
                distance(points - 2 * step * normals) - distance(points - step * normals)
            ) / step
            assert np.abs(np.asarray(slope)[kept] - 1).max(initial=0) < tolerance
        for face in set(faces) - set(chosen) if chosen else ():
            points = drawn(shape.face(face), 10, 200)
            kept = corner_distance(shape, name, points) > 0.1 * shape.size
            assert np.all(np.asarray(distance(points))[kept] > 1e-3)


def corner_distance(shape, name, points):
    """The distance from the ends of faces, where slopes need not be 1."""
    corners = {
        "polygon": L,
        "union": [(0.5, 0.75**0.5), (0.5, -(0.75**0.5))],
        "intersection": [(0.5, 0.75**0.5), (0.5, -(0.75**0.5))],
        "bite": [(0, 0.25), (0, 0.75), (0, 0), (0, 1), (1, 0), (1, 1)],
        "channel": [(0, 0), (0, 1), (2, 0), (2, 1)],
        "two boxes": L,
    }
    if name in ("disk", "shell"):
        return np.full(len(points), np.inf)
    if name in ("rectangle", "cuboid"):
        lower, upper = np.array(shape.bounds.lower), np.array(shape.bounds.upper)
        away = np.sort(np.minimum(np.abs(points - lower), np.abs(points - upper)), axis=1)
        return away[:, 1]
    if name == "mesh":
        nodes = shape.edges.starts  # every node of the boundary, because slopes differ near them
        return np.min(np.linalg.norm(points[:, None] - nodes, axis=2), axis=1) * 4
    of = np.array(corners[name], float)
    return np.min(np.linalg.norm(np.asarray(points)[:, None] - of, axis=2), axis=1)


@pytest.mark.long
def test_shapes_are_drawn_under_jit_and_vmap_as_without():
    shape = SHAPES["channel"][0]
    draw = partial(shape.sample, count=64)
    keys = jax.random.split(jax.random.key(0), 3)
    alone = np.stack([draw(key) for key in keys])
    np.testing.assert_array_equal(jax.jit(draw)(keys[1]), alone[1])
    np.testing.assert_array_equal(jax.vmap(draw)(keys), alone)
    assert not np.array_equal(alone[0], alone[1])
    for sampler in sampling.SAMPLERS.values():
        assert np.asarray(shape.contains(shape.sample(keys[0], 64, sampler))).all()
    assert shape.sample(keys[0], 4, dtype=jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.long
def test_a_shape_in_time():
    shape = SHAPES["channel"][0]
    domain = extruded(shape, t=(1, 3))
    assert domain.coordinates == ("t", "x", "y")
    assert domain.faces == ("t=1", "t=3", *shape.faces)
    points = np.asarray(domain.sample(jax.random.key(0), 4_000))
    assert domain.contains(points).all()
    assert stats.kstest(points[:, 0], stats.uniform(1, 2).cdf).pvalue > 1e-4
    np.testing.assert_allclose(domain.mean, [2, *shape.mean])
    np.testing.assert_allclose(domain.std, [2 / math.sqrt(12), *shape.std])
    start = np.asarray(domain.face("t=1").sample(jax.random.key(1), 50))
    assert np.all(start[:, 0] == 1) and shape.contains(start[:, 1:]).all()
    np.testing.assert_array_equal(domain.face("t=1").normal(jnp.zeros(3)), [-1, 0, 0])
    wall = domain.face("cylinder")
    where = np.asarray(wall.sample(jax.random.key(2), 300, low_discrepancy))
    assert where[:, 0].min() < 1.1 and where[:, 0].max() > 2.9
    np.testing.assert_allclose(np.linalg.norm(where[:, 1:] - 0.5, axis=1), 0.2, rtol=1e-5)
    normals = np.asarray(jax.vmap(wall.normal)(where))
    np.testing.assert_allclose(normals[:, 0], 0)
    np.testing.assert_allclose(normals[:, 1:], (0.5 - where[:, 1:]) / 0.2, atol=1e-5)
    grid = domain.grid((3, 5, 5))
    assert grid.shape == (75, 3) and not np.asarray(domain.contains(grid)).all()
    tube = extruded(disk(1, x=0, y=0), z=(0, 2))
    assert tube.coordinates == ("x", "y", "z")
    np.testing.assert_array_equal(tube.face("z=2").normal(jnp.ones(3)), [0, 0, 1])


@pytest.mark.parametrize("hole", [False, True])
def test_a_mesh_has_the_area_mean_and_boundary_of_what_it_covers(hole):
    nodes, cells = square_mesh(hole=hole)
    found = mesh(nodes, cells)
    low, high = (np.linspace(0, 1, 6) ** 1.3)[2:4]
    area = 1 - hole * (high - low) ** 2
    assert found.areas.sum() == pytest.approx(area, rel=1e-12)
    moment = 1 / 2 - hole * (high - low) * (high**2 - low**2) / 2
    square = 1 / 3 - hole * (high - low) * (high**3 - low**3) / 3
    mean = moment / area
    np.testing.assert_allclose(found.mean, [mean, mean], rtol=1e-12)
    np.testing.assert_allclose(found.std, [math.sqrt(square / area - mean**2)] * 2, rtol=1e-12)
    edges = found.edges
    middles = (edges.starts + edges.ends) / 2
    flux = np.sum(middles * edges.outward, axis=1) @ edges.lengths
    assert flux == pytest.approx(2 * area, rel=1e-12)  # ∮ x·n = 2 A, exactly
    away = np.sum(edges.outward * (edges.ends - edges.starts), axis=1)
    np.testing.assert_allclose(away, 0, atol=1e-12)


@pytest.mark.long
def test_a_mesh_agrees_with_an_independent_search():
    rng = np.random.default_rng(1)
    nodes = rng.uniform(size=(60, 2))
    of = Delaunay(nodes)
    found = mesh(nodes, of.simplices)
    points = rng.uniform(size=(3_000, 2))
    assert np.mean(np.asarray(found.contains(points)) == (of.find_simplex(points) >= 0)) > 0.999
    drawn = np.asarray(found.sample(jax.random.key(0), 30_000))
    which = of.find_simplex(drawn)
    counts = np.bincount(which[which >= 0], minlength=len(of.simplices))
    expected = found.areas / found.areas.sum() * len(drawn)
    used = expected > 20
    chi = np.sum((counts[used] - expected[used]) ** 2 / expected[used])
    assert stats.chi2.sf(chi, used.sum() - 1) > 1e-4


@pytest.mark.parametrize("ending", ["msh", "vtk"])
def test_meshes_are_read_from_files(ending, tmp_path):
    nodes, cells = square_mesh()
    left = np.flatnonzero(nodes[:, 0] == 0)
    lines = np.stack([left[:-1], left[1:]], axis=1)
    path = tmp_path / f"square.{ending}"
    flat = np.concatenate([nodes, np.zeros((len(nodes), 1))], axis=1)
    written = meshio.Mesh(
        flat,
        [("line", lines), ("triangle", cells)],
        cell_data={"gmsh:physical": [np.full(len(lines), 7), np.full(len(cells), 1)],
                   "gmsh:geometrical": [np.full(len(lines), 7), np.full(len(cells), 1)]},
        field_data={"inlet": np.array([7, 1]), "inside": np.array([1, 2])},
    )  # fmt: skip
    if ending == "msh":
        meshio.gmsh.write(path, written, "2.2", binary=False)
    else:
        meshio.Mesh(flat, [("triangle", cells)]).write(path)
    found = read_mesh(path)
    assert found.areas.sum() == pytest.approx(1, rel=1e-12)
    assert set(found.faces) == {"boundary", *(["inlet"] if ending == "msh" else [])}
    if ending == "msh":
        points = np.asarray(found.face("inlet").sample(jax.random.key(0), 100))
        np.testing.assert_allclose(points[:, 0], 0, atol=1e-7)
        np.testing.assert_array_equal(found.face("inlet").normal(jnp.array([0.0, 0.5])), [-1, 0])


def test_files_that_are_no_meshes_are_one_line(tmp_path):
    (tmp_path / "bad.vtk").write_text("nothing\n")
    with pytest.raises(ValueError, match=r"bad.vtk can't be read as a mesh"):
        read_mesh(tmp_path / "bad.vtk")
    with pytest.raises(ValueError, match=r"none.vtk can't be read as a mesh"):
        read_mesh(tmp_path / "none.vtk")
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    meshio.Mesh(square, [("quad", [[0, 1, 2, 3]])]).write(tmp_path / "quad.vtk")
    with pytest.raises(ValueError, match="has cells of quad; only triangles"):
        read_mesh(tmp_path / "quad.vtk")
    bent = square + np.array([[0, 0, 1]] + [[0, 0, 0]] * 3)
    meshio.Mesh(bent, [("triangle", [[0, 1, 2]])]).write(tmp_path / "bent.vtk")
    with pytest.raises(ValueError, match="no mesh in a plane"):
        read_mesh(tmp_path / "bent.vtk")


WRONG = {
    "the radius of a disk must be positive, got -1": lambda: disk(-1, x=0, y=0),
    "a disk needs 2 coordinates of its center, got x": lambda: disk(1, x=0),
    "a ball needs 3 coordinates of its center, got x, y": lambda: ball(1, x=0, y=0),
    "a polygon needs at least three corners": lambda: polygon([(0, 0), (1, 1)]),
    "corner 1 of the polygon comes twice": lambda: polygon([(0, 0), (1, 1), (1, 1), (0, 1)]),
    "edges 0 and 2 of the polygon cross": lambda: polygon([(0, 0), (1, 1), (1, 0), (0, 1)]),
    "a polygon of 6 edges got 2 names": lambda: polygon(L, names=["a", "b"]),
    "shapes have two or three coordinates": lambda: disk(1, x=0, y=0) - box(x=(0, 1)),
    "do not combine; give them the same": lambda: disk(1, x=0, y=0) | disk(1, y=0, z=0),
    "the shapes do not meet": lambda: disk(1, x=0, y=0) & disk(1, x=9, y=0),
    "is it empty": lambda: disk(1, x=0, y=0) - disk(2, x=0, y=0),
    "unknown face 'circel'; did you mean 'circle'": lambda: disk(1, x=0, y=0).face("circel"),
    "the face 'x=0' is no part of the boundary": lambda: (
        rectangle(x=(0, 1), y=(0, 1)) | rectangle(x=(-1, 2), y=(-1, 2))
    ).face("x=0").sample(jax.random.key(0), 3),
    "extruded needs one coordinate beside x, y, got none": lambda: extruded(disk(1, x=0, y=0)),
    "got x": lambda: extruded(disk(1, x=0, y=0), x=(0, 1)),
    "a mesh needs nodes": lambda: mesh(np.zeros((3, 3)), np.zeros((1, 3))),
    "name nodes that the mesh of 3": lambda: mesh(np.eye(3, 2), np.array([[0, 1, 3]])),
    "triangle 0 of the mesh has no area": lambda: mesh(np.zeros((3, 2)), np.array([[0, 1, 2]])),
    "in the face 'in' is not on the boundary": lambda: mesh(
        *square_mesh(), faces={"in": np.array([[7, 14]])}
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_mistakes_are_one_line(message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        WRONG[message]()
    assert "\n" not in str(caught.value)
