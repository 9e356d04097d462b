"""UPGrad: the mean of the gradients, each projected on the dual cone."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax.aggregators import _base, _cosines, _faces


def upgrad_weights(gramian: Array) -> Array:
    """Weights of UPGrad: `1/K sum_k π(g_k)`.

    π is the projection on the dual cone, the directions that conflict with no gradient: `π(g_k) =
    sum_i v_i g_i`, where v makes that sum shortest subject to `v >= e_k`. It scales with its
    argument, so the K small problems are solved for unit gradients.

    Args:
      gramian: `[K, K]`, K up to 12; cost and accuracy as in `_faces`.

    Returns:
      `[K]`.

    References:
      Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, arXiv:2406.16232, Eq. 5
      and Proposition 1.
    """
    c, n = _cosines.cosines(gramian)
    all_faces = _faces.faces(c)
    added = jax.vmap(lambda column: _faces.minimize(all_faces, c, -column))(c)
    projections = jnp.eye(len(n), dtype=c.dtype) + added  # row k: π(u_k) in terms of unit gradients
    return _cosines.times(projections.T, n) * _cosines.reciprocal(n) / len(n)


def upgrad(*, groups: _base.Groups = None) -> optax.GradientTransformationExtraArgs:
    """UPGrad as a transformation of stacked gradients; see `upgrad_weights` for the formula.

    Args:
      groups: parameters that are aggregated separately, as in `from_weights`.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = upgrad()
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[2.0, 0.0], [-2.0, 2.0]])
      >>> update, _ = tx.update(grads, tx.init(params), params)
      >>> print([round(x, 3) for x in update.tolist()])
      [0.5, 1.5]
    """
    return _base.from_weights(upgrad_weights, groups=groups)
