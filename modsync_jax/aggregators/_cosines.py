"""Shared parts of the weightings: cosines and norms of a Gramian, and safe arithmetic."""

import jax.numpy as jnp
from jax import Array


def cosines(gramian: Array) -> tuple[Array, Array]:
    """Cosine matrix and norms of the gradients behind a Gramian.

    With these two instead of the Gramian, the condition is that of the cosines, and the scale of
    each gradient is a single factor. Norms between 1e-15 and 1e15 are safe in float32.

    Args:
      gramian: `[K, K]`.

    Returns:
      `C` [K, K], with unit diagonal except that a zero gradient has a zero row and column, and the
      norms [K].
    """
    norms = jnp.sqrt(jnp.diagonal(gramian))
    inverse = reciprocal(norms)
    matrix = jnp.clip(gramian * inverse[:, None] * inverse[None, :], -1.0, 1.0)
    unit = jnp.where(norms > 0, 1.0, 0.0).astype(gramian.dtype)
    return jnp.where(jnp.eye(len(norms), dtype=bool), unit, matrix), norms


def reciprocal(x: Array) -> Array:
    """`1 / x`, and 0 where x is 0."""
    return jnp.where(x == 0, 0.0, 1.0 / jnp.where(x == 0, 1.0, x))


def times(matrix: Array, vector: Array) -> Array:
    """Products `[..., N]` of matrices `[..., N, K]` and vectors `[..., K]`, in full precision."""
    return jnp.einsum("...nk,...k->...n", matrix, vector, precision="highest")


def cutoff(matrix: Array) -> float:
    """The eigenvalue up to which a K×K cosine matrix counts as singular: `8 K eps`.

    K is the largest eigenvalue that a cosine matrix can have; 8 covers the Gramian's own rounding.
    """
    return 8.0 * matrix.shape[0] * float(jnp.finfo(matrix.dtype).eps)
