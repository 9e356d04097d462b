"""Groups of objectives whose gradients are summed before they are aggregated."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array

Partition = Sequence[Sequence[int]]


def of_sums(weights_fn: Callable[[Array], Array], partition: Partition) -> Callable[[Array], Array]:
    """A weighting of K gradients from a weighting of their sums over groups of objectives.

    With A [groups, K], 1 where an objective is in a group, the sums have the Gramian `A G Aᵀ`.
    """

    def weights(gramian: Array) -> Array:
        count = len(gramian)
        if sorted(k for group in partition for k in group) != list(range(count)):
            raise ValueError(
                f"partition={partition!r} must hold each index of the {count} objectives, 0 to "
                f"{count - 1} by sorted name, once"
            )
        rows = [[k in group for k in range(count)] for group in partition]
        a = jnp.array(rows, gramian.dtype)
        summed = jnp.einsum("ik,kl,jl->ij", a, gramian, a, precision="highest")
        return (a * weights_fn(summed)[:, None]).sum(0)

    return weights
