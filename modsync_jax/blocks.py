"""Sums over points, block by block, so that memory holds one block at a time.

The value and the gradient of a block are computed together and added to the sums. The backward pass
only scales the gradient: no activation is stored, and none is computed twice.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

PyTree = Any
Sum = Callable[[PyTree, PyTree], Array]
"""A function from parameters and points, arrays `[N, ...]`, to a sum over the points."""

_FASTEST = {"cpu": 2048}  # of 512 to 16,384, at 3×50, 5×128 and 5×512
_IN_MANY_DIMENSIONS = {"cpu": 256}  # of 64 to 2048, at 4×128 and 50 coordinates
_ELSEWHERE = 2**16  # not measured: enough work for a large device, about 1 GB at 5×128


def default_size(coordinates: int = 2) -> int:
    """Returns the default number of points in a block: on CPUs, the fastest one measured.

    Args:
      coordinates: the number of coordinates of a point; many of them have many derivatives.
    """
    fastest = _FASTEST if coordinates <= 4 else _IN_MANY_DIMENSIONS
    return fastest.get(jax.default_backend(), _ELSEWHERE)


def summed(function: Sum, size: int) -> Sum:
    """Returns `function`, computed in blocks where there are more points than `size`.

    The result can be differentiated, in forward and reverse mode and repeatedly, with respect to
    the parameters and the arrays that `function` closes over. Blocks are equal where their number
    divides N; else the last one is smaller. Under `jax.shard_map` it needs `check_vma=False`: sums
    start from zeros that vary over no axis.

    Args:
      function: from parameters and points, a pytree of arrays whose leading axis is any number of
        points, to a scalar that is a sum over the points.
      size: points in a block, at least 1.

    Returns:
      A function of the same arguments and, up to rounding, the same values.

    Raises:
      ValueError: a size below 1.
      TypeError: when it is differentiated with respect to the points of several blocks.
    """
    if size < 1:
        raise ValueError(f"a block needs at least 1 point, got size={size}")

    def in_blocks(params: PyTree, points: PyTree) -> Array:
        count = len(jax.tree.leaves(points)[0])
        if count <= size:
            return function(params, points)
        some = -(-count // size)
        each = size if count % some else count // some  # equal blocks need no second program
        whole = count - count % each
        blocks = jax.tree.map(lambda x: x[:whole].reshape(-1, each, *x.shape[1:]), points)
        total = _scanned(function, params, blocks)
        if whole < count:
            total += function(params, jax.tree.map(lambda x: x[whole:], points))
        return total

    return in_blocks


def _scanned(function: Sum, params: PyTree, blocks: PyTree) -> Array:
    """Returns the sum over blocks, arrays `[C, size, ...]`."""
    # Tracers that `function` closes over become arguments, because they may not escape the rule.
    one = jax.tree.map(lambda x: x[0], blocks)
    pure, closed_over = jax.closure_convert(function, params, one)

    def of_block(arguments: PyTree, block: PyTree) -> Array:
        params, closed_over = arguments
        return pure(params, block, *closed_over)

    total = jax.custom_jvp(partial(_accumulate, of_block))

    def rule(primals: tuple[PyTree, PyTree], tangents: tuple[PyTree, PyTree]) -> tuple:
        by_arguments, by_points = map(jax.tree.leaves, tangents)
        if not all(isinstance(tangent, SymbolicZero) for tangent in by_points):
            raise TypeError("a sum in blocks has no derivative by its points; use larger blocks")
        value, gradient = _accumulate(jax.value_and_grad(of_block), *primals)
        pairs = zip(jax.tree.leaves(gradient), by_arguments, strict=True)
        # Elementwise products, because a platform may lower the precision of `vdot`.
        return value, sum(jnp.sum(g * t) for g, t in pairs if not isinstance(t, SymbolicZero))

    total.defjvp(rule, symbolic_zeros=True)
    return total((params, closed_over), blocks)


def _accumulate(function: Callable[[PyTree, PyTree], PyTree], params: PyTree, xs: PyTree) -> PyTree:
    """Returns the sum of `function(params, x)`, a pytree of arrays, over the rows x of `xs`."""

    def add(total: PyTree, x: PyTree) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, function(params, x)), None

    shapes = jax.eval_shape(function, params, jax.tree.map(lambda x: x[0], xs))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, zeros, xs)[0]
