"""The sparsity loss: raise thresholds, and pull those of different objectives together."""

import itertools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

PyTree = Any

# Past this exponent R_w and R_s go on linearly. exp(4) = 55 is a strong pull, and Adam's sums of
# squared gradients stay far from overflow, however far apart the thresholds are.
_MAX_EXPONENT = 4.0


def sparsity_loss(
    thresholds: PyTree,
    *,
    beta: float | Array = 0.3,
    granularity: Literal["layer", "unit"] = "layer",
) -> Array:
    """The regulariser of ModSync, `sum_i R_w(t^i) sum_k R_s(t_k^i)` over layers i.

    `R_s(t) = exp(-t)`, summed over units, raises thresholds. `R_w = exp(|t_j - t_k|^2 / beta)`,
    with the mean over pairs of objectives, is large where objectives disagree about connections.
    Beyond an exponent of 4, which for R_s is a threshold below -4, both continue linearly.

    Args:
      thresholds: leaves `[K, 1, ..., out, ..., 1]`, as `init_thresholds` returns them.
      beta: temperature of R_w; `math.inf` gives R_w = 1 (no synchronisation).
      granularity: `"layer"` for one squared distance per layer, summed over its units, `"unit"` for
        one per unit. The paper allows both readings.

    Returns:
      A scalar.

    Raises:
      ValueError: on an unknown granularity, or a beta that is not positive.

    References:
      ModSync, arXiv:2606.20156, Eq. 7-9.
    """
    if granularity not in ("layer", "unit") or (isinstance(beta, int | float) and not beta > 0):
        raise ValueError(f"granularity is 'layer' or 'unit', beta > 0; not {granularity!r}, {beta}")

    def layer(threshold: Array) -> Array:
        rows = threshold.reshape(threshold.shape[0], -1)
        pairs = list(itertools.combinations(range(len(rows)), 2))
        squared = sum((jnp.square(rows[j] - rows[k]) for j, k in pairs), jnp.zeros_like(rows[0]))
        distance = squared / max(len(pairs), 1)
        if granularity == "layer":
            distance = distance.sum()
        return jnp.sum(_guarded_exp(distance / beta) * _guarded_exp(-rows).sum(0))

    return sum(map(layer, jax.tree.leaves(thresholds)), jnp.zeros(()))


def _guarded_exp(x: Array) -> Array:
    inside = jnp.exp(jnp.minimum(x, _MAX_EXPONENT))
    return inside * (1.0 + jnp.maximum(x - _MAX_EXPONENT, 0.0))
