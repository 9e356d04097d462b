"""Shapes: disks, balls, boxes and polygons, and their unions, intersections and differences.

A shape is a domain: it draws points of its interior and of its faces on the device, from a key. The
points are uniform in area. They are drawn in a bounding box, and those outside are drawn again.
"""

import abc
import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from modsync_jax._names import unknown
from modsync_jax.geometry import _pieces
from modsync_jax.geometry._pieces import Edges, Piece, Side, Sphere
from modsync_jax.sampling import Box, Sampler, box, low_discrepancy, uniform

_NEAR = 1e-4  # of the size: how far from the boundary both of its sides are looked at
_SAME = 1e-6  # of the size: pieces that are nearer than this are one
_LOOKS, _FEWEST = 4096, 4  # points by which a shape is looked at, and how many must be inside
_ROUNDS = 100_000  # of drawing again; one point in a thousand is good, so never so many

Region = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Shape(abc.ABC):
    """A region of the plane or of space.

    `a | b`, `a & b` and `a - b` are the union, the intersection and the difference. Details that
    are smaller than a ten-thousandth of the whole may be lost at the boundary.

    Attributes:
      bounds: a box around the shape.
      pieces: what the boundary is made of; of some pieces only a part may belong to it.
    """

    bounds: Box
    pieces: tuple[Piece, ...]

    @abc.abstractmethod
    def level(self, x: Array) -> Array:
        """Returns a function `[...]` of points `[..., d]`, positive inside and negative outside.

        For single shapes it is the signed distance to the boundary.
        """

    @abc.abstractmethod
    def smooth(self, x: Array) -> Array:
        """Returns a function `[...]` of points that is zero on the boundary and smooth inside.

        It is positive inside and negative outside, and its slope along the inward normal is 1 at
        the boundary (R-functions; see `distance`).
        """

    def surfaces(self) -> list[tuple[Piece, list[Region]]]:
        """The pieces, each with functions that are positive where it belongs to the boundary."""
        return [(piece, []) for piece in self.pieces]

    def __or__(self, other: "Shape | Box") -> "Shape":
        """The union."""
        return _combined("|", self, as_shape(other))

    def __and__(self, other: "Shape | Box") -> "Shape":
        """The intersection."""
        return _combined("&", self, as_shape(other))

    def __sub__(self, other: "Shape | Box") -> "Shape":
        """The difference."""
        return _combined("-", self, as_shape(other))

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The name of each entry of a point."""
        return self.bounds.coordinates

    @property
    def faces(self) -> tuple[str, ...]:
        """The names of the boundary's parts."""
        return tuple(dict.fromkeys(piece.name for piece in self.pieces))

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Mean of the interior's points on each axis."""
        return tuple(map(float, self._looked_at.mean(0)))

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the interior's points on each axis."""
        return tuple(map(float, self._looked_at.std(0)))

    @property
    def size(self) -> float:
        """The longest side of the box around the shape."""
        return max(np.subtract(self.bounds.upper, self.bounds.lower))

    def contains(self, points: np.ndarray | Array) -> Array:
        """Returns whether points `[..., d]` lie inside, `[...]` bools."""
        return self.level(jnp.asarray(points)) > 0

    def distance(self, x: Array, *faces: str) -> Array:
        """Returns a smooth distance `[...]` from faces, for conditions that hold exactly.

        It is zero on the faces and positive elsewhere inside, and its slope along the inward normal
        is 1 on the faces. Away from them it is no distance. So `g(x) + distance(x) * u(x)` has the
        values g on the faces for every field u. Where the boundaries of two combined shapes run
        along each other, the slope is between 1 and 4.

        Args:
          x: points `[..., d]` of the shape.
          *faces: the names of the faces; all of them if none is given.

        Raises:
          ValueError: no such face.

        References:
          Sukumar & Srivastava 2022, as in `_pieces.trimmed`; Rvachev & Sheiko 1995.
        """
        x = jnp.asarray(x)
        if not faces:
            return self.smooth(x)
        for name in faces:
            if name not in self.faces:
                raise unknown("face", name, self.faces)
        found = []
        for piece, regions in self.surfaces():
            if piece.name in faces:
                values = piece.implicit(x)
                for region in regions:
                    values = _pieces.trimmed(values, region(x))
                found.append(jnp.abs(values))
        return _pieces.joined(found)

    def sample(
        self, key: Array, count: int, sampler: Sampler = uniform, dtype: DTypeLike = jnp.float32
    ) -> Array:
        """Returns points `[count, d]` of the interior, uniform in area.

        The sampler fills the box around the shape; points outside the shape are drawn again,
        independently and uniformly.
        """
        first, again = jax.random.split(key)
        return self.fill(sampler(first, count, self.cube, dtype), again)

    @property
    def cube(self) -> int:
        """The dimension of the cube that `fill` takes."""
        return len(self.coordinates)

    def fill(self, unit: Array, key: Array) -> Array:
        """Maps points of the unit cube, `[N, cube]`, into the shape, `[N, d]`."""
        lower = jnp.asarray(self.bounds.lower, unit.dtype)
        lengths = jnp.asarray(np.subtract(self.bounds.upper, self.bounds.lower), unit.dtype)
        return until(lambda unit: lower + lengths * unit, self.contains, unit, key)

    def grid(self, counts: Sequence[int]) -> np.ndarray:
        """Returns a regular grid of the box around the shape, `[prod(counts), d]`, as `Box.grid`.

        Some of its points may lie outside the shape.
        """
        return self.bounds.grid(counts)

    def face(self, name: str) -> "ShapeFace":
        """Returns the part of the boundary with this name; that of a box's side may be rounded.

        Raises:
          ValueError: no such face.
        """
        if name in self.faces:
            return self._faces[name]
        for side in [piece for piece in self.pieces if isinstance(piece, Side)]:
            with contextlib.suppress(ValueError):
                if side.face.box.face(name) == side.face:
                    return self._faces[side.name]
        raise unknown("face", name, self.faces)

    @cached_property
    def _faces(self) -> dict[str, "ShapeFace"]:
        return {name: ShapeFace(self, name) for name in self.faces}

    @cached_property
    def _looked_at(self) -> np.ndarray:
        """Points of the inside, evenly spread, float64."""
        lower, upper = np.array(self.bounds.lower), np.array(self.bounds.upper)
        with jax.ensure_compile_time_eval():
            points = lower + (upper - lower) * _even(len(lower))
            found = points[np.asarray(jax.jit(self.contains)(points))]
        if len(found) < _FEWEST:
            raise ValueError(
                f"the shape fills less than a thousandth of the box around it, "
                f"{self.bounds.lower} to {self.bounds.upper}; is it empty?"
            )
        return found

    def ours(self, index: int, x: Array) -> tuple[Array, Array]:
        """Whether points `[..., d]` of a piece belong to the boundary, and their outward normals.

        Here all of them do.
        """
        return jnp.ones(x.shape[:-1], bool), self.pieces[index].normal(x)


@dataclasses.dataclass(frozen=True, eq=False)
class ShapeFace:
    """The part of a shape's boundary that has a name.

    Attributes:
      shape: the shape.
      name: the name.
    """

    shape: Shape
    name: str

    @cached_property
    def _own(self) -> list[int]:
        return [k for k, piece in enumerate(self.shape.pieces) if piece.name == self.name]

    @property
    def cube(self) -> int:
        """The dimension of the cube that `fill` takes."""
        return len(self.shape.coordinates) - 1

    def sample(
        self, key: Array, count: int, sampler: Sampler = uniform, dtype: DTypeLike = jnp.float32
    ) -> Array:
        """Returns points `[count, d]` on the face, uniform in length or area.

        Raises:
          ValueError: when almost nothing with this name belongs to the boundary.
        """
        first, again = jax.random.split(key)
        return self.fill(sampler(first, count, self.cube, dtype), again)

    def fill(self, unit: Array, key: Array) -> Array:
        """Maps points of the unit cube, `[N, cube]`, to the face, `[N, d]`."""
        if not isinstance(self.shape, Combined):
            return self._placed(unit)[..., :-1]
        if not self._exists:
            raise ValueError(
                f"the face {self.name!r} is no part of the boundary, or less than a thousandth of "
                "it is: the shape lies on both of its sides, or on none"
            )
        return until(self._placed, self._ours, unit, key)[..., :-1]

    def normal(self, x: Array) -> Array:
        """Returns the outward unit normal `[d]` at a point `x` of the face, `[d]`."""
        away = jnp.stack([self.shape.pieces[k].distance(x) for k in self._own])
        normals = jnp.stack([self.shape.ours(k, x)[1] for k in self._own])
        return normals[jnp.argmin(away, axis=0)]

    @cached_property
    def _exists(self) -> bool:
        def count(unit: Array) -> Array:
            return jnp.sum(self._ours(self._placed(unit)))

        with jax.ensure_compile_time_eval():
            return int(jax.jit(count)(jnp.asarray(_even(self.cube), jnp.float32))) >= _FEWEST

    def _placed(self, unit: Array) -> Array:
        """Points on the pieces, and the number of the piece as a last entry, `[N, d + 1]`."""
        pieces = [self.shape.pieces[k] for k in self._own]
        stops = np.cumsum([piece.measure for piece in pieces])
        stops /= stops[-1]
        which = sum((unit[..., 0] >= stop).astype(jnp.int32) for stop in stops[:-1])
        which = jnp.broadcast_to(jnp.asarray(which), unit.shape[:-1])
        starts = jnp.asarray(np.concatenate([[0.0], stops[:-1]]), unit.dtype)
        shares = jnp.asarray(np.diff(stops, prepend=0.0), unit.dtype)
        own = jnp.clip((unit[..., 0] - starts[which]) / shares[which], 0, 1)
        unit = unit.at[..., 0].set(own)
        points = jnp.stack([piece.place(unit) for piece in pieces])
        chosen = jnp.take_along_axis(points, which[None, ..., None], axis=0)[0]
        return jnp.concatenate([chosen, which[..., None].astype(unit.dtype)], axis=-1)

    def _ours(self, tagged: Array) -> Array:
        found = jnp.stack([self.shape.ours(k, tagged[..., :-1])[0] for k in self._own])
        which = tagged[..., -1].astype(jnp.int32)
        return jnp.take_along_axis(found, which[None], axis=0)[0]


def until(
    place: Callable[[Array], Array], good: Callable[[Array], Array], unit: Array, key: Array
) -> Array:
    """Places points of the unit cube, and draws those that are not good again.

    Args:
      place: from the cube `[N, c]` to points `[N, e]`.
      good: from points to `[N]` bools.
      unit: the first points of the cube; others are uniform.
      key: for the others.
    """

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        _, done, rounds = state
        return ~jnp.all(done) & (rounds < _ROUNDS)

    def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        points, done, rounds = state
        drawn = place(jax.random.uniform(jax.random.fold_in(key, rounds), unit.shape, unit.dtype))
        return jnp.where(done[:, None], points, drawn), done | good(drawn), rounds + 1

    points = place(unit)
    start = (points, good(points), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unfinished, again, start)[0]


class Ball(Shape):
    """A disk, or a ball in space; made by `disk` and `ball`."""

    @property
    def _sphere(self) -> Sphere:
        (piece,) = self.pieces
        assert isinstance(piece, Sphere)
        return piece

    def level(self, x: Array) -> Array:
        """The signed distance."""
        center = jnp.asarray(self._sphere.center, x.dtype)
        return self._sphere.radius - jnp.linalg.norm(x - center, axis=-1)

    def smooth(self, x: Array) -> Array:
        """A polynomial."""
        return self._sphere.implicit(x)


class Cuboid(Shape):
    """A box as a shape; made by `rectangle`."""

    def level(self, x: Array) -> Array:
        """The signed distance."""
        lower, upper = (jnp.asarray(b, x.dtype) for b in (self.bounds.lower, self.bounds.upper))
        beyond = jnp.abs(x - (lower + upper) / 2) - (upper - lower) / 2
        away = jnp.linalg.norm(jnp.maximum(beyond, 0.0), axis=-1)
        return -(away + jnp.minimum(jnp.max(beyond, axis=-1), 0.0))

    def smooth(self, x: Array) -> Array:
        """The R-conjunction of the axes' parabolas."""
        bounds = zip(self.bounds.lower, self.bounds.upper, strict=True)
        slabs = (_pieces.slab(*pair, x[..., k]) for k, pair in enumerate(bounds))
        return functools.reduce(_pieces.both, slabs)


class Polygonal(Shape):
    """What straight edges enclose; made by `polygon`."""

    @cached_property
    def edges(self) -> Edges:
        """All edges as one piece."""
        own = [piece for piece in self.pieces if isinstance(piece, Edges)]
        starts, ends, outward = (
            np.concatenate([getattr(piece, name) for piece in own])
            for name in ("starts", "ends", "outward")
        )
        return Edges(starts, ends, outward, "")

    def level(self, x: Array) -> Array:
        """The signed distance; inside is where a ray crosses an odd number of edges."""
        starts, ends = (jnp.asarray(of, x.dtype) for of in (self.edges.starts, self.edges.ends))
        px, py = x[..., None, 0], x[..., None, 1]
        spans = (starts[:, 1] > py) != (ends[:, 1] > py)
        rise = jnp.where(ends[:, 1] == starts[:, 1], 1.0, ends[:, 1] - starts[:, 1])
        cross = starts[:, 0] + (py - starts[:, 1]) * (ends[:, 0] - starts[:, 0]) / rise
        inside = jnp.sum(spans & (px < cross), axis=-1) % 2 == 1
        return jnp.where(inside, 1.0, -1.0) * self.edges.distance(x)

    def smooth(self, x: Array) -> Array:
        """The R-equivalence of the edges, with a sign."""
        return jnp.sign(self.level(x)) * self.edges.implicit(x)


@dataclasses.dataclass(frozen=True, eq=False)
class Combined(Shape):
    """The union `|`, intersection `&` or difference `-` of two shapes.

    Attributes:
      kind: the sign of the operation.
      one: a shape.
      other: a shape of the same coordinates.
    """

    kind: str
    one: Shape
    other: Shape

    def level(self, x: Array) -> Array:
        """The smallest or largest of both."""
        a, b = self.one.level(x), self.other.level(x)
        if self.kind == "|":
            return jnp.maximum(a, b)
        return jnp.minimum(a, b if self.kind == "&" else -b)

    def smooth(self, x: Array) -> Array:
        """An R-function of both."""
        a, b = self.one.smooth(x), self.other.smooth(x)
        if self.kind == "|":
            return -_pieces.both(-a, -b)
        return _pieces.both(a, b if self.kind == "&" else -b)

    def ours(self, index: int, x: Array) -> tuple[Array, Array]:
        """Whether points `[..., d]` of a piece belong to the boundary, and their outward normals.

        They do if the shape lies on one side of them and not on the other, and no earlier piece
        runs through them.
        """
        piece = self.pieces[index]
        normal = piece.normal(x)
        step = _NEAR * self.size * normal
        inner, outer = self.contains(jnp.stack([x - step, x + step]))
        first = jnp.ones_like(inner)
        for earlier in self.pieces[:index]:
            first &= earlier.distance(x) > _SAME * self.size
        return (inner != outer) & first, jnp.where(inner[..., None], normal, -normal)

    def surfaces(self) -> list[tuple[Piece, list[Region]]]:
        """Those of each shape where the other one does not cover them."""
        of_one, of_other = {"|": (-1, -1), "&": (1, 1), "-": (-1, 1)}[self.kind]

        def cut(shape: Shape, by: Shape, sign: int) -> list[tuple[Piece, list[Region]]]:
            return [
                (piece, [*regions, lambda x: sign * by.smooth(x)])
                for piece, regions in shape.surfaces()
            ]

        return [*cut(self.one, self.other, of_one), *cut(self.other, self.one, of_other)]


def _combined(kind: str, one: Shape, other: Shape) -> Shape:
    """Combines two shapes.

    Raises:
      ValueError: other coordinates, or nothing is left.
    """
    if one.coordinates != other.coordinates:
        raise ValueError(
            f"shapes of the coordinates {', '.join(one.coordinates)} and "
            f"{', '.join(other.coordinates)} do not combine; give them the same"
        )
    bounds = one.bounds
    if kind != "-":
        low, high = (np.minimum, np.maximum) if kind == "|" else (np.maximum, np.minimum)
        lower = low(one.bounds.lower, other.bounds.lower)
        upper = high(one.bounds.upper, other.bounds.upper)
        if np.any(lower >= upper):
            raise ValueError("the shapes do not meet, so nothing is left of their intersection")
        bounds = around(one.coordinates, np.stack([lower, upper]))
    found = Combined(bounds, (*one.pieces, *other.pieces), kind, one, other)
    found._looked_at  # noqa: B018, it raises where nothing is left
    return found


def disk(radius: float, *, name: str = "circle", **center: float) -> Shape:
    """A disk: `disk(0.2, x=0.5, y=0.5)`.

    Args:
      radius: its radius.
      name: the name of its boundary.
      **center: the center, by coordinate.

    Raises:
      ValueError: a radius that is not positive, or not two coordinates.
    """
    return _ball(radius, name, center, 2, "disk")


def ball(radius: float, *, name: str = "sphere", **center: float) -> Shape:
    """A ball in space: `ball(1, x=0, y=0, z=0)`; arguments and errors as of `disk`."""
    return _ball(radius, name, center, 3, "ball")


def _ball(radius: float, name: str, center: dict[str, float], d: int, kind: str) -> Shape:
    if not (0 < radius < math.inf):
        raise ValueError(f"the radius of a {kind} must be positive, got {radius}")
    if len(center) != d:
        given = ", ".join(center) or "none"
        raise ValueError(f"a {kind} needs {d} coordinates of its center, got {given}")
    middle = np.array(list(center.values()), np.float64)
    bounds = around(tuple(center), np.stack([middle - radius, middle + radius]))
    return Ball(bounds, (Sphere(tuple(map(float, middle)), float(radius), name),))


def rectangle(**bounds: tuple[float, float]) -> Shape:
    """A rectangle, or a cuboid in space: `rectangle(x=(0, 2), y=(0, 1))`.

    Its faces are named as those of a box, `"x=0"`. Errors as of `sampling.box`, and for less than
    two coordinates.
    """
    return as_shape(box(**bounds))


def polygon(
    corners: Sequence[tuple[float, float]],
    *,
    names: str | Sequence[str] = "polygon",
    coordinates: tuple[str, str] = ("x", "y"),
) -> Shape:
    """A polygon, which need not be convex.

    Args:
      corners: at least three, in order.
      names: the name of its boundary, or one for each edge, from a corner to the next; edges of the
        same name are one face.
      coordinates: the letters.

    Raises:
      ValueError: fewer than three corners, an edge without length, edges that cross, or a number of
        names that is not that of the edges.
    """
    starts = np.asarray(corners, np.float64)
    if starts.ndim != 2 or starts.shape[1] != 2 or len(starts) < 3:
        raise ValueError(f"a polygon needs at least three corners (x, y), got {list(corners)}")
    ends = np.roll(starts, -1, axis=0)
    lengths = np.linalg.norm(ends - starts, axis=1)
    if not lengths.all():
        raise ValueError(f"corner {int(np.argmin(lengths))} of the polygon comes twice in a row")
    if crossing := _crossing(starts, ends):
        raise ValueError("edges {} and {} of the polygon cross".format(*crossing[0]))
    of = [names] * len(starts) if isinstance(names, str) else list(names)
    if len(of) != len(starts):
        raise ValueError(f"a polygon of {len(starts)} edges got {len(of)} names; give one for each")
    (x0, y0), (x1, y1) = starts.T, ends.T
    turn = np.sign(np.sum(x0 * y1 - x1 * y0))
    outward = turn * np.stack([y1 - y0, x0 - x1], axis=1) / lengths[:, None]
    return Polygonal(around(coordinates, starts), grouped(starts, ends, outward, of))


def grouped(
    starts: np.ndarray, ends: np.ndarray, outward: np.ndarray, names: Sequence[str]
) -> tuple[Edges, ...]:
    """Edges by their names."""
    own = np.array(names)
    return tuple(
        Edges(starts[own == name], ends[own == name], outward[own == name], name)
        for name in dict.fromkeys(names)
    )


def as_shape(given: Shape | Box) -> Shape:
    """A box as a shape; shapes as they are.

    Raises:
      ValueError: a box of other than two or three coordinates.
    """
    if isinstance(given, Shape):
        return given
    if len(given.coordinates) not in (2, 3):
        raise ValueError(
            f"shapes have two or three coordinates, got a box of {', '.join(given.coordinates)}; "
            "extruded(shape, t=(0, 1)) adds time"
        )
    return Cuboid(given, tuple(Side(side, side.name) for side in given.sides))


def around(coordinates: Sequence[str], points: np.ndarray) -> Box:
    """The smallest box around points `[N, d]`."""
    lower, upper = (tuple(map(float, f(points, axis=0))) for f in (np.min, np.max))
    return Box(tuple(coordinates), lower, upper)


def _crossing(starts: np.ndarray, ends: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of edges that cross in their insides."""

    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        u, v = b - a, c - a
        return np.sign(u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0])

    a, b, c, d = starts[:, None], ends[:, None], starts[None], ends[None]
    cross = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    return [(int(j), int(k)) for j, k in np.argwhere(np.triu(cross))]


def _even(dims: int) -> np.ndarray:
    """Evenly spread points of the unit cube, float64."""
    with jax.ensure_compile_time_eval():
        return np.asarray(low_discrepancy(jax.random.key(0), _LOOKS, dims, jnp.float32), np.float64)
