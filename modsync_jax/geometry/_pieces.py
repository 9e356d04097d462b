"""Parts of boundaries: circles and spheres, the sides of boxes, and straight edges.

All functions take points `[..., d]`. A piece has an implicit function, which is zero on the surface
that the piece is part of, and grows by 1 per length off it (to first order).
"""

import dataclasses
import math
from functools import cached_property
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax.sampling import Face

_TINY = 1e-12  # under roots, so that their derivatives stay finite


class Piece(Protocol):
    """A part of a boundary with a name.

    Attributes:
      name: of the face to which it belongs.
      measure: its length or area.
    """

    @property
    def name(self) -> str:
        """Of the face to which it belongs."""
        ...

    @property
    def measure(self) -> float:
        """Its length or area."""
        ...

    def place(self, unit: Array) -> Array:
        """Maps the unit cube `[N, d - 1]` to the piece `[N, d]`, uniform in length or area."""
        ...

    def normal(self, x: Array) -> Array:
        """Returns the unit normals `[..., d]` at points of the piece, outward of its primitive."""
        ...

    def distance(self, x: Array) -> Array:
        """Returns the distances `[...]` of points, not negative."""
        ...

    def implicit(self, x: Array) -> Array:
        """Returns a smooth function `[...]` that is zero on the piece, with slope 1 or -1 there."""
        ...


def trimmed(surface: Array, region: Array) -> Array:
    """Restricts the zeros of a function to a region, as a function that is not negative.

    Args:
      surface: f, zero on a surface and normalised there.
      region: t, positive where the zeros stay, and normalised.

    References:
      Sukumar & Srivastava, "Exact imposition of boundary conditions with distance functions in
      physics-informed deep neural networks", Comput. Methods Appl. Mech. Eng. 389, 2022, Eq. 5.
    """
    outside = jnp.sqrt(region**2 + surface**4 + _TINY**2) - region
    return jnp.sqrt(surface**2 + (outside / 2) ** 2 + _TINY**2)


def both(a: Array, b: Array) -> Array:
    """R-conjunction: positive where both are, smooth away from their common zeros."""
    return a + b - jnp.sqrt(a**2 + b**2 + _TINY**2)


def joined(distances: list[Array]) -> Array:
    """R-equivalence: zero where one of them is, and normalised where they are."""
    product, total = distances[0], distances[0]
    for other in distances[1:]:
        product = total * other / (total + other + _TINY)
        total = product
    return product


@dataclasses.dataclass(frozen=True, eq=False)
class Sphere:
    """A circle in two dimensions, a sphere in three.

    Attributes:
      center: `[d]`.
      radius: a length.
      name: of the face.
    """

    center: tuple[float, ...]
    radius: float
    name: str

    @property
    def measure(self) -> float:
        """Circumference or area."""
        if len(self.center) == 2:
            return 2 * math.pi * self.radius
        return 4 * math.pi * self.radius**2

    def place(self, unit: Array) -> Array:
        """Angles in two dimensions; height and angle in three (Archimedes)."""
        angle = 2 * jnp.pi * unit[..., -1]
        flat = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        if len(self.center) == 3:
            height = 1 - 2 * unit[..., :1]
            flat = jnp.concatenate([jnp.sqrt(1 - height**2) * flat, height], axis=-1)
        return jnp.asarray(self.center, unit.dtype) + self.radius * flat

    def normal(self, x: Array) -> Array:
        """Away from the center."""
        away = x - jnp.asarray(self.center, x.dtype)
        return away / jnp.linalg.norm(away, axis=-1, keepdims=True)

    def distance(self, x: Array) -> Array:
        """Exact."""
        return jnp.abs(
            jnp.linalg.norm(x - jnp.asarray(self.center, x.dtype), axis=-1) - self.radius
        )

    def implicit(self, x: Array) -> Array:
        """A polynomial."""
        square = jnp.sum(jnp.square(x - jnp.asarray(self.center, x.dtype)), axis=-1)
        return (self.radius**2 - square) / (2 * self.radius)


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """A side of a box.

    Attributes:
      face: the side.
      name: of the face.
    """

    face: Face
    name: str

    @property
    def measure(self) -> float:
        """The product of the other axes' lengths."""
        return math.prod(np.delete(_lengths(self.face), self.face.axis))

    def place(self, unit: Array) -> Array:
        """The fixed coordinate is exact."""
        whole = jnp.insert(unit, self.face.axis, 0, axis=-1)
        lower = jnp.asarray(self.face.box.lower, unit.dtype)
        return self.face.project(lower + jnp.asarray(_lengths(self.face), unit.dtype) * whole)

    def normal(self, x: Array) -> Array:
        """Along the axis."""
        return jnp.zeros_like(x).at[..., self.face.axis].set(self.face.side)

    def distance(self, x: Array) -> Array:
        """Exact, to the side with its ends."""
        box = self.face.box
        inside = jnp.clip(x, jnp.asarray(box.lower, x.dtype), jnp.asarray(box.upper, x.dtype))
        return jnp.linalg.norm(x - self.face.project(inside), axis=-1)

    def implicit(self, x: Array) -> Array:
        """The distance from the side's plane, trimmed to the side."""
        axis, box = self.face.axis, self.face.box
        away = x[..., axis] - self.face.bound
        rest = [
            slab(box.lower[k], box.upper[k], x[..., k]) for k in range(x.shape[-1]) if k != axis
        ]
        region = rest[0]
        for other in rest[1:]:
            region = both(region, other)
        return trimmed(away, region)


@dataclasses.dataclass(frozen=True, eq=False)
class Edges:
    """Straight edges in the plane.

    Attributes:
      starts: `[E, 2]`.
      ends: `[E, 2]`.
      outward: unit normals `[E, 2]`.
      name: of the face.
    """

    starts: np.ndarray
    ends: np.ndarray
    outward: np.ndarray
    name: str

    @cached_property
    def lengths(self) -> np.ndarray:
        """`[E]`."""
        return np.linalg.norm(self.ends - self.starts, axis=1)

    @property
    def measure(self) -> float:
        """The sum of the lengths."""
        return float(self.lengths.sum())

    def place(self, unit: Array) -> Array:
        """Along the edges, one after the other."""
        stops = np.cumsum(self.lengths)
        along = unit[..., 0] * stops[-1]
        edge = jnp.minimum(
            jnp.searchsorted(jnp.asarray(stops), along, side="right"), len(stops) - 1
        )
        before = jnp.asarray(stops - self.lengths, unit.dtype)[edge]
        share = (along - before) / jnp.asarray(self.lengths, unit.dtype)[edge]
        starts, ends = (jnp.asarray(of, unit.dtype)[edge] for of in (self.starts, self.ends))
        return starts + jnp.clip(share, 0, 1)[..., None] * (ends - starts)

    def normal(self, x: Array) -> Array:
        """Of the nearest edge."""
        return jnp.asarray(self.outward, x.dtype)[jnp.argmin(self._distances(x), axis=-1)]

    def distance(self, x: Array) -> Array:
        """Exact, to the nearest edge."""
        return jnp.min(self._distances(x), axis=-1)

    def implicit(self, x: Array) -> Array:
        """The R-equivalence of all edges, each trimmed to its ends."""
        away = x[..., None, :] - jnp.asarray((self.starts + self.ends) / 2, x.dtype)
        across = jnp.sum(away * jnp.asarray(self.outward, x.dtype), axis=-1)
        long = jnp.asarray(self.lengths, x.dtype)
        region = long / 4 - jnp.sum(away**2, axis=-1) / long
        inverse = jnp.sum(1 / (trimmed(across, region) + _TINY), axis=-1)
        return 1 / inverse

    def _distances(self, x: Array) -> Array:
        """To every edge, `[..., E]`."""
        starts = jnp.asarray(self.starts, x.dtype)
        along = jnp.asarray(self.ends - self.starts, x.dtype)
        away = x[..., None, :] - starts
        share = jnp.sum(away * along, axis=-1) / jnp.asarray(self.lengths**2, x.dtype)
        return jnp.linalg.norm(away - jnp.clip(share, 0, 1)[..., None] * along, axis=-1)


def slab(low: float, high: float, x: Array) -> Array:
    """Positive between two bounds, zero at them, with slope 1 and -1 there."""
    width, middle = high - low, (high + low) / 2
    return width / 4 - (x - middle) ** 2 / width


def _lengths(face: Face) -> Any:
    return np.subtract(face.box.upper, face.box.lower)
