"""Points that know the field: where they are drawn, which ones stay, and how much they count."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

POOL = 8  # candidates for each point that is chosen
SLICES = 32  # of time, for causal weights

Residuals = Callable[[Array], dict[str, Array]]


def sizes(residuals: Residuals, points: Array, block_points: int) -> Array:
    """The norm of all residuals at each point, `[N]`; 0 where it is not finite.

    Args:
      residuals: from points `[n, d]` to residuals `[n]` by name.
      points: `[N, d]`.
      block_points: points whose residuals are computed at once.
    """

    def size(point: Array) -> Array:
        found = residuals(point[None])
        return jnp.sqrt(sum(jnp.sum(jnp.square(r)) for r in found.values()))

    found = jax.lax.map(size, points, batch_size=block_points)
    return jnp.where(jnp.isfinite(found), found, 0.0)


def adapted(key: Array, sizes: Array, candidates: Array, count: int, power: float) -> Array:
    """Chooses candidates at random, without replacement, where residuals are large (RAD).

    The density is proportional to `|r|^k / mean |r|^k + 1`, with `|r|` the norm of all residuals at
    a point and k the power.

    Args:
      key: a PRNG key.
      sizes: |r| at the candidates, `[N]`.
      candidates: `[N, d]`, drawn from the whole domain.
      count: the number of points to choose, N at most.
      power: k.

    Returns:
      `[count, d]`.

    References:
      Wu, Zhu, Tan, Kartha & Lu, Computer Methods in Applied Mechanics and Engineering 403, 2023:
      RAD with c = 1.
    """
    raised = sizes**power
    raised = jnp.where(jnp.isfinite(raised), raised, 0.0)
    mean = raised.mean()
    density = raised / jnp.where(mean > 0, mean, 1.0) + 1.0
    # The largest of logarithms plus Gumbel noise are a draw without replacement.
    scores = jnp.log(density) + jax.random.gumbel(key, density.shape, density.dtype)
    return candidates[jax.lax.top_k(scores, count)[1]]


def retained(sizes: Array, share: float) -> Array:
    """Which points stay at the next draw: those where the residual is large (R3), `[N]`.

    Args:
      sizes: |r| at the points, `[N]`.
      share: large is above this many times the mean; 1 in the paper.

    References:
      Daw, Bu, Wang, Perdikaris & Karpatne, ICML 2023: retain, resample, release.
    """
    return sizes > share * sizes.mean()


def causal(times: Array, sizes: Array, strength: float) -> Array:
    """Weights under which a slice of time counts once the slices before it are solved, `[N]`.

    A point in slice i of `SLICES` equal ones counts `exp(-ε Σ_{j<i} L_j)`, with the mean L_j of
    `|r|²` in slice j and the strength ε.

    Args:
      times: `[N]`; the first and the last of them bound the slices.
      sizes: |r| at the points, `[N]`.
      strength: ε.

    References:
      Wang, Sankaran & Perdikaris, "Respecting causality is all you need for training
      physics-informed neural networks", arXiv:2203.07404.
    """
    first, last = times.min(), times.max()
    length = jnp.where(last > first, last - first, 1.0)
    slices = jnp.clip((times - first) / length * SLICES, 0, SLICES - 1).astype(jnp.int32)
    sums = jax.ops.segment_sum(jnp.square(sizes), slices, SLICES)
    counts = jax.ops.segment_sum(jnp.ones_like(sizes), slices, SLICES)
    losses = sums / jnp.maximum(counts, 1.0)
    return jnp.exp(-strength * (jnp.cumsum(losses) - losses))[slices]


def attention(sizes: Array, draws: Array, flatness: float) -> Array:
    """Weights of points that follow the residual (vRBA with the exponential potential), `[N]`.

    A point counts λ², as in the loss `mean (λ r)²`, with λ proportional to `exp(|r| / ε)` and
    `ε = c max |r| / log(n + 2)`: weights become sharper from draw to draw. Their mean is 1, so that
    they change the shape of the loss and not its scale. The paper averages λ over steps on points
    that stay for the whole run; these are drawn anew and have no past.

    Args:
      sizes: |r| at the points, `[N]`.
      draws: the number n of draws of points before this one, `[]`.
      flatness: c, above 0.

    References:
      Toscano, Chen, Oommen & Karniadakis, "A Variational Framework for Residual-Based Adaptivity in
      Neural PDE Solvers and Operator Learning", arXiv:2509.14198.
    """
    largest = sizes.max()
    share = sizes / jnp.where(largest > 0, largest, 1.0)  # at most 1, so that nothing overflows
    weights = jnp.exp(2 * jnp.log(draws + 2.0) / flatness * (share - 1.0))
    return weights / weights.mean()
