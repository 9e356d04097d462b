"""Derivatives of a field with respect to its coordinates, at one point.

A residual asks for everything that it needs in one call, `partials(u, x, "", "t", "x", "xx")`, and
does not know how it is computed: by nested forward mode, the fastest plain way for the low orders
of a PDE, or by what the field's network offers. Map over points with `jax.vmap`.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from modsync_jax._names import unknown

Order = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Field:
    """A function of space and time, with the names of its coordinates.

    Attributes:
      apply: the function, from a point `[d]` to values `[m]`.
      coordinates: one letter for each entry of a point, such as `("t", "x")`.
      derivatives: a faster way to what `partials` does, if there is one: from a point `[d]` and
        orders, tuples of ascending axes such as `()`, `(0,)`, `(1, 1)`, to values `[m]` by order,
        or None where it does not know one of them.
    """

    apply: Callable[[Array], Array]
    coordinates: tuple[str, ...]
    derivatives: Callable[[Array, Collection[Order]], dict[Order, Array] | None] | None = None

    def __call__(self, x: Array) -> Array:
        """Returns the values `[m]` at the point `x` of shape `[d]`."""
        return self.apply(x)


Function = Field | Callable[[Array], Array]


def partials(
    u: Function, x: Array, *names: str, coordinates: Sequence[str] | None = None
) -> tuple[Array, ...]:
    """Returns partial derivatives of `u` at the point `x`, in the order asked.

    Lower orders come with the higher ones: `""`, `"x"` and `"xx"` are one nested `jax.jvp`.

    Args:
      u: a field, or a function from a point `[d]` to values `[m]`.
      x: one point, `[d]`.
      *names: derivatives as strings of coordinate letters: `""` for the value, `"t"`, `"xx"`,
        `"tx"` (the same as `"xt"`), of any order.
      coordinates: the coordinate letters of a plain function; a `Field` knows its own.

    Returns:
      A tuple with one array `[m]` for each name.

    Raises:
      ValueError: a letter that is no coordinate, a point of another shape than `[d]`, or a function
        without coordinates.

    Example:
      >>> u = Field(lambda p: p[:1] * p[1:] ** 2, ("t", "x"))
      >>> u_x, u_xx = partials(u, jnp.array([2.0, 3.0]), "x", "xx")
      >>> print(u_x, u_xx)
      [12.] [4.]
    """
    axes = _coordinates(u, x, coordinates)
    for letter in "".join(names):
        if letter not in axes:
            raise unknown("coordinate", letter, axes)
    orders = [tuple(sorted(map(axes.index, name))) for name in names]
    values = u.derivatives(x, set(orders)) if isinstance(u, Field) and u.derivatives else None
    if values is None:
        values = _derivatives(u, frozenset(orders), x)
    return tuple(values[order] for order in orders)


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
      over: the letters of the coordinates to sum over, such as `"xy"`; all of them by default.
      coordinates: as in `partials`, whose errors are raised.
    """
    axes = _coordinates(u, x, coordinates)
    seconds = partials(u, x, *(2 * letter for letter in over or axes), coordinates=axes)
    return jnp.sum(jnp.stack(seconds), axis=0)


def divergence(
    u: Function, x: Array, over: str | None = None, coordinates: Sequence[str] | None = None
) -> Array:
    """Returns the divergence, a scalar `[]`, of the vector field `u` at the point `x`.

    Args:
      u: a field, or a function from a point `[d]` to values `[m]`, one for each coordinate.
      x: one point, `[d]`.
      over: the letters of the coordinates to which the m values belong; all of them by default.
      coordinates: as in `partials`, whose errors are raised.

    Raises:
      ValueError: the number of values is not the number of coordinates.
    """
    axes = _coordinates(u, x, coordinates)
    letters = tuple(over or axes)
    columns = partials(u, x, *letters, coordinates=axes)
    if columns[0].shape != (len(letters),):
        raise ValueError(
            f"a divergence over {', '.join(letters)} needs a field of shape ({len(letters)},),"
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
