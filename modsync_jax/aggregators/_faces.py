"""Small quadratic problems over non-negative weights, solved on every face at once.

A face is a set of weights that may differ from zero, and the solution of such a problem is the
stationary point of one of its 2^K faces. A training step has few objectives, so the cheapest way is
to invert all principal submatrices together, by K rank-one updates of an array `[2^K, K, K]`. Then
the face that meets the optimality conditions best is taken. This needs no iteration and no stopping
tolerance, and it runs the same few kernels under `jit` and `vmap`.

Faces of dependent gradients, singular up to `cutoff`, are left out, because some face of
independent gradients has the same solution. Where several faces have the solution, any of them may
be taken: the weighted sum of the gradients is the same. Its error is a few `eps` of the longest
gradient times the condition of the cosines on the worst face, which is K over the smallest
eigenvalue. Gradients nearer to dependent than the cut-off get the weights of dependent ones.
Methods documented as never conflicting may then conflict, by less than √(8 K eps) of the norms.
Norms are as in `_cosines`. On a CPU core a whole weighting takes 0.06 ms or less up to K = 5 and
0.6 ms at K = 9; it grows as 2^K K^2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from modsync_jax.aggregators._cosines import cutoff, reciprocal, times

MAX_OBJECTIVES = 12


class Faces(NamedTuple):
    """All faces of the problems of one matrix.

    Attributes:
      members: `[2^K, K]`, which weights may differ from zero.
      inverse: `[2^K, K, K]`, inverses of the principal submatrices, zero beside them.
      regular: `[2^K]`, whether the submatrix can be inverted.
    """

    members: Array
    inverse: Array
    regular: Array


def faces(q: Array) -> Faces:
    """The faces of a symmetric positive semidefinite matrix `[K, K]` with a diagonal near 1.

    Raises:
      ValueError: when K is more than 12.
    """
    count = len(q)
    if count > MAX_OBJECTIVES:
        raise ValueError(
            f"this aggregator looks at all subsets of the objectives and takes up to "
            f"{MAX_OBJECTIVES}, not {count}; sum some of them into one objective"
        )
    indices = jnp.arange(count)
    members = (jnp.arange(2**count)[:, None] >> indices) % 2 == 1

    def sweep(state: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
        # After it, index k is in the inverted block of the tableau, which holds -inverse.
        tableau, regular = state
        unit = (indices == k).astype(q.dtype)
        pivot = tableau[:, k, k]
        fit = pivot > cutoff(q)
        row = tableau[:, k] - unit
        scaled = row / jnp.where(fit, pivot, 1.0)[:, None]
        swept = tableau - row[:, :, None] * scaled[:, None, :] - 2.0 * jnp.outer(unit, unit)
        member = members[:, k]
        return (jnp.where(member[:, None, None], swept, tableau), regular & (fit | ~member)), None

    start = (jnp.broadcast_to(q, (2**count, count, count)), jnp.ones(2**count, bool))
    (tableau, regular), _ = jax.lax.scan(sweep, start, indices)
    inside = members[:, :, None] & members[:, None, :]
    return Faces(members, jnp.where(inside, -tableau, 0.0), regular)


def optimal(all_faces: Faces, q: Array, linear: Array, x: Array) -> tuple[Array, Array]:
    """Returns the optimal one of the stationary points of all faces.

    A point is optimal if `x >= 0` and `q x - linear >= 0`, with equality on the face itself.

    Returns:
      `x` [K], not negative, and the amount by which it violates those conditions.
    """
    slack = times(q, x) - linear
    failure = jnp.where(all_faces.members, jnp.maximum(jnp.abs(slack), -x), -slack).max(-1)
    failure = jnp.where(all_faces.regular, failure, jnp.inf)
    best = jnp.argmin(failure)
    return jnp.maximum(x[best], 0.0), failure[best]


def minimize(all_faces: Faces, q: Array, linear: Array) -> Array:
    """The `x >= 0`, `[K]`, that minimises `x q x / 2 - linear x`, bounded from below."""
    return optimal(all_faces, q, linear, times(all_faces.inverse, linear))[0]


def nearest_to_origin(c: Array, plane: Array) -> Array:
    """The `x >= 0`, `[K]`, with `plane x = 1`, that minimises `x c x`.

    It adds `(plane x - 1)^2` to the minimised function and drops the constraint. The solution is
    the same up to a factor, and the matrix `c + plane planeᵀ` is more often regular.

    Args:
      c: `[K, K]`, positive semidefinite.
      plane: `[K]`, in [0, 1].
    """
    q = c + jnp.outer(plane, plane)
    x = minimize(faces(q), q, plane)
    return x * reciprocal((plane * x).sum())


def smallest_over(norms: Array) -> Array:
    """`[K]`: the smallest nonzero norm divided by each norm; 1 where a norm is zero."""
    smallest = jnp.where(norms > 0, norms, jnp.inf).min()
    return jnp.where(norms > 0, smallest / jnp.where(norms > 0, norms, 1.0), 1.0)
