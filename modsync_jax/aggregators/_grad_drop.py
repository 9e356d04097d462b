"""GradDrop: gradient sign dropout."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax.aggregators import _base


def _dropped(part: _base.Part, *, key: Array) -> _base.Part:
    def drop(leaf: Array, key: Array) -> Array:
        g = leaf.astype(jnp.result_type(leaf, jnp.float32))
        # Row by row, because XLA's CPU code for sums over a leading axis is twenty times slower.
        up, down = sum(jnp.maximum(row, 0.0) for row in g), sum(jnp.minimum(row, 0.0) for row in g)
        draw = jax.random.uniform(key, g.shape[1:], g.dtype)
        return jnp.where(draw * (up - down) < up, up, down)

    keys = jax.random.split(key, len(part))
    return {i: drop(g, k).astype(g.dtype) for (i, g), k in zip(part.items(), keys, strict=True)}


def grad_drop(*, key: Array | None = None) -> optax.GradientTransformationExtraArgs:
    """GradDrop as a transformation of stacked gradients.

    In each coordinate one sign is kept, and the entries of that sign are summed. The positive sign
    is kept with the probability `½ (1 + sum_k g_k / sum_k |g_k|)`, the coordinate's purity.
    Coordinates are independent, so the method needs the gradients instead of their Gramian and has
    no groups. It draws one random number per parameter.

    Args:
      key: PRNG key, `jax.random.key(0)` if None, split every update. The extra argument `key` of
        `update` replaces it.

    References:
      Chen et al., Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout,
      NeurIPS 2020, Algorithm 1, on the gradients of the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = grad_drop()
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[1.0, -2.0], [2.0, -2.0]])
      >>> print(tx.update(grads, tx.init(params), params)[0])
      [ 3. -4.]
    """
    return _base.from_stack(_dropped, key=jax.random.key(0) if key is None else key)
