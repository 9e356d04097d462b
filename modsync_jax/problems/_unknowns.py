"""What training finds beside the network: coefficients, and fields of them.

A coefficient is trained as a free number, from which a smooth function makes its value. So bounds
hold in every step, with every optimiser.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from modsync_jax import _calls
from modsync_jax.calculus import Field

PyTree = Any
_WORD = "unknown"


@dataclasses.dataclass(frozen=True)
class Unknown:
    """A coefficient that training finds, a number or a vector.

    The trained number z gives the value `z` without bounds, `low + exp(z)` or `high - exp(z)` with
    one, and `low + (high - low) / (1 + exp(-z))` with both. So a coefficient with one bound may be
    wrong by orders of magnitude at the start.

    Attributes:
      start: where the search starts, a number or n numbers.
      low: the lower bound, below the start.
      high: the upper bound, above the start.
      rate: the step length of z over that of a weight, for optimisers that normalise their steps,
        such as Adam.
      truth: the true value, for comparison only.

    Raises:
      ValueError: numbers that do not fit each other.

    Example:
      >>> print(Unknown(0.05, low=0.0))
      unknown(start=0.05,low=0.0)
    """

    start: float | Sequence[float]
    low: float = -math.inf
    high: float = math.inf
    rate: float = 1.0
    truth: float | Sequence[float] | None = None

    def __post_init__(self) -> None:
        for name in ("start", "truth"):
            given = getattr(self, name)
            if given is None:
                continue
            try:
                array = np.asarray(given, np.float64)
            except (TypeError, ValueError):
                array = np.array(np.nan)
            if array.ndim > 1 or not array.size or not np.isfinite(array).all():
                raise ValueError(f"{name} of an unknown is {given!r}; give a number or a list")
            numbers = array.tolist()
            object.__setattr__(self, name, tuple(numbers) if array.ndim else numbers)
        _check(np.asarray(self.start), self.low, self.high)
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate of an unknown is {self.rate}; it must be positive")
        if self.truth is not None and np.shape(self.truth) != np.shape(self.start):
            raise ValueError(
                f"an unknown starts at {self.start}, and its truth is {self.truth}; they must be as"
                " many numbers"
            )

    def __str__(self) -> str:
        fields = dataclasses.fields(self)
        changed = {f.name: v for f in fields if (v := getattr(self, f.name)) != f.default}
        return _calls.written(_WORD, changed)

    def begin(self, key: Array, dtype: DTypeLike) -> Array:
        """Returns the trained number or numbers z of the start."""
        start = _inverse(np.asarray(self.start, np.float64), self.low, self.high)
        return jnp.asarray(start / self.rate, dtype)

    def value(self, trained: ArrayLike, coordinates: tuple[str, ...]) -> Array:
        """Returns the value of trained numbers, which does not depend on coordinates."""
        return _between(self.rate * jnp.asarray(trained), self.low, self.high)

    def labelled(self, name: str, value: Any) -> dict[str, Any]:
        """Returns the single numbers of a value by name: `c`, or `c[0]`, ... of a vector."""
        if isinstance(self.start, tuple):
            return {f"{name}[{index}]": value[index] for index in range(len(self.start))}
        return {name: value}


@dataclasses.dataclass(frozen=True, eq=False)
class UnknownField:
    """A coefficient that depends on the place, found by training: a second, small network.

    In an equation it is a function of the point `[d]` with values `[1]`, a `calculus.Field`. Bounds
    are kept as by `Unknown`, for which the network gives the changes of z from the start.

    Attributes:
      network: a Flax module from points to one value, such as `MLP(width=16, depth=2)`.
      of: the letters of the coordinates on which it depends, such as `"x"`.
      start: the value around which the search starts.
      low: the lower bound, below the start.
      high: the upper bound, above the start.
      truth: the true values, from points `[N, d]` to `[N]`, for comparison only.
      coordinates: the letters of all coordinates of the domain, which `problems.get` needs; a
        `Problem` that has the field among its unknowns knows them.

    Raises:
      ValueError: no letters, or a start outside the bounds.
    """

    network: Any
    of: str
    start: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    truth: Callable[[np.ndarray], ArrayLike] | None = None
    coordinates: str = ""

    def __post_init__(self) -> None:
        if not self.of:
            raise ValueError("an unknown field needs the letters of its coordinates, such as 'x'")
        _check(np.asarray(self.start), self.low, self.high)

    def begin(self, key: Array, dtype: DTypeLike) -> PyTree:
        """Returns the weights of a random network."""
        variables = self.network.init(key, jnp.zeros(len(self.of), dtype))
        return jax.tree.map(lambda leaf: leaf.astype(dtype), variables)

    def value(self, trained: PyTree, coordinates: tuple[str, ...]) -> Field:
        """Returns the field of a network with trained weights."""
        if not set(self.of) <= set(coordinates):
            raise ValueError(
                f"an unknown field of {self.of!r} needs a domain with these coordinates; it has "
                f"{', '.join(coordinates)}"
            )
        axes = np.array([coordinates.index(letter) for letter in self.of])
        start = float(_inverse(np.asarray(self.start, np.float64), self.low, self.high))

        def apply(x: Array) -> Array:
            change = jnp.reshape(self.network.apply(trained, x[axes]), (1,))
            return _between(start + change, self.low, self.high)

        return Field(apply, coordinates)


AnyUnknown = Unknown | UnknownField


class Start(float):
    """A starting value that learns in which range its problem is valid.

    Attributes:
      range: the lowest and highest value, as `coefficient` was told.
    """

    range: tuple[float, float] = (-math.inf, math.inf)


def read(name: str, text: str) -> Unknown:
    """Returns the unknown that a text such as `unknown(start=0.05,low=0)` describes.

    Args:
      name: the coefficient's name.
      text: the text.

    Raises:
      ValueError: another text, or numbers that do not fit each other.
    """
    word, settings = _calls.read(text)
    known = [field.name for field in dataclasses.fields(Unknown)]
    if word != _WORD or "start" not in settings or not settings.keys() <= set(known):
        raise ValueError(
            f"{name} is {text!r}; it must be a number, or {_WORD}(start=1.0) with any of "
            f"{', '.join(known[1:])}"
        )
    return Unknown(**settings)


def first(unknown: AnyUnknown) -> Start | np.ndarray | Field:
    """Returns the starting value with which a problem is made.

    Raises:
      ValueError: a field that does not name all coordinates.
    """
    if isinstance(unknown, UnknownField):
        constant = unknown.start
        if not set(unknown.of) <= set(unknown.coordinates):
            raise ValueError(
                f"an unknown field of {unknown.of!r} needs the letters of all coordinates here, "
                "such as coordinates='tx'"
            )
        return Field(lambda x: jnp.full(1, constant, x.dtype), tuple(unknown.coordinates))
    start = unknown.start
    return Start(start) if isinstance(start, float | int) else np.array(start)


def bounded(unknown: AnyUnknown, start: Any) -> AnyUnknown:
    """Returns an unknown with bounds within the range that its problem told its start.

    Raises:
      ValueError: when it starts outside.
    """
    if not isinstance(start, Start):
        return unknown
    low, high = start.range
    return dataclasses.replace(unknown, low=max(unknown.low, low), high=min(unknown.high, high))


def truths(unknowns: Mapping[str, AnyUnknown]) -> dict[str, Any] | None:
    """Returns the true numbers and vectors, or None if one is not known."""
    found = {name: u.truth for name, u in unknowns.items() if isinstance(u, Unknown)}
    if len(found) < len(unknowns) or None in found.values():
        return None
    return {name: np.array(t) if isinstance(t, tuple) else t for name, t in found.items()}


def _check(start: np.ndarray, low: float, high: float) -> None:
    if not (np.all(low < start) and np.all(start < high)):
        raise ValueError(
            f"an unknown starts at {start}; it must start strictly between {low} and {high}"
        )


def _between(z: Array, low: float, high: float) -> Array:
    """The value between two bounds that a free number gives."""
    if math.isinf(low) and math.isinf(high):
        return z
    if math.isinf(high):
        return low + jnp.exp(z)
    if math.isinf(low):
        return high - jnp.exp(z)
    return low + (high - low) * jax.nn.sigmoid(z)


def _inverse(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """The free number that gives a value."""
    if math.isinf(low) and math.isinf(high):
        return value
    if math.isinf(high):
        return np.log(value - low)
    if math.isinf(low):
        return np.log(high - value)
    return np.log((value - low) / (high - value))
