"""Jets: a value and linear operators of it, carried through a network together.

A network that is built from `linear`, `elementwise` and arithmetic takes a `Jet` where it takes a
point, and returns one. That costs one product a layer for the value and one for each operator, and
second derivatives that are only wanted as a sum, `u_xx + u_yy`, are carried as that sum: the
forward Laplacian (Li et al., Nature Machine Intelligence 2024; Dangel et al., arXiv:2505.13644).
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

Order = tuple[int, ...]
"""A derivative as ascending axes: `()` the value, `(0,)`, `(0, 1)`, `(1, 1)`."""

Operator = Mapping[Order, ArrayLike]
"""A linear differential operator: its coefficient for each order."""

Bend = tuple[tuple[int, int, Any], ...]
"""A sum of second derivatives: the two first derivatives to multiply, and the coefficient."""


@dataclasses.dataclass(frozen=True)
class Jet:
    """The value of a function at one point, and what linear operators make of it.

    Adding and multiplying jets, and arrays that do not depend on the point, follow the sum and
    product rules.

    Attributes:
      value: `[n]`.
      carried: for each operator without its value term, `[n]`.
      bends: the second-order part of each operator, `(i, j, coefficient)` of the first derivatives
        that are `carried[i]` and `carried[j]`.
      constant: whether `carried` is the same at every point, as it is for the coordinates.
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
            + sum(c * (f[i] * g[j] + f[j] * g[i]) for i, j, c in bend)
            for a, b, bend in zip(f, g, self.bends, strict=True)
        ]
        return self._with(self.value * other.value, products)

    __radd__, __rmul__ = __add__, __mul__
    __array_ufunc__ = None  # NumPy arrays leave arithmetic with jets to the jet

    def __neg__(self) -> "Jet":
        return -1.0 * self

    def __sub__(self, other: Any) -> "Jet":
        return self + -1.0 * other

    def __rsub__(self, other: Any) -> "Jet":
        return -1.0 * self + other

    def _with(self, value: Array, carried: Sequence[Array]) -> "Jet":
        return Jet(value, tuple(carried), self.bends)


def operate(
    u: Callable[[Any], Any], x: Array, operators: Sequence[Operator]
) -> tuple[Array, ...] | None:
    """Applies linear operators to a function that takes jets.

    Args:
      u: from a jet of shape `[d]` to one of shape `[m]`.
      x: one point, `[d]`.
      operators: what to apply, with coefficients that may be tracers.

    Returns:
      For each operator an array `[m]`; None if one has an order above the second.
    """
    if any(len(order) > 2 for operator in operators for order in operator):
        return None
    directions, bends, sources = _plan(operators)
    units = jnp.eye(len(x), dtype=x.dtype)
    zero = jnp.zeros_like(units[0])
    carried: Any = tuple(sum((c * units[i] for i, c in b.items()), zero) for b in directions)
    jet = u(Jet(x, carried, tuple(bends), constant=True))

    def read(operator: Operator, source: Mapping[int, ArrayLike]) -> Array:
        terms = [operator[()] * jet.value] if () in operator else []
        return sum(terms + [c * jet.carried[index] for index, c in source.items()])

    return tuple(map(read, operators, sources))


def _plan(
    operators: Collection[Operator],
) -> tuple[list[Mapping[int, ArrayLike]], list[Bend], list[Mapping[int, ArrayLike]]]:
    """What to carry, `(directions, bends)`, and by which factors each operator reads from it."""
    axes = sorted({axis for op in operators for order in op if len(order) == 2 for axis in order})
    directions: list[Mapping[int, ArrayLike]] = [{axis: 1.0} for axis in axes]
    bends: list[Bend] = [()] * len(axes)
    sources: list[Mapping[int, ArrayLike]] = []
    for operator in operators:
        first = {order[0]: c for order, c in operator.items() if len(order) == 1}
        second = tuple(
            (axes.index(order[0]), axes.index(order[1]), c)
            for order, c in operator.items()
            if len(order) == 2
        )
        if second or not first.keys() <= set(axes):
            sources.append({len(directions): 1.0})
            directions.append(first)
            bends.append(second)
        else:
            sources.append({axes.index(axis): c for axis, c in first.items()})
    return directions, bends, sources


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
    # Mapped over N points, `kernel.T @ x` is one product [out, n] times [n, N], the layout that is
    # fastest on CPUs; adding a bias [out] that is not mapped would transpose it back. So the bias
    # is mapped too, by a product with a one for every point, which XLA turns into a broadcast.
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
      function: from an array to one of the same shape; the derivatives of `tanh`, `sin` and
        `cos` are known, those of others are taken by `jax.jvp`.
      x: an array, or a jet.
    """
    if not isinstance(x, Jet):
        return function(x)
    value, slope, curvature = _DERIVATIVES.get(function, _by_jvp(function))(x.value)
    carried = []
    for a, bend in zip(x.carried, x.bends, strict=True):
        bent = sum(curvature * c * x.carried[i] * x.carried[j] for i, j, c in bend)
        carried.append(slope * a + bent if bend else slope * a)
    return x._with(value, carried)


def call(function: Callable[[Array], Array], x: Any) -> Any:
    """Returns `function(x)`, for any function of one point; dearer than the operations above.

    Args:
      function: from `[n]` to `[m]`, made of JAX operations.
      x: values `[..., n]`, or a jet of shape `[n]`.

    Returns:
      Values `[..., m]`, or a jet of shape `[m]`.
    """
    if not isinstance(x, Jet):
        return jnp.vectorize(function, signature="(n)->(m)")(x)

    def slope(a: Array, b: Array) -> Array:
        return jax.jvp(function, (a,), (b,))[1]

    carried = [
        slope(x.value, a)
        + sum(
            c * jax.jvp(lambda y, i=i: slope(y, x.carried[i]), (x.value,), (x.carried[j],))[1]
            for i, j, c in bend
        )
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
    """Joins arrays along their last axis, or jets."""
    if not isinstance(parts[0], Jet):
        return jnp.concatenate(parts, axis=-1)
    carried = [jnp.concatenate(column) for column in zip(*(p.carried for p in parts), strict=True)]
    return parts[0]._with(jnp.concatenate([p.value for p in parts]), carried)


def _tanh(z: Array) -> tuple[Array, Array, Array]:
    value = jnp.tanh(z)
    slope = 1 - value * value
    return value, slope, -2 * value * slope


def _sin(z: Array) -> tuple[Array, Array, Array]:
    value = jnp.sin(z)
    return value, jnp.cos(z), -value


def _cos(z: Array) -> tuple[Array, Array, Array]:
    value = jnp.cos(z)
    return value, -jnp.sin(z), -value


_DERIVATIVES: Mapping[Any, Callable[[Array], tuple[Array, Array, Array]]] = {
    jnp.tanh: _tanh,
    jnp.sin: _sin,
    jnp.cos: _cos,
}


def _by_jvp(function: Callable[[Array], Array]) -> Callable[[Array], tuple[Array, Array, Array]]:
    """A function's values and first two derivatives, by nested forward mode."""

    def with_slope(z: Array) -> tuple[Array, Array]:
        return jax.jvp(function, (z,), (jnp.ones_like(z),))

    def with_curvature(z: Array) -> tuple[Array, Array, Array]:
        (value, slope), (_, curvature) = jax.jvp(with_slope, (z,), (jnp.ones_like(z),))
        return value, slope, curvature

    return with_curvature
