"""One objective's loss and gradient, for methods that look at one objective a step."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import Array


def value_and_objective_grad(
    objectives: Mapping[str, Callable[..., Array]],
) -> Callable[..., tuple[Array, Any]]:
    """Returns a function that computes the loss and gradient of one objective, chosen by index.

    The index may be traced: under `jit` and `scan` only that objective runs (`lax.switch`), so a
    step costs about 1/K of `value_and_objective_grads`. Under `vmap` over indices all of them run.

    Args:
      objectives: a mapping from name to a pure function `(params, *args) -> scalar`; K objectives,
        ordered by sorted name.

    Returns:
      `fn(params, index, *args) -> (loss [], grad)`, leaves of `grad` as those of `params`; an index
      out of range counts as the nearest.

    Raises:
      ValueError: when objectives is not a mapping, or empty.
    """
    if not isinstance(objectives, Mapping) or not objectives:
        raise ValueError(
            f"objectives is {type(objectives).__name__}; give a mapping from name to function, "
            "of which one can run without the others"
        )
    branches = [jax.value_and_grad(objectives[name]) for name in sorted(objectives)]

    def value_and_grad(params: Any, index: Array | int, *args: Any) -> tuple[Array, Any]:
        return jax.lax.switch(index, branches, params, *args)

    return value_and_grad
