"""What every problem does with the coefficients that it is made with."""

import jax
from jax import Array


def coefficient(
    name: str, value: float | Array, low: float = float("-inf"), high: float = float("inf")
) -> float | Array:
    """Returns a coefficient as a float, which takes the dtype of what it meets; tracers pass.

    So one problem serves points of every dtype, and its reference computes in float64.

    Args:
      name: the coefficient's name.
      value: a number `[]`, or a tracer that stands for one.
      low: the smallest value for which problem and reference hold.
      high: the largest one.

    Raises:
      ValueError: a number outside [low, high].
    """
    if isinstance(value, jax.core.Tracer):
        return value
    value = float(value)
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must be between {low:g} and {high:g}")
    return value
