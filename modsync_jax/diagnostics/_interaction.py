"""How many samples of one loss feel the gradient of another one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from modsync_jax import gradients
from modsync_jax.diagnostics._snapshot import Snapshot

PyTree = Any
EPSILON = 1e-12  # of the paper


def interactions(samples: Callable[[PyTree], Array], weights: PyTree, direction: PyTree) -> Array:
    """The products `∇l_i · v` of the gradients of single samples' losses with a direction.

    They are one directional derivative of all losses at once, so that no gradient of a single
    sample is computed.

    Args:
      samples: from weights to losses `[N]`.
      weights: a pytree.
      direction: v, in the structure of the weights, such as another objective's gradient.

    Returns:
      `[N]`.
    """
    return jax.jvp(samples, (weights,), (direction,))[1]


def interaction_cosines(
    samples: Callable[[PyTree, PyTree], Array],
    points: PyTree,
    weights: PyTree,
    direction: PyTree,
    *,
    chunk: int = 16,
) -> Array:
    """The cosines of the gradients of single samples' losses with a direction, `[N]`.

    Norms need the gradient of each sample, `chunk` of them at once: this costs far more than
    `interactions`.

    Args:
      samples: from weights and N points to losses `[N]`, each of its own point.
      points: a pytree of arrays `[N, ...]`.
      weights: a pytree.
      direction: in the structure of the weights.
      chunk: the number of gradients that are held at once.
    """

    def squared(point: PyTree) -> Array:
        one = jax.tree.map(lambda x: x[None], point)
        grads = jax.grad(lambda w: samples(w, one)[0])(weights)
        return sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads))  # type: ignore[return-value]

    lengths = jnp.sqrt(jax.lax.map(squared, points, batch_size=chunk))
    stacked = jax.tree.map(lambda d: d[None], direction)
    lengths *= jnp.sqrt(gradients.gramian(stacked)[0, 0])
    products = interactions(lambda w: samples(w, points), weights, direction)
    return jnp.where(lengths > 0, products / jnp.where(lengths > 0, lengths, 1.0), 0.0)


def interaction(seen: Snapshot, epsilon: float = EPSILON) -> dict[str, Array]:
    """`interaction/a>b`: the share of samples of a with `|∇l_i · ∇L_b| > ε`, for all a and b ≠ a.

    The figure depends on ε and on the losses' scale: in float32 rounding alone exceeds 1e-12.

    Args:
      seen: a snapshot with `samples`.
      epsilon: ε.

    Raises:
      ValueError: on a snapshot without `samples`.

    References:
      ModSync, arXiv:2606.20156, Fig. 3.
    """
    if not seen.samples:
        raise ValueError("interaction needs the losses of single samples: give Snapshot(samples=)")
    row = {}
    for name in seen.names:
        for k, other in enumerate(seen.names):
            if other != name:
                direction = jax.tree.map(lambda g, k=k: g[k], seen.grads)
                products = interactions(seen.samples[name], seen.weights, direction)
                share = jnp.mean(jnp.abs(products) > epsilon, dtype=products.dtype)
                row[f"interaction/{name}>{other}"] = share
    return row
