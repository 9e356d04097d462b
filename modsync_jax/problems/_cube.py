"""Problems in many dimensions: a cube, and a solution that is known on all of it."""

from collections.abc import Callable, Mapping
from typing import Any

from jax import Array

from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import whole
from modsync_jax.problems._conditions import value
from modsync_jax.problems._double import in_double
from modsync_jax.sampling import box, numbered


def on_cube(
    dimension: int,
    bounds: tuple[float, float],
    exact: Callable[[Array], Array],
    *,
    given: Mapping[str, str] | None = None,
    coefficients: Mapping[str, float | Array] | None = None,
    **settings: Any,
) -> Problem:
    """Returns a problem on a cube of d dimensions, whose solution is given on the boundary.

    Args:
      dimension: d, the number of coordinates x1, ..., xd.
      bounds: of each of them.
      exact: the solution, from a point, (x1, ..., xd) or (t, x1, ..., xd), to values `[1]`.
      given: where else the solution is given, a face by the condition's name such as
        `{"initial": "t=0"}`; the problem then has the time t in [0, 1].
      coefficients: the problem's coefficients beside its dimension.
      **settings: the name, residual and source of the `Problem`.

    Raises:
      ValueError: a dimension that is no whole number from 1 to 1000.
    """
    dimension = whole("dimension", dimension, 1, 1_000)
    faces = {**(given or {}), "sides": "boundary"}
    time = {"t": (0.0, 1.0)} if given else {}
    return Problem(
        domain=box(**time, **dict.fromkeys(numbered("x", dimension), bounds)),
        conditions={name: value(face, exact) for name, face in faces.items()},
        points={"residual": 1000, **dict.fromkeys(faces, 200)},
        reference=in_double(exact),
        coefficients={"dimension": dimension, **(coefficients or {})},
        **settings,
    )
