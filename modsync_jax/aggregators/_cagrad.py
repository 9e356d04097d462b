"""CAGrad: conflict-averse gradient descent."""

import functools

import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax._ranges import check_range
from modsync_jax.aggregators import _base, _cosines, _faces


def cagrad_weights(gramian: Array, c: float | Array = 0.5, rescale: bool = False) -> Array:
    """Weights of CAGrad: the best direction for the worst objective, near the mean gradient.

    The update d maximises `min_k <g_k, d>` over `||d - g_0|| <= c ||g_0||`, g_0 the mean. With g_w
    the point of the gradients' convex hull that minimises `<g_w, g_0> + c ||g_0|| ||g_w||`, it is
    `g_0 + c ||g_0|| g_w / ||g_w||`. It is g_0 where g_w = 0, and where g_0 is shorter than √(8 K
    eps) of the longest gradient. On a face of the hull all `<g_k, d>` are equal, and the step has a
    closed form.

    Args:
      gramian: `[K, K]`, K up to 12; cost and accuracy as in `_faces`.
      c: radius around the mean gradient, in its norm; not negative.
      rescale: whether the update is divided by `1 + c`.

    Returns:
      `[K]`.

    References:
      Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021, Eq. 4 and
      Algorithm 1.
    """
    cosines, n = _cosines.cosines(gramian)
    largest = n.max()
    mean = n * _cosines.reciprocal(largest) / len(n)
    along = _cosines.times(cosines, mean)  # <u_k, g_0>
    squared = (mean * along).sum()
    radius = c * jnp.sqrt(jnp.where(squared > _cosines.cutoff(cosines), squared, 0.0))
    faces = _faces.faces(cosines)
    # The shared value divided by each norm, in units that fit the face: ratios may be 1e20.
    plane = _faces.smallest_over(n)
    unit = jnp.where(faces.members, plane, 0.0).max(-1, keepdims=True)
    plane = plane * _cosines.reciprocal(unit)
    # d - g_0 = sum_k x_k u_k. Its first part, -rest, is the shortest one that makes the values
    # <g_k, d> equal. The second part raises them together, as far as the radius allows.
    rise, level = (_cosines.times(faces.inverse, b) for b in (plane, along))
    slope = (plane * rise).sum(-1)
    shared = ((plane * level).sum(-1) * _cosines.reciprocal(slope))[:, None]
    rest = level - shared * rise
    left = radius**2 - ((along - shared * plane) * rest).sum(-1)
    raised = jnp.sqrt(jnp.maximum(left, 0.0) * _cosines.reciprocal(slope))[:, None]
    faces = faces._replace(regular=faces.regular & (slope > 0))
    x, failure = _faces.optimal(
        faces, cosines, (shared + raised) * plane - along, raised * rise - rest
    )
    # No face is optimal where the hull contains the origin, unless some direction is better.
    x = jnp.where(failure < jnp.sqrt(jnp.finfo(x.dtype).eps), x, 0.0)
    return (1.0 / len(n) + largest * x * _cosines.reciprocal(n)) / (1.0 + c if rescale else 1.0)


def cagrad(
    c: float | Array = 0.5, *, rescale: bool = False, groups: _base.Groups = None
) -> optax.GradientTransformationExtraArgs:
    """CAGrad as a transformation of stacked gradients; see `cagrad_weights` for the formula.

    Args:
      c: radius around the mean gradient, in its norm; not negative. 0 gives the mean; the paper's
        convergence to a minimum of the mean loss holds below 1.
      rescale: whether the update is divided by `1 + c`.
      groups: parameters that are aggregated separately, as in `from_weights`.

    Raises:
      ValueError: on a negative c.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = cagrad(c=0.5)
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[2.0, 0.0], [0.0, 2.0]])
      >>> update, _ = tx.update(grads, tx.init(params), params)
      >>> print([round(x, 3) for x in update.tolist()])
      [1.5, 1.5]
    """
    check_range("c", c, 0.0)
    weights = functools.partial(cagrad_weights, c=c, rescale=rescale)
    return _base.from_weights(weights, groups=groups)
