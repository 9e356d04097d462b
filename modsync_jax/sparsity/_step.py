"""The step function of dynamic sparse training, with a derivative that trains."""

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_jvp
def long_tailed_step(q: Array) -> Array:
    """The unit step, 1 where `q > 0` and 0 elsewhere, with the long-tailed estimator as derivative.

    In both modes, `dS/dq = 2 - 4|q|` for `|q| <= 0.4`, `0.4` for `0.4 < |q| <= 1`, and 0 beyond.

    Args:
      q: floating point, any shape.

    Returns:
      0 or 1 in the shape and dtype of `q`.

    References:
      Liu et al., Dynamic Sparse Training, ICLR 2020, Eq. 6; ModSync, arXiv:2606.20156, Eq. 6.
    """
    return (q > 0).astype(q.dtype)


@long_tailed_step.defjvp
def _derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (q,), (tangent,) = primals, tangents
    distance = jnp.abs(q)
    slope = jnp.where(distance <= 0.4, 2.0 - 4.0 * distance, 0.4)
    return long_tailed_step(q), jnp.where(distance <= 1.0, slope, 0.0) * tangent
