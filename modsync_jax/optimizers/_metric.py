"""The metric of an optimiser, for measures of gradients in it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from modsync_jax.optimizers._self_scaled import SelfScaledState
from modsync_jax.optimizers._soap import SoapState, rotated

PyTree = Any
_EPS = 1e-12


def metric(state: optax.OptState, params: PyTree) -> Callable[[PyTree], PyTree] | None:
    """The matrix by which an optimiser turns a gradient into a step, up to a factor.

    It is `1 / √v` for Adam, with the average v of squared gradients; the same between rotations for
    SOAP; and the inverse Hessian for quasi-Newton methods. Momentum is left out.

    Args:
      state: any optimiser's state.
      params: the parameters that it moves.

    Returns:
      A function from stacked gradients to the stack of their products with the matrix, which is 1
      before the first step; None for an optimiser without one.
    """
    for part in jax.tree.leaves(state, is_leaf=_has_metric):
        if isinstance(part, SelfScaledState):
            return jax.vmap(partial(_times, part.inverse_hessian))
        if _has_metric(part) and _shapes(part.nu) == _shapes(params):
            return jax.vmap(partial(_scaled, part))
    return None


def _has_metric(part: Any) -> bool:
    return isinstance(part, optax.ScaleByAdamState | SoapState | SelfScaledState)


def _shapes(tree: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [jnp.shape(leaf) for leaf in leaves]


def _scaled(state: Any, grad: PyTree) -> PyTree:
    """A gradient over the root of the average of its squares, entry by entry."""
    turns = isinstance(state, SoapState)
    turned = rotated(grad, state.bases) if turns else grad
    scaled = jax.tree.map(lambda g, v: g / (jnp.sqrt(v) + _EPS), turned, state.nu)
    found = rotated(scaled, state.bases, back=True) if turns else scaled
    return jax.tree.map(lambda new, g: jnp.where(state.count > 0, new, g), found, grad)


def _times(matrix: Array, grad: PyTree) -> PyTree:
    flat, unravel = ravel_pytree(grad)
    return unravel(jnp.matmul(matrix, flat, precision="highest"))
