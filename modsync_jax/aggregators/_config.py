"""ConFIG: the conflict-free inverse gradient."""

import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax.aggregators import _base, _cosines, _dcgd


def config_weights(gramian: Array) -> Array:
    """Weights of ConFIG.

    With unit gradients u_k, cosine matrix C and norms n_k, the direction is d = sum_k a_k u_k, a =
    C⁺ 1 (the least-squares direction of equal cosine to all gradients), and the update (sum_k <g_k,
    d̂>) d̂. Zero gradients count as zero rows; d = 0 gives zero. Eigenvalues of C below 8 K eps are
    cut off, and so are the components of 1 along their eigenvectors. When gradients are dependent,
    a direction of equal cosines may not exist. For K > 2 the least-squares direction may then
    conflict with some gradients.

    For K = 2 the update is that of `dcgd_weights`, in closed form.

    Args:
      gramian: `[K, K]`.

    Returns:
      `[K]`.

    References:
      Liu, Chu and Thuerey, ConFIG: Towards Conflict-free Training of Physics Informed Neural
      Networks, ICLR 2025, Eq. 2-4.
    """
    if gramian.shape[0] == 2:
        return _dcgd.dcgd_weights(gramian)
    c, n = _cosines.cosines(gramian)
    a, reached, squared = equal_cosines(c)
    return (n * reached).sum() * _cosines.reciprocal(squared) * a * _cosines.reciprocal(n)


def equal_cosines(c: Array) -> tuple[Array, Array, Array]:
    """The least-squares direction `d = sum_k a_k u_k` with `<u_k, d> = 1` for all k.

    Args:
      c: the cosines of the u, `[K, K]`.

    Returns:
      `a = C⁺ 1` [K], the products `<u_k, d>` [K] that it reaches, and `||d||^2`.
    """
    values, vectors = jnp.linalg.eigh(c)
    ones = vectors.sum(0)  # the vector of ones in the eigenbasis
    # A component of ones that is only rounding must not set the direction: d would be noise.
    kept = (values > _cosines.cutoff(c)) & (jnp.abs(ones) > _cosines.cutoff(c))
    inverted = jnp.where(kept, ones / jnp.where(kept, values, 1.0), 0.0)
    reached = _cosines.times(vectors, jnp.where(kept, ones, 0.0))  # C a
    return _cosines.times(vectors, inverted), reached, (ones * inverted).sum()


def config(*, groups: _base.Groups = None) -> optax.GradientTransformationExtraArgs:
    """ConFIG as a transformation of stacked gradients; see `config_weights` for the formula.

    Args:
      groups: parameters that are aggregated separately, as in `from_weights`.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = config()
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> print(tx.update(grads, tx.init(params), params)[0])
      [1. 1.]
    """
    return _base.from_weights(config_weights, groups=groups)
