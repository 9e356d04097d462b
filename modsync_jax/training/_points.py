"""Points that know the field: drawn where the residual is large."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

POOL = 8  # candidates for each point that is chosen


def adapted(
    key: Array,
    residuals: Callable[[Array], dict[str, Array]],
    candidates: Array,
    count: int,
    power: float,
    block_points: int,
) -> Array:
    """Chooses candidates at random, without replacement, where residuals are large (RAD).

    The density is proportional to `|r|^k / mean |r|^k + 1`, with `|r|` the norm of all residuals at
    a point and k the power.

    Args:
      key: a PRNG key.
      residuals: from points `[n, d]` to residuals `[n]` by name.
      candidates: `[N, d]`, drawn from the whole domain.
      count: the number of points to choose, N at most.
      power: k.
      block_points: candidates whose residuals are computed at once.

    Returns:
      `[count, d]`.

    References:
      Wu, Zhu, Tan, Kartha & Lu, Computer Methods in Applied Mechanics and Engineering 403, 2023:
      RAD with c = 1.
    """

    def size(point: Array) -> Array:
        found = residuals(point[None])
        return jnp.sqrt(sum(jnp.sum(jnp.square(r)) for r in found.values()))

    raised = jax.lax.map(size, candidates, batch_size=block_points) ** power
    raised = jnp.where(jnp.isfinite(raised), raised, 0.0)
    mean = raised.mean()
    density = raised / jnp.where(mean > 0, mean, 1.0) + 1.0
    # The largest of logarithms plus Gumbel noise are a draw without replacement.
    scores = jnp.log(density) + jax.random.gumbel(key, density.shape, density.dtype)
    return candidates[jax.lax.top_k(scores, count)[1]]
