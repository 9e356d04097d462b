"""A shape in time, or drawn out along a further coordinate."""

import contextlib
import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from modsync_jax._names import unknown
from modsync_jax.geometry._shapes import Shape, ShapeFace, as_shape
from modsync_jax.sampling import Box, Face, Sampler, box, uniform


@dataclasses.dataclass(frozen=True, eq=False)
class Extruded:
    """The product of a shape and an interval; made by `extruded`.

    Attributes:
      shape: the shape.
      interval: the interval, a box of one coordinate.
    """

    shape: Shape
    interval: Box

    @property
    def axis(self) -> int:
        """The place of the interval's coordinate: first for t, else last."""
        return 0 if self.interval.coordinates == ("t",) else len(self.shape.coordinates)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The name of each entry of a point."""
        return self._joined(self.shape.coordinates, self.interval.coordinates)

    @property
    def faces(self) -> tuple[str, ...]:
        """The ends of the interval, and the faces of the shape."""
        return (*(side.name for side in self.interval.sides), *self.shape.faces)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the interior's points on each axis."""
        return self._joined(self.shape.mean, self.interval.mean)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the interior's points on each axis."""
        return self._joined(self.shape.std, self.interval.std)

    def contains(self, points: np.ndarray | Array) -> Array:
        """Returns whether points `[..., d]` lie inside, `[...]` bools."""
        x, along = self.split(jnp.asarray(points))
        low, high = self.interval.lower[0], self.interval.upper[0]
        return self.shape.contains(x) & (along >= low) & (along <= high)

    def sample(
        self, key: Array, count: int, sampler: Sampler = uniform, dtype: DTypeLike = jnp.float32
    ) -> Array:
        """Returns points `[count, d]` of the interior."""
        return self._filled(self.shape, key, count, sampler, dtype)

    def grid(self, counts: Sequence[int]) -> np.ndarray:
        """Returns a regular grid of the box around the domain, `[prod(counts), d]`."""
        around = self.shape.bounds
        lower = self._joined(around.lower, self.interval.lower)
        upper = self._joined(around.upper, self.interval.upper)
        return Box(self.coordinates, lower, upper).grid(counts)

    def face(self, name: str) -> "Lid | Wall":
        """Returns the face of this name: an end of the interval, `"t=0"`, or one of the shape's.

        Raises:
          ValueError: no such face.
        """
        with contextlib.suppress(ValueError):
            return Lid(self, self.interval.side(name))
        with contextlib.suppress(ValueError):
            return Wall(self, self.shape.face(name))
        raise unknown("face", name, self.faces)

    def split(self, x: Array) -> tuple[Array, Array]:
        """Returns the shape's coordinates and the interval's of points `[..., d]`."""
        return jnp.delete(x, self.axis, axis=-1), x[..., self.axis]

    def joined(self, x: Array, along: Array) -> Array:
        """Returns points `[..., d]` from the shape's coordinates and the interval's `[...]`."""
        return jnp.insert(x, self.axis, along, axis=-1)

    def _filled(
        self,
        of: Shape | ShapeFace,
        key: Array,
        count: int,
        sampler: Sampler,
        dtype: DTypeLike,
    ) -> Array:
        """Points of the product of the interval with a shape or with a part of its boundary."""
        first, again = jax.random.split(key)
        unit = sampler(first, count, 1 + of.cube, dtype)
        low, high = self.interval.lower[0], self.interval.upper[0]
        return self.joined(of.fill(unit[:, 1:], again), low + (high - low) * unit[:, 0])

    def _joined(self, of_shape: tuple, of_interval: tuple) -> tuple:
        return (*of_interval, *of_shape) if self.axis == 0 else (*of_shape, *of_interval)


@dataclasses.dataclass(frozen=True, eq=False)
class Lid:
    """The shape at one end of the interval.

    Attributes:
      domain: the extruded shape.
      end: the end, a face of the interval.
    """

    domain: Extruded
    end: Face

    def sample(
        self, key: Array, count: int, sampler: Sampler = uniform, dtype: DTypeLike = jnp.float32
    ) -> Array:
        """Returns points `[count, d]` on the face."""
        points = self.domain.shape.sample(key, count, sampler, dtype)
        return self.domain.joined(points, jnp.full(count, self.end.bound, dtype))

    def normal(self, x: Array) -> Array:
        """Returns the outward unit normal `[d]` at a point `x` of shape `[d]`."""
        return jnp.zeros_like(x).at[self.domain.axis].set(self.end.side)


@dataclasses.dataclass(frozen=True, eq=False)
class Wall:
    """A face of the shape, along the interval.

    Attributes:
      domain: the extruded shape.
      face: the face of the shape.
    """

    domain: Extruded
    face: ShapeFace

    def sample(
        self, key: Array, count: int, sampler: Sampler = uniform, dtype: DTypeLike = jnp.float32
    ) -> Array:
        """Returns points `[count, d]` on the face."""
        return self.domain._filled(self.face, key, count, sampler, dtype)

    def normal(self, x: Array) -> Array:
        """Returns the outward unit normal `[d]` at a point `x` of shape `[d]`."""
        of_shape, _ = self.domain.split(x)
        return self.domain.joined(self.face.normal(of_shape), jnp.zeros((), x.dtype))


def extruded(shape: Shape | Box, **interval: tuple[float, float]) -> Extruded:
    """A shape in time, `extruded(disk(1, x=0, y=0), t=(0, 2))`, or drawn out along a coordinate.

    The coordinate t comes first in a point, any other last. Its ends are the faces `"t=0"` and
    `"t=2"`; the other faces are those of the shape.

    Args:
      shape: the shape.
      **interval: the bounds of one further coordinate.

    Raises:
      ValueError: not one further coordinate, or bounds that are not finite and increasing.
    """
    shape = as_shape(shape)
    if len(interval) != 1 or next(iter(interval)) in shape.coordinates:
        given = ", ".join(interval) or "none"
        raise ValueError(
            f"extruded needs one coordinate beside {', '.join(shape.coordinates)}, got {given}"
        )
    return Extruded(shape, box(**interval))
