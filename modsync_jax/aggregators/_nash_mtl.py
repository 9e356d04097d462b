"""Nash-MTL: the bargaining solution."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax.aggregators import _base, _cosines

_MAX_STEPS = 100


def nash_mtl_weights(gramian: Array) -> Array:
    """Weights of Nash-MTL: those that minimise `½ wᵀ G w - sum_k log w_k`, so `w_k (G w)_k = 1`.

    In terms of unit gradients, `x = w n` solves `x_k (C x)_k = 1`: the update never depends on the
    norms, and its own length is always √K. For K = 2 it is `(u_1 + u_2) / √(1 + cos)`. Otherwise
    damped Newton steps solve the equation; they descend from anywhere and converge quadratically.
    Five to ten steps of about 0.02 ms each on a CPU core are enough, or about sixty next to
    Pareto-stationary points. Where gradients are dependent up to `K / (sum x)^2 = 8 K eps`, the
    update is zero. Zero gradients are left out.

    Args:
      gramian: `[K, K]`.

    Returns:
      `[K]`.

    References:
      Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022, Claim 3.1.
    """
    c, n = _cosines.cosines(gramian)
    active = n > 0
    ones = jnp.where(active, 1.0, 0.0).astype(c.dtype)
    limit = jnp.sqrt(ones.sum() / _cosines.cutoff(c))  # of sum x
    eps = float(jnp.finfo(c.dtype).eps)

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        x, error, step = state
        rounding = eps * (x * _cosines.times(jnp.abs(c), x)).max()
        return (error > eps**0.5 + rounding) & (x.sum() < limit) & (step < _MAX_STEPS)

    def newton(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, _, step = state
        hessian = jnp.eye(len(x), dtype=c.dtype) + x[:, None] * c * x
        relative = jnp.linalg.solve(hessian, ones - x * _cosines.times(c, x))
        # A step of this length keeps x positive and descends by half of the slope's forecast.
        length = 1.0 / (1.0 + jnp.maximum(-relative, 0.0).max())
        return x * (1.0 + length * relative), jnp.abs(relative).max(), step + 1

    if len(n) == 2:
        x = ones * jnp.sqrt(_cosines.reciprocal(1.0 + c[0, 1]))
    else:
        start = (ones, jnp.array(jnp.inf, c.dtype), jnp.array(0))
        x = jax.lax.while_loop(unfinished, newton, start)[0]
    return jnp.where(x.sum() < limit, x, 0.0) * _cosines.reciprocal(n)


def nash_mtl(*, groups: _base.Groups = None) -> optax.GradientTransformationExtraArgs:
    """Nash-MTL as a transformation of stacked gradients; see `nash_mtl_weights` for the formula.

    Args:
      groups: parameters that are aggregated separately, as in `from_weights`.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = nash_mtl()
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 2.0]])
      >>> print(tx.update(grads, tx.init(params), params)[0])
      [1. 1.]
    """
    return _base.from_weights(nash_mtl_weights, groups=groups)
