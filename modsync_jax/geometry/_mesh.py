"""Triangle meshes as shapes."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.geometry._shapes import Polygonal, around, grouped


@dataclasses.dataclass(frozen=True, eq=False)
class Mesh(Polygonal):
    """A triangulated region; made by `mesh` and `read_mesh`.

    Points are drawn directly: a triangle in proportion to its area, and a uniform point in it.

    Attributes:
      triangles: the corners, `[T, 3, 2]`.
    """

    triangles: np.ndarray

    @cached_property
    def areas(self) -> np.ndarray:
        """The areas of the triangles, `[T]`."""
        return _doubled(self.triangles) / 2

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Mean of the interior's points on each axis, exact."""
        centers = self.triangles.mean(1)
        return tuple(map(float, np.average(centers, axis=0, weights=self.areas)))

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the interior's points on each axis, exact."""
        corners = self.triangles - np.array(self.mean)
        squares = (np.square(corners).sum(1) + np.square(corners.sum(1))) / 12
        return tuple(map(float, np.sqrt(np.average(squares, axis=0, weights=self.areas))))

    @property
    def cube(self) -> int:
        """One number for the triangle, two for the place in it."""
        return 3

    def fill(self, unit: Array, key: Array) -> Array:
        """Maps points of the unit cube, `[N, 3]`, into the mesh, `[N, 2]`."""
        stops = np.cumsum(self.areas)
        which = jnp.searchsorted(jnp.asarray(stops / stops[-1]), unit[:, 0], side="right")
        corners = jnp.asarray(self.triangles, unit.dtype)[jnp.minimum(which, len(stops) - 1)]
        root = jnp.sqrt(unit[:, 1:2])
        shares = jnp.concatenate([1 - root, root * (1 - unit[:, 2:]), root * unit[:, 2:]], axis=1)
        return jnp.sum(shares[:, :, None] * corners, axis=1)


def mesh(
    points: np.ndarray,
    triangles: np.ndarray,
    *,
    faces: Mapping[str, np.ndarray] | None = None,
    coordinates: tuple[str, str] = ("x", "y"),
) -> Mesh:
    """A triangle mesh as a shape, with holes where it has them.

    Args:
      points: the nodes, `[V, 2]`.
      triangles: the nodes of each triangle, `[T, 3]` integers.
      faces: the nodes of edges, `[E, 2]` integers, by the names of faces; boundary edges that are
        in none of them are the face `"boundary"`.
      coordinates: the letters.

    Raises:
      ValueError: shapes that do not fit, nodes that do not exist, a triangle without area, or an
        edge of a face that is not on the boundary.
    """
    points, triangles = np.asarray(points, np.float64), np.asarray(triangles, np.int64)
    if points.ndim != 2 or points.shape[1] != 2 or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(
            f"a mesh needs nodes [V, 2] and triangles [T, 3], got shapes {points.shape} and "
            f"{triangles.shape}"
        )
    if not len(triangles) or triangles.min() < 0 or triangles.max() >= len(points):
        raise ValueError(f"the triangles name nodes that the mesh of {len(points)} does not have")
    corners = points[triangles]
    if not np.all(areas := _doubled(corners)):
        raise ValueError(f"triangle {int(np.argmin(areas))} of the mesh has no area")
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    opposite = np.concatenate([triangles[:, 2], triangles[:, 0], triangles[:, 1]])
    _, first, counts = np.unique(
        np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True
    )
    once = first[counts == 1]
    edges, opposite = edges[once], opposite[once]
    names = _names_of(np.sort(edges, axis=1), faces or {})
    starts, ends = points[edges[:, 0]], points[edges[:, 1]]
    along = ends - starts
    normal = np.stack([along[:, 1], -along[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    inward = np.sum(normal * (points[opposite] - starts), axis=1, keepdims=True) > 0
    outward = np.where(inward, -normal, normal)
    bounds = around(coordinates, corners.reshape(-1, 2))
    return Mesh(bounds, grouped(starts, ends, outward, names), corners)


def read_mesh(path: str | os.PathLike, *, coordinates: tuple[str, str] = ("x", "y")) -> Mesh:
    """Reads a triangle mesh in any format of the package `meshio`: Gmsh, VTK, XDMF, ...

    Named groups of lines, such as physical groups of Gmsh, are the faces. A third coordinate of the
    nodes is left out if it is the same for all.

    Args:
      path: the file.
      coordinates: the letters.

    Raises:
      ImportError: without the package `meshio`.
      ValueError: a file that can't be read, without triangles or with other cells, or not in a
        plane; and as `mesh`.
    """
    try:
        import meshio
    except ImportError:
        raise ImportError("reading meshes needs the package meshio: pip install meshio") from None
    try:
        found = meshio.read(path)
    except SystemExit:
        raise ValueError(f"{path} can't be read as a mesh") from None
    except (OSError, meshio.ReadError) as error:
        raise ValueError(f"{path} can't be read as a mesh: {error}") from None
    kinds = {block.type for block in found.cells} - {"vertex", "line"}
    if kinds != {"triangle"}:
        raise ValueError(
            f"{path} has cells of {', '.join(sorted(kinds)) or 'no kind'}; only "
            "triangles of three nodes can be used"
        )
    points = found.points
    if points.shape[1] == 3:
        if np.ptp(points[:, 2]):
            raise ValueError(f"{path} is no mesh in a plane: its nodes have different z")
        points = points[:, :2]
    triangles = np.concatenate([block.data for block in found.cells if block.type == "triangle"])
    return mesh(points, triangles, faces=_groups(found), coordinates=coordinates)


def _doubled(triangles: np.ndarray) -> np.ndarray:
    """Twice the areas, `[T]`, of triangles `[T, 3, 2]`."""
    u, v = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    return np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])


def _groups(found: Any) -> dict[str, np.ndarray]:
    """The nodes of the edges in each named group of lines of a `meshio.Mesh`."""
    groups: dict[str, list[np.ndarray]] = {}
    blocks = found.cells
    for name, of_blocks in found.cell_sets.items():
        if name.startswith("gmsh:"):
            continue
        for block, rows in zip(blocks, of_blocks, strict=True):
            if block.type == "line" and rows is not None and len(rows):
                groups.setdefault(name, []).append(block.data[rows])
    tags = found.cell_data.get("gmsh:physical", [])
    called = {(int(tag), int(dim)): name for name, (tag, dim) in found.field_data.items()}
    for block, of_block in zip(blocks, tags, strict=False):
        if block.type != "line":
            continue
        for tag in np.unique(of_block):
            name = called.get((int(tag), 1), f"group {tag}")
            if name not in found.cell_sets:
                groups.setdefault(name, []).append(block.data[of_block == tag])
    return {name: np.concatenate(parts) for name, parts in groups.items()}


def _names_of(edges: np.ndarray, faces: Mapping[str, np.ndarray]) -> Sequence[str]:
    """The name of each boundary edge, whose nodes are sorted."""
    row_of = {tuple(edge): k for k, edge in enumerate(edges.tolist())}
    names = ["boundary"] * len(edges)
    for name, of in faces.items():
        for edge in np.sort(np.asarray(of), axis=1).tolist():
            if tuple(edge) not in row_of:
                raise ValueError(
                    f"the edge of the nodes {edge[0]} and {edge[1]} in the face {name!r} is not on "
                    "the boundary of the mesh"
                )
            names[row_of[tuple(edge)]] = name
    return names
