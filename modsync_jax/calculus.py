"""Derivatives of a field with respect to its coordinates, at one point.

A residual asks for all its derivatives in one call, `partials(u, x, "", "x", {"t": 1, "xx":
-0.1})`. This module chooses the computation: jets where the field's network takes them, and nested
forward mode otherwise, which is the fastest plain way for the low orders of a PDE. Map over points
with `jax.vmap`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from modsync_jax import jets
from modsync_jax._names import coordinates as split
from modsync_jax._names import unknown
from modsync_jax.directions import Directions
from modsync_jax.jets import Operator, Order

Terms = str | Mapping[str, ArrayLike]


@dataclasses.dataclass(frozen=True)
class Field:
    """A function of space and time, with the names of its coordinates.

    Attributes:
      apply: the function, from a point `[d]` to values `[m]`.
      coordinates: a name for each entry of a point, such as `("t", "x")` or `("x1", "x2")`: a
        letter, or a letter and a number.
      takes_jets: whether `apply` also maps jets to jets, as the networks of `modsync_jax.networks`
        do. If so, derivatives are computed with jets.
      directions: random directions along which sums of more second derivatives than directions are
        estimated; all derivatives are exact if None.
    """

    apply: Callable[[Array], Array]
    coordinates: tuple[str, ...]
    takes_jets: bool = False
    directions: Directions | None = None

    def __call__(self, x: Array) -> Array:
        """Returns the values `[m]` at the point `x` of shape `[d]`."""
        return self.apply(x)


Function = Field | Callable[[Array], Array]


def partials(
    u: Function, x: Array, *terms: Terms, coordinates: Sequence[str] | None = None
) -> tuple[Array, ...]:
    """Returns derivatives of `u` at the point `x`, in the order of `terms`.

    Lower orders come with the higher ones: `""`, `"x"` and `"xx"` take one pass. A sum of
    derivatives, such as `{"xx": 1, "yy": 1}`, costs less than its separate terms, so ask for the
    linear part of an equation as one term.

    Args:
      u: a field, or a function from a point `[d]` to values `[m]`.
      x: one point, `[d]`.
      *terms: derivatives as strings of coordinates: `""` for the value, `"t"`, `"xx"`, `"tx"` (the
        same as `"xt"`), `"x1x12"`, of any order; or a linear operator as a mapping from such names
        to coefficients, which may be traced.
      coordinates: the coordinates of a plain function; a `Field` knows its own.

    Returns:
      A tuple with one array `[m]` for each term.

    Raises:
      ValueError: a name that is no coordinate, an operator without terms, a point of another
        shape than `[d]`, or a function without coordinates.

    Example:
      >>> u = Field(lambda p: p[:1] * p[1:] ** 2, ("t", "x"))
      >>> x = jnp.array([2.0, 3.0])
      >>> u_x, heat = partials(u, x, "x", {"t": 1.0, "xx": -0.5})
      >>> print(u_x, heat)
      [12.] [7.]
    """
    axes = _coordinates(u, x, coordinates)
    operators = [_operator(term, axes) for term in terms]
    if isinstance(u, Field) and u.directions is not None:
        many = [_squares(operator, u.directions.number) for operator in operators]
        if any(many):
            return _estimated(u, x, operators, many, u.directions)
    return _exact(u, x, operators)


def gradient(u: Function, x: Array, coordinates: Sequence[str] | None = None) -> Array:
    """Returns the Jacobian `[m, d]` of `u` at a point `x`, `[d]`; errors as in `partials`."""
    axes = _coordinates(u, x, coordinates)
    return jnp.stack(partials(u, x, *axes, coordinates=axes), axis=-1)


def laplacian(
    u: Function, x: Array, over: str | None = None, coordinates: Sequence[str] | None = None
) -> Array:
    """Returns the Laplacian `[m]` of `u` at the point `x` of shape `[d]`.

    Args:
      u: a field, or a function from a point `[d]` to values `[m]`.
      x: one point, `[d]`.
      over: the coordinates to sum over, such as `"xy"`; all of them by default.
      coordinates: as in `partials`, whose errors are raised.
    """
    axes = _coordinates(u, x, coordinates)
    names = split(over) if over else axes
    return partials(u, x, dict.fromkeys((2 * name for name in names), 1.0), coordinates=axes)[0]


def divergence(
    u: Function, x: Array, over: str | None = None, coordinates: Sequence[str] | None = None
) -> Array:
    """Returns the divergence, a scalar `[]`, of the vector field `u` at the point `x`.

    Args:
      u: a field, or a function from a point `[d]` to values `[m]`, one for each coordinate.
      x: one point, `[d]`.
      over: the coordinates to which the m values belong; all of them by default.
      coordinates: as in `partials`, whose errors are raised.

    Raises:
      ValueError: the number of values is not the number of coordinates.
    """
    axes = _coordinates(u, x, coordinates)
    names = tuple(split(over) if over else axes)
    columns = partials(u, x, *names, coordinates=axes)
    if columns[0].shape != (len(names),):
        raise ValueError(
            f"a divergence over {', '.join(names)} needs a field of shape ({len(names)},),"
            f" but u has shape {columns[0].shape}; name its coordinates with over="
        )
    return jnp.trace(jnp.stack(columns))


def directional(u: Function, x: Array, direction: Array) -> tuple[Array, Array]:
    """Returns `u(x)` and its derivative along `direction`, both `[m]`.

    Args:
      u: a field, or a function from a point `[d]` to values `[m]`.
      x: one point, `[d]`.
      direction: a vector `[d]`, such as the outward normal; the derivative scales with its length.
    """
    return jax.jvp(u, (x,), (direction,))


def _coordinates(u: Function, x: Array, given: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the coordinates of `u`, after checking that `x` is one point in them."""
    if given is not None:
        axes = tuple(given)
    elif isinstance(u, Field):
        axes = u.coordinates
    else:
        raise ValueError(
            "a plain function has no coordinates: pass a Field, or coordinates=('t', 'x')"
        )
    if x.shape != (len(axes),):
        raise ValueError(
            f"a derivative needs one point of shape ({len(axes)},) in the coordinates"
            f" {', '.join(axes)}, got shape {x.shape}; map over points with jax.vmap"
        )
    return axes


def _operator(term: Terms, axes: tuple[str, ...]) -> Operator:
    """Returns the coefficient of each order in a term."""
    named = {term: 1.0} if isinstance(term, str) else term
    if not named:
        raise ValueError("an operator needs terms, such as {'xx': 1.0, 'yy': 1.0}, got {}")
    operator: dict[Order, ArrayLike] = {}
    for name, coefficient in named.items():
        along = split(name)
        for coordinate in along:
            if coordinate not in axes:
                raise unknown("coordinate", coordinate, axes)
        order = tuple(sorted(map(axes.index, along)))
        # "tx" and "xt" are equal. A single coefficient stays the object that it is.
        operator[order] = operator[order] + coefficient if order in operator else coefficient
    return operator


def _exact(
    u: Function, x: Array, operators: Sequence[Operator], frame: Array | None = None
) -> tuple[Array, ...]:
    """Applies operators, whose axes are the rows of a frame `[n, d]` if there is one."""
    if isinstance(u, Field) and u.takes_jets:
        return jets.operate(u.apply, x, operators, frame)
    orders = frozenset(order for operator in operators for order in operator)
    if frame is None:
        derivatives = _derivatives(u, orders, x)
    else:
        along = jnp.zeros(len(frame), x.dtype)
        derivatives = _derivatives(lambda s: u(x + s @ frame), orders, along)
    return tuple(
        sum(c * derivatives[order] for order, c in operator.items())  # type: ignore[misc]
        for operator in operators
    )


def _squares(operator: Operator, count: int) -> tuple[int, ...]:
    """Returns the axes of an operator's pure second derivatives, if there are more than `count`."""
    found = tuple(order[0] for order in operator if len(order) == 2 and order[0] == order[1])
    return found if len(found) > count else ()


def _estimated(
    u: Field,
    x: Array,
    operators: Sequence[Operator],
    many: Sequence[tuple[int, ...]],
    directions: Directions,
) -> tuple[Array, ...]:
    """Applies operators whose sums of second derivatives are estimated along random directions.

    First derivatives along the same axes come from one pass of reverse mode, whose cost does not
    grow with their number.

    Args:
      u: the field.
      x: one point, `[d]`.
      operators: the operators.
      many: for each operator, the axes whose second derivatives are estimated.
      directions: the random directions.
    """
    estimated = {axis for axes in many for axis in axes}

    def is_slope(order: Order) -> bool:
        return len(order) == 1 and order[0] in estimated

    exact = [
        {o: c for o, c in op.items() if not is_slope(o) and o not in {(a, a) for a in axes}}
        for op, axes in zip(operators, many, strict=True)
    ]
    units = jnp.eye(len(x), dtype=x.dtype)
    kept = sorted({axis for operator in exact for order in operator for axis in order})
    frame = [units[axis] for axis in kept]
    along: list[dict[Order, ArrayLike]] = [
        {tuple(map(kept.index, order)): c for order, c in operator.items()} for operator in exact
    ]
    for operator, axes, found in zip(operators, many, along, strict=True):
        if axes:
            rows, orders = directions.second(x, axes, [operator[axis, axis] for axis in axes])
            found |= {(i + len(frame), j + len(frame)): c for (i, j), c in orders.items()}
            frame += list(rows)
    asked = [operator for operator in along if operator]
    values = iter(_exact(u, x, asked, jnp.stack(frame)))
    wanted = any(map(is_slope, chain(*operators)))
    slopes: Any = jax.jacrev(u.apply)(x) if wanted else None

    def total(operator: Operator, found: Operator) -> Any:
        terms = [next(values)] if found else []
        steep = {order[0]: c for order, c in operator.items() if is_slope(order)}
        if steep:
            factors = jnp.stack([jnp.asarray(c, x.dtype) for c in steep.values()])
            terms.append(jnp.sum(factors * slopes[:, jnp.array(list(steep))], axis=-1))
        return sum(terms)

    return tuple(map(total, operators, along))


def _derivatives(u: Function, orders: frozenset[Order], x: Array) -> dict[Order, Array]:
    """Returns at least the derivatives of these orders, by nested forward mode."""
    values: dict[Order, Array] = {}
    for axis in range(len(x)):
        lower = frozenset(order[:-1] for order in orders if order[-1:] == (axis,))
        if lower:
            unit = jnp.zeros_like(x).at[axis].set(1)
            primal, tangent = jax.jvp(partial(_derivatives, u, lower), (x,), (unit,))
            values |= primal | {(*order, axis): value for order, value in tangent.items()}
    return values if values or () not in orders else {(): u(x)}
