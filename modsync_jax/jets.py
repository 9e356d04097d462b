"""Jets: a value and linear operators of it, which pass through a network together.

A network that is built from `linear`, `elementwise` and arithmetic accepts a `Jet` instead of a
point and returns a `Jet`. Each layer costs one product for the value and one for each operator. A
sum of derivatives, such as `u_xx + u_yy`, is carried as one operator: this is the forward Laplacian
(Li et al., Nature Machine Intelligence 2024; Dangel et al., arXiv:2505.13644), extended to any
order by Faà di Bruno's formula.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial, reduce
from operator import mul
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

Order = tuple[int, ...]
"""A derivative as ascending axes: `()` the value, `(0,)`, `(0, 1)`, `(1, 1)`."""

Operator = Mapping[Order, ArrayLike]
"""A linear differential operator: its coefficient for each order."""

Bend = tuple[tuple[tuple[int, ...], Any], ...]
"""A further term of the chain rule: the indices of lower derivatives to multiply, and a factor."""


@dataclasses.dataclass(frozen=True)
class Jet:
    """The value of a function at one point, and the values of linear operators on it.

    Jets can be added and multiplied with each other and with arrays that do not depend on the
    point; the sum and product rules hold.

    Attributes:
      value: `[n]`.
      carried: for each operator without its value term, `[n]`.
      bends: for each operator, the splits of its orders into two or more lower ones: `((i, j, ...),
        coefficient)` stands for the product of `carried[i]`, `carried[j]`, ...
      constant: whether `carried` is the same at every point, as for the coordinates.
    """

    value: Array
    carried: tuple[Array, ...]
    bends: tuple[Bend, ...]
    constant: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape `[n]` of the value."""
        return self.value.shape

    @property
    def dtype(self) -> Any:
        """The dtype of the value."""
        return self.value.dtype

    def __add__(self, other: Any) -> "Jet":
        if isinstance(other, Jet):
            both = zip(self.carried, other.carried, strict=True)
            return self._with(self.value + other.value, [a + b for a, b in both])
        return dataclasses.replace(self, value=self.value + other)

    def __mul__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            scaled = tuple(other * a for a in self.carried)
            return dataclasses.replace(self, value=other * self.value, carried=scaled)
        f, g = self.carried, other.carried
        products = [
            a * other.value
            + self.value * b
            + sum(c * (f[i] * g[j] + f[j] * g[i]) for i, j, c in _pairs(bend))
            for a, b, bend in zip(f, g, self.bends, strict=True)
        ]
        return self._with(self.value * other.value, products)

    __radd__, __rmul__ = __add__, __mul__
    __array_ufunc__ = None  # so that NumPy arrays call the jet's operators

    def __neg__(self) -> "Jet":
        return -1.0 * self

    def __sub__(self, other: Any) -> "Jet":
        return self + -1.0 * other

    def __rsub__(self, other: Any) -> "Jet":
        return -1.0 * self + other

    def _with(self, value: Array, carried: Sequence[Array]) -> "Jet":
        return Jet(value, tuple(carried), self.bends)


def operate(
    u: Callable[[Any], Any],
    x: Array,
    operators: Sequence[Operator],
    frame: Array | None = None,
) -> tuple[Array, ...]:
    """Applies linear operators to a function that takes jets.

    Args:
      u: from a jet of shape `[d]` to one of shape `[m]`.
      x: one point, `[d]`.
      operators: the operators, whose coefficients may be tracers.
      frame: directions `[n, d]`, other ones at each point, that stand for the axes of the orders;
        the coordinates' own if None.

    Returns:
      For each operator an array `[m]`.
    """
    carried, bends, sources = _plan(operators)
    units = jnp.eye(len(x), dtype=x.dtype) if frame is None else frame

    def direction(operator: Operator) -> Array:
        first: list[Any] = [c * units[order[0]] for order, c in operator.items() if len(order) == 1]
        return sum(first, jnp.zeros_like(units[0]))

    jet = u(Jet(x, tuple(map(direction, carried)), bends, constant=frame is None))

    def read(operator: Operator, source: Mapping[int, ArrayLike]) -> Array:
        terms = [operator[()] * jet.value] if () in operator else []
        return sum(terms + [c * jet.carried[index] for index, c in source.items()])

    return tuple(map(read, operators, sources))


def _plan(
    operators: Collection[Operator],
) -> tuple[list[Operator], tuple[Bend, ...], list[Mapping[int, ArrayLike]]]:
    """Returns the operators to carry, their bends, and each operator as a sum of carried ones."""
    blocks = {
        block for op in operators for order in op for split in _splits(order) for block in split
    }
    alone = sorted(blocks, key=lambda order: (len(order), order))
    carried: list[Operator] = [{order: 1.0} for order in alone]
    sources: list[Mapping[int, ArrayLike]] = []
    for operator in operators:
        own = {order: c for order, c in operator.items() if order}
        if own.keys() <= blocks:
            sources.append({alone.index(order): c for order, c in own.items()})
        else:
            sources.append({len(carried): 1.0})
            carried.append(own)

    def bend(operator: Operator) -> Bend:
        return tuple(
            (tuple(sorted(map(alone.index, split))), count * c if count > 1 else c)
            for order, c in operator.items()
            for split, count in Counter(map(tuple, map(sorted, _splits(order)))).items()
        )

    return carried, tuple(map(bend, carried)), sources


def _splits(order: Order) -> list[tuple[Order, ...]]:
    """Returns all splits of a derivative into two or more lower ones, as often as they occur.

    `(0, 0, 1)` splits into `(0, 0), (1,)` once, `(0, 1), (0,)` twice, and `(0,), (0,), (1,)` once.
    """

    def partitions(order: Order) -> list[tuple[Order, ...]]:
        if not order:
            return [()]
        first, found = order[:1], []
        for blocks in partitions(order[1:]):
            joined = [
                (*blocks[:i], first + block, *blocks[i + 1 :]) for i, block in enumerate(blocks)
            ]
            found += [(first, *blocks), *joined]
        return found

    return [blocks for blocks in partitions(order) if len(blocks) > 1]


def linear(kernel: Array, x: Any, bias: Array | None = None) -> Any:
    """Returns `x @ kernel + bias`.

    Args:
      kernel: `[n, out]`.
      x: values `[..., n]`, or a jet of shape `[n]`.
      bias: `[out]`.

    Returns:
      Values `[..., out]`, or a jet of shape `[out]`.
    """
    if not isinstance(x, Jet):
        return x @ kernel if bias is None else x @ kernel + bias
    # Mapped over N points, `kernel.T @ x` is one product [out, n] times [n, N], the fastest layout
    # on CPUs. Adding an unmapped bias [out] would transpose it back. So the bias is mapped too: it
    # is multiplied by a one for every point, which XLA turns into a broadcast.
    one = jnp.ones((), x.dtype)
    one = jnp.where(x.value[:1] == x.value[:1], one, one)

    def at_each_point(a: Array) -> Array:
        return a[:, None] @ one

    value = kernel.T @ x.value
    if bias is not None:
        value = value + at_each_point(bias)
    carried = [kernel.T @ a for a in x.carried]
    return Jet(value, tuple(map(at_each_point, carried) if x.constant else carried), x.bends)


def elementwise(function: Callable[[Array], Array], x: Any) -> Any:
    """Returns `function(x)`, for a function of single numbers.

    Args:
      function: from an array to one of the same shape. The derivatives of `tanh`, `sin` and `cos`
        are formulas, those of other functions come from `jax.jvp`.
      x: an array, or a jet.
    """
    if not isinstance(x, Jet):
        return _derivatives(function, x, 0)[0]
    order = max((len(split) for bend in x.bends for split, _ in bend), default=1)
    value, *slopes = _derivatives(function, x.value, order)
    carried = []
    for a, bend in zip(x.carried, x.bends, strict=True):
        bent = sum(
            reduce(mul, (x.carried[i] for i in split), slopes[len(split) - 1] * c)
            for split, c in bend
        )
        carried.append(slopes[0] * a + bent if bend else slopes[0] * a)
    return x._with(value, carried)


def call(function: Callable[[Array], Array], x: Any) -> Any:
    """Returns `function(x)` for any function of one point; it costs more than the operations above.

    Args:
      function: from `[n]` to `[m]`, made of JAX operations.
      x: values `[..., n]`, or a jet of shape `[n]`.

    Returns:
      Values `[..., m]`, or a jet of shape `[m]`.
    """
    if not isinstance(x, Jet):
        return jnp.vectorize(function, signature="(n)->(m)")(x)

    def along(*directions: Array) -> Array:
        derivative = function
        for direction in directions:
            derivative = partial(_slope, derivative, direction)
        return derivative(x.value)

    carried = [
        along(a) + sum(c * along(*(x.carried[i] for i in split)) for split, c in bend)
        for a, bend in zip(x.carried, x.bends, strict=True)
    ]
    return x._with(function(x.value), carried)


def take(x: Any, indices: Sequence[int]) -> Any:
    """Returns these entries of the last axis of an array, or of a jet."""
    chosen = jnp.asarray(indices, int)
    if not isinstance(x, Jet):
        return x[..., chosen]
    carried = tuple(a[chosen] for a in x.carried)
    return dataclasses.replace(x, value=x.value[chosen], carried=carried)


def concatenate(parts: Sequence[Any]) -> Any:
    """Joins arrays, or jets, along their last axis."""
    if not isinstance(parts[0], Jet):
        return jnp.concatenate(parts, axis=-1)
    carried = [jnp.concatenate(column) for column in zip(*(p.carried for p in parts), strict=True)]
    return parts[0]._with(jnp.concatenate([p.value for p in parts]), carried)


def _slope(function: Callable[[Array], Array], direction: Array, x: Array) -> Array:
    return jax.jvp(function, (x,), (direction,))[1]


def _pairs(bend: Bend) -> list[tuple[int, int, Any]]:
    """Returns the splits into two factors, the only ones in the product rule."""
    return [(*split, c) for split, c in bend if len(split) == 2]


def _derivatives(function: Callable[[Array], Array], z: Array, order: int) -> tuple[Array, ...]:
    """A function's values and its derivatives up to an order."""
    if order < 4 and function in _KNOWN:
        return _KNOWN[function](z)[: order + 1]
    if order == 0:
        return (function(z),)
    lower, raised = jax.jvp(
        lambda z: _derivatives(function, z, order - 1), (z,), (jnp.ones_like(z),)
    )
    return (*lower, raised[-1])


def _tanh(z: Array) -> tuple[Array, ...]:
    value = jnp.tanh(z)
    slope = 1 - value * value
    return value, slope, -2 * value * slope, slope * (4 - 6 * slope)


def _sin(z: Array) -> tuple[Array, ...]:
    value, slope = _sin_and_cos(z)
    return value, slope, -value, -slope


def _cos(z: Array) -> tuple[Array, ...]:
    minus_slope, value = _sin_and_cos(z)
    return value, -minus_slope, -value, minus_slope


@jax.custom_jvp
def _sin_and_cos(z: Array) -> tuple[Array, Array]:
    """Sine and cosine.

    In double precision XLA calls a library function for each number on CPUs, which takes ten times
    as long as this series. The quarter turns that are taken off have three parts (Cody & Waite
    1980). The first has 33 bits, so that its multiples are exact up to 2^20 quarter turns; errors
    of larger angles are below those of rounding the angle.
    """
    if z.dtype != jnp.float64:
        return jnp.sin(z), jnp.cos(z)
    turns = jnp.round(z * (2 / math.pi))
    rest = z - turns * 1.5707963267341256
    rest = rest - turns * 6.077100506303966e-11 - turns * 2.0222662487959506e-21
    square = rest * rest
    sine, cosine = rest * _series(square, 1), _series(square, 0)
    quarter = jnp.mod(turns, 4.0)
    odd = jnp.mod(turns, 2.0) == 1
    sine, cosine = jnp.where(odd, cosine, sine), jnp.where(odd, sine, cosine)
    sine = jnp.where(quarter >= 2, -sine, sine)
    return sine, jnp.where((quarter == 1) | (quarter == 2), -cosine, cosine)


@_sin_and_cos.defjvp
def _sin_and_cos_jvp(primals: tuple[Array], tangents: tuple[Array]) -> Any:
    sine, cosine = _sin_and_cos(*primals)
    return (sine, cosine), (cosine * tangents[0], -sine * tangents[0])


def _series(square: Array, first: int) -> Array:
    """Nine terms of Taylor's series of the cosine, or with `first` 1 of the sine over its argument.

    The first term left out is below 1e-19 where the square is below (π/4)².
    """
    total = jnp.zeros_like(square)
    for k in reversed(range(9)):
        total = total * square + (-1.0) ** k / math.factorial(2 * k + first)
    return total


_KNOWN: Mapping[Any, Callable[[Array], tuple[Array, ...]]] = {
    jnp.tanh: _tanh,
    jnp.sin: _sin,
    jnp.cos: _cos,
}
