"""Domains, and points in them: on the device, from a PRNG key, under `jit`, `vmap` and `scan`.

A sampler fills the unit cube; a domain maps the cube to its interior and to its faces. Counts and
dimensions are static Python integers.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from modsync_jax._names import is_coordinate, listed, lookup, unknown


class Sampler(Protocol):
    """Fills the unit cube: `(key, count, dims, dtype) -> points [count, dims]` in [0, 1)."""

    def __call__(self, key: Array, count: int, dims: int, dtype: DTypeLike) -> Array:
        """Returns the points."""
        ...


def uniform(key: Array, count: int, dims: int, dtype: DTypeLike = jnp.float32) -> Array:
    """Returns independent uniform points `[count, dims]` in the unit cube."""
    return jax.random.uniform(key, (count, dims), dtype)


def latin_hypercube(key: Array, count: int, dims: int, dtype: DTypeLike = jnp.float32) -> Array:
    """Returns points `[count, dims]`, one in every interval `[i, i + 1) / count` of each axis.

    Points are in their intervals up to rounding in `dtype` (McKay, Beckman & Conover 1979).
    """
    order_key, offset_key = jax.random.split(key)
    strata = _permutations(order_key, count, dims).astype(dtype)
    return (strata + uniform(offset_key, count, dims, dtype)) / count


def _permutations(key: Array, count: int, dims: int) -> Array:
    """Returns random permutations of 0, 1, ..., count - 1, `[count, dims]` uint32.

    This is the swap-or-not shuffle (Hoang, Morris & Rogaway, CRYPTO 2012). Every round pairs each
    number with its reflection about a random centre, and a random bit per pair decides whether the
    two swap. It needs no sort and takes a 25th of the time of `jax.random.permutation` at a million
    points.
    """
    # Two numbers move together in all rounds with probability 2^-rounds; there are count² pairs.
    rounds = 2 * count.bit_length() + 8
    keys = jax.random.bits(key, (rounds, 2, dims), jnp.uint32)

    def swap_or_not(x: Array, keys: Array) -> tuple[Array, None]:
        centre, salt = keys[0] % count, keys[1]
        image = jnp.where(x <= centre, centre - x, centre + count - x)
        swap = mixed(jnp.maximum(x, image) ^ salt) >> 31 == 1
        return jnp.where(swap, image, x), None

    identity = jnp.broadcast_to(jnp.arange(count, dtype=jnp.uint32)[:, None], (count, dims))
    return jax.lax.scan(swap_or_not, identity, keys)[0]


def mixed(x: Array) -> Array:
    """Returns unsigned 32-bit integers with their bits mixed: MurmurHash3's finaliser (Appleby)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def low_discrepancy(key: Array, count: int, dims: int, dtype: DTypeLike = jnp.float32) -> Array:
    """Returns `[count, dims]` points of Roberts' R_d sequence, randomly shifted.

    Point n is `shift + n α mod 1` with `α_i = φ^-i` and φ the positive root of `φ^(dims + 1) = φ +
    1` (M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018). It is computed
    in units of 2^-32 on wrapping unsigned integers, because a float32 product would lose all its
    digits within a million points.
    """
    steps = jnp.asarray(_recurrence_steps(dims), jnp.uint32)
    shift = jax.random.bits(key, (dims,), jnp.uint32)
    fixed = shift + jnp.arange(count, dtype=jnp.uint32)[:, None] * steps
    # The dtype holds so many bits exactly, and 1 is never reached.
    bits = min(32, jnp.finfo(dtype).nmant + 1)
    return (fixed >> (32 - bits)).astype(dtype) * 2.0**-bits


def _recurrence_steps(dims: int) -> np.ndarray:
    """Returns α of the R_d sequence in units of 2^-32, `[dims]`."""
    root = 2.0
    for _ in range(64):  # each step at least halves the error: converged to the last bit
        root = (1 + root) ** (1 / (dims + 1))
    return np.array([round(root**-axis * 2**32) for axis in range(1, dims + 1)], np.uint32)


SAMPLERS: Mapping[str, Sampler] = {
    "uniform": uniform,
    "latin-hypercube": latin_hypercube,
    "low-discrepancy": low_discrepancy,
}


def get(name: str) -> Sampler:
    """Returns the sampler of this name, one of `SAMPLERS`.

    Raises:
      ValueError: no such sampler.
    """
    return lookup("sampler", name, SAMPLERS)


class Boundary(Protocol):
    """One face of a domain."""

    def sample(self, key: Array, count: int, sampler: Sampler, dtype: DTypeLike) -> Array:
        """Returns points `[count, d]` on the face."""
        ...

    def normal(self, x: Array) -> Array:
        """Returns the outward unit normal `[d]` at a point `x` of the face, `[d]`."""
        ...


class Domain(Protocol):
    """An object that can sample its interior and its faces from a key."""

    @property
    def coordinates(self) -> tuple[str, ...]:
        """A name for each entry of a point: a letter, or a letter and a number."""
        ...

    @property
    def faces(self) -> tuple[str, ...]:
        """The names that `face` knows."""
        ...

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the interior's points on each axis, for input standardisation."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the interior's points on each axis."""
        ...

    def sample(self, key: Array, count: int, sampler: Sampler, dtype: DTypeLike) -> Array:
        """Returns points `[count, d]` of the interior."""
        ...

    def grid(self, counts: Sequence[int]) -> np.ndarray:
        """Returns a regular grid `[prod(counts), d]`, for pictures and for errors.

        Points of the grid may lie outside the domain.
        """
        ...

    def contains(self, points: np.ndarray) -> np.ndarray | Array:
        """Returns whether points `[N, d]` lie in the domain, `[N]` bools."""
        ...

    def face(self, name: str) -> Boundary:
        """Returns the face of this name, or raises a `ValueError` that lists the existing ones."""
        ...


@dataclasses.dataclass(frozen=True)
class Box:
    """An axis-aligned box; `box(t=(0, 1), x=(-1, 1))` is the readable way to make one.

    Attributes:
      coordinates: a name for each axis: a letter, or a letter and a number.
      lower: lower bound of each axis.
      upper: upper bound of each axis.

    Raises:
      ValueError: a coordinate of another form or that comes twice, or bounds that are not finite
        and increasing.
    """

    coordinates: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        named = all(map(is_coordinate, self.coordinates))
        if not (self.coordinates and named and len(set(self.coordinates)) == len(self.coordinates)):
            raise ValueError(
                "coordinates must be distinct letters, or letters with a number such as x12, got "
                f"{self.coordinates}"
            )
        for name, low, high in zip(self.coordinates, self.lower, self.upper, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(
                    f"bounds of {name} must be finite and increasing, got ({low}, {high})"
                )

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the uniform distribution on each axis."""
        return tuple((low + high) / 2 for low, high in zip(self.lower, self.upper, strict=True))

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the uniform distribution on each axis."""
        return tuple(
            (high - low) / math.sqrt(12) for low, high in zip(self.lower, self.upper, strict=True)
        )

    @property
    def sides(self) -> tuple["Face", ...]:
        """The two faces of each coordinate."""
        axes = range(len(self.coordinates))
        return tuple(Face(self, axis, side) for axis in axes for side in (-1, 1))

    @property
    def faces(self) -> tuple[str, ...]:
        """Names of the faces: of each side, such as `"t=0"`, and `"boundary"`."""
        return (*(side.name for side in self.sides), *(["boundary"] if self._space else []))

    def sample(
        self, key: Array, count: int, sampler: Sampler = uniform, dtype: DTypeLike = jnp.float32
    ) -> Array:
        """Returns points `[count, d]` of the interior."""
        return self._from_unit_cube(sampler(key, count, len(self.coordinates), dtype))

    def face(self, name: str) -> "Face | Surface":
        """Returns the face of this name: a side, or `"boundary"`.

        The boundary is that of the box in space: all sides but those of t.

        Raises:
          ValueError: no such face.
        """
        if name == "boundary" and self._space:
            return Surface(self, self._space)
        return self.side(name)

    def side(self, name: str) -> "Face":
        """Returns the face where a coordinate equals one of its bounds, such as `"t=0"`.

        The number may be rounded, up to 1e-5 of the box's width.

        Raises:
          ValueError: no such face.
        """
        coordinate, _, number = name.replace(" ", "").partition("=")
        try:
            value = float(number)
        except ValueError:
            raise unknown("face", name, self.faces) from None
        for side in self.sides:
            width = self.upper[side.axis] - self.lower[side.axis]
            if side.coordinate == coordinate and abs(side.bound - value) <= 1e-5 * width:
                return side
        raise unknown("face", name, self.faces)

    def grid(self, counts: Sequence[int]) -> np.ndarray:
        """Returns a regular float64 grid with its boundary, `[N, d]`, the last axis fastest.

        Args:
          counts: points on each axis; a single one lies in the middle.

        Raises:
          ValueError: not one positive count for each coordinate.
        """
        if len(counts) != len(self.coordinates) or min(counts) < 1:
            raise ValueError(
                f"a grid needs a count of at least 1 for each of {listed(self.coordinates)}, got"
                f" {tuple(counts)}"
            )
        several = [axis for axis, count in enumerate(counts) if count > 1]  # NumPy has few axes
        lines = [np.linspace(self.lower[k], self.upper[k], counts[k]) for k in several]
        points = np.tile(self.mean, (math.prod(counts), 1))
        for axis, values in zip(several, np.meshgrid(*lines, indexing="ij"), strict=True):
            points[:, axis] = values.ravel()
        return points

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Returns whether points `[N, d]` lie in the box or on its boundary, `[N]` bools."""
        return np.all((points >= np.array(self.lower)) & (points <= np.array(self.upper)), axis=-1)

    @property
    def _space(self) -> tuple[int, ...]:
        """The axes of all coordinates but t."""
        return tuple(axis for axis, name in enumerate(self.coordinates) if name != "t")

    def _from_unit_cube(self, unit: Array) -> Array:
        lower, upper = jnp.asarray(self.lower, unit.dtype), jnp.asarray(self.upper, unit.dtype)
        return lower + (upper - lower) * unit


@dataclasses.dataclass(frozen=True)
class Face:
    """The side of a box on which one coordinate has its lower (-1) or upper (+1) bound.

    Attributes:
      box: the box.
      axis: the axis that is fixed.
      side: -1 for the lower bound, 1 for the upper one.
    """

    box: Box
    axis: int
    side: int

    @property
    def coordinate(self) -> str:
        """The letter of the coordinate that is fixed."""
        return self.box.coordinates[self.axis]

    @property
    def bound(self) -> float:
        """The value of the coordinate that is fixed."""
        return (self.box.lower if self.side < 0 else self.box.upper)[self.axis]

    @property
    def name(self) -> str:
        """The name by which `Box.face` knows this face, `"t=0"`."""
        return f"{self.coordinate}={self.bound:.12g}"

    @property
    def opposite(self) -> "Face":
        """The face at the other bound."""
        return Face(self.box, self.axis, -self.side)

    def project(self, x: Array) -> Array:
        """Returns the points `x`, `[..., d]`, moved onto this face: its coordinate is exact."""
        return x.at[..., self.axis].set(self.bound)

    def normal(self, x: Array) -> Array:
        """Returns the outward unit normal `[d]` at the point `x` of shape `[d]`."""
        return jnp.zeros_like(x).at[self.axis].set(self.side)

    def sample(
        self, key: Array, count: int, sampler: Sampler = uniform, dtype: DTypeLike = jnp.float32
    ) -> Array:
        """Returns points `[count, d]` on the face; in one dimension they are all the same."""
        unit = sampler(key, count, len(self.box.coordinates) - 1, dtype)
        return self.project(self.box._from_unit_cube(jnp.insert(unit, self.axis, 0, axis=1)))


@dataclasses.dataclass(frozen=True)
class Surface:
    """The sides of some coordinates of a box together, with points uniform in area.

    Attributes:
      box: the box.
      axes: the axes of the coordinates.
    """

    box: Box
    axes: tuple[int, ...]

    def sample(
        self, key: Array, count: int, sampler: Sampler = uniform, dtype: DTypeLike = jnp.float32
    ) -> Array:
        """Returns points `[count, d]`, on each side in proportion to its area.

        The last axis of the sampler's cube chooses the side.
        """
        unit = sampler(key, count, len(self.box.coordinates) + 1, dtype)
        widths = np.subtract(self.box.upper, self.box.lower)[list(self.axes)]
        areas = np.repeat(1 / widths, 2)  # the volume over the width
        ends = jnp.asarray(np.cumsum(areas / areas.sum())[:-1], dtype)
        chosen = jnp.searchsorted(ends, unit[:, -1], side="right")
        axis, bounds = jnp.asarray(self.axes)[chosen // 2], [self.box.lower, self.box.upper]
        on_side = jnp.asarray(bounds, dtype)[chosen % 2, axis]
        return self.box._from_unit_cube(unit[:, :-1]).at[jnp.arange(count), axis].set(on_side)

    def normal(self, x: Array) -> Array:
        """Returns the outward unit normal `[d]` of the side that is nearest to a point `[d]`."""
        axes = jnp.asarray(self.axes)
        lower, upper = (jnp.asarray(of, x.dtype)[axes] for of in (self.box.lower, self.box.upper))
        gaps = jnp.concatenate([x[axes] - lower, upper - x[axes]]) / jnp.tile(upper - lower, 2)
        nearest = jnp.argmin(gaps)
        side = jnp.where(nearest < len(axes), -1, 1).astype(x.dtype)
        return jnp.zeros_like(x).at[axes[nearest % len(axes)]].set(side)


def numbered(letter: str, count: int) -> tuple[str, ...]:
    """Returns the names of many coordinates, `("x1", "x2", ...)`.

    Example:
      >>> print(box(t=(0, 1), **dict.fromkeys(numbered("x", 3), (-1, 1))).coordinates)
      ('t', 'x1', 'x2', 'x3')
    """
    return tuple(f"{letter}{k}" for k in range(1, count + 1))


def box(**bounds: tuple[float, float]) -> Box:
    """Returns the box with these bounds: `box(t=(0, 1), x=(-1, 1))`; errors as in `Box`."""
    for name, pair in bounds.items():
        if np.shape(pair) != (2,):
            raise ValueError(f"bounds of {name} must be two numbers, lower and upper, got {pair}")
    lower, upper = ([float(pair[side]) for pair in bounds.values()] for side in (0, 1))
    return Box(tuple(bounds), tuple(lower), tuple(upper))
