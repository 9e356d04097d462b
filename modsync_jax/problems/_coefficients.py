"""The conversion and check of a problem's coefficients."""

import jax
from jax import Array

from modsync_jax._ranges import check_range
from modsync_jax.problems._unknowns import Start


def coefficient(
    name: str, value: float | Array, low: float = float("-inf"), high: float = float("inf")
) -> float | Array:
    """Returns a coefficient as a float, which takes the dtype of its operands.

    Tracers pass, and so do values of unknowns, which have learnt the range.

    So one problem serves points of every dtype, and its reference is computed in float64.

    Args:
      name: the coefficient's name.
      value: a number `[]`, or a tracer that stands for one.
      low: the smallest value for which problem and reference are valid.
      high: the largest one.

    Raises:
      ValueError: a number outside [low, high].
    """
    if isinstance(value, jax.core.Tracer):
        return value
    if isinstance(value, Start):
        value.range = (low, high)
        return value
    value = float(value)
    check_range(name, value, low, high)
    return value


def whole(name: str, value: int | float, low: int, high: int) -> int:
    """Returns a coefficient that counts something, such as dimensions.

    It decides shapes, so it can be neither traced nor unknown.

    Args:
      name: the coefficient's name.
      value: a whole number.
      low: the smallest value for which the problem is valid.
      high: the largest one.

    Raises:
      ValueError: any other value.
      TypeError: a tracer.
    """
    if isinstance(value, Start):
        raise ValueError(f"{name} decides shapes and can't be unknown; give a whole number")
    if value != int(value):  # JAX's own error for tracers, a TypeError
        raise ValueError(f"{name} must be a whole number, got {value}")
    check_range(name, value, low, high)
    return int(value)
