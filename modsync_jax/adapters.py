"""Low-rank adapters of single losses beside a shared network."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax import gradients
from modsync_jax._ranges import check_range
from modsync_jax.loss_indexed import Kind

PyTree = Any


def low_rank(
    rank: int = 4,
    *,
    optimizer: optax.GradientTransformation | None = None,
    select: Callable[[str, Array], bool] | None = None,
) -> Kind:
    """One pair of factors per objective and kernel: the network has `W + Σ_k A_k B_k`.

    All objectives see the same network, but objective k moves A_k and B_k alone, and the shared W
    follows all of them. B starts as zeros, so that the first network is that of W; A starts normal
    with variance 1 / inputs. `kind.export` folds the pairs into plain weights.

    Args:
      rank: r, 1 or more.
      optimizer: from the factors' gradients to their updates; `optax.adam(1e-3)` if None.
      select: predicate `(path, leaf) -> bool` of the kernels that get pairs. Default: all
        floating-point leaves of two axes.

    Returns:
      A kind of loss-indexed parameters, for `modsync_jax.loss_indexed`. For each kernel `[n, m]`
      the own parameters are a dictionary of `a` `[K, n, r]` and `b` `[K, r, m]`, in its dtype.

    Raises:
      ValueError: on a rank below 1; when parameters start, if `select` matches no leaf, or one
        without two axes.

    References:
      Kim & N'guessan, "Per-Loss Adapters for Gradient Conflict in Physics-Informed Neural
      Networks", arXiv:2605.10136; Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models",
      ICLR 2022, for the factors and their start.
    """
    check_range("rank", rank, 1, float("inf"))
    choose = select or (lambda _, leaf: leaf.ndim == 2)

    def start(weights: PyTree, num_objectives: int, key: Array) -> PyTree:
        def pair(name: str, leaf: Array, key: Array) -> dict[str, Array] | None:
            if not jnp.issubdtype(leaf.dtype, jnp.floating) or not choose(name, leaf):
                return None
            if leaf.ndim != 2:
                raise ValueError(
                    f"{name} has {leaf.ndim} axes, and adapters are for kernels of two; leave it "
                    "out with select"
                )
            n, m = leaf.shape
            a = jax.random.normal(key, (num_objectives, n, rank), leaf.dtype) / n**0.5
            return {"a": a, "b": jnp.zeros((num_objectives, rank, m), leaf.dtype)}

        leaves, tree = jax.tree.flatten_with_path(weights)
        names = [gradients.path_name(path) for path, _ in leaves]
        keys = jax.random.split(key, len(leaves))
        found = [pair(n, w, k) for n, (_, w), k in zip(names, leaves, keys, strict=True)]
        if not any(found):
            raise ValueError(
                "no parameter gets adapters; select must match a floating-point leaf of two axes "
                f"of: {', '.join(names)}"
            )
        return jax.tree.unflatten(tree, found)

    def added(weights: PyTree, own: PyTree, product: Callable[[Array, Array], Array]) -> PyTree:
        def one(weight: Array, pair: dict[str, Array] | None) -> Array:
            return weight if pair is None else weight + product(pair["a"], pair["b"])

        return jax.tree.map(one, weights, own)

    def act(weights: PyTree, own: PyTree) -> PyTree:
        return added(weights, own, _sum)

    def act_for(weights: PyTree, own: PyTree, objective: int) -> PyTree:
        def product(a: Array, b: Array) -> Array:
            others = jnp.arange(len(a)) != objective
            held = [jnp.where(others[:, None, None], jax.lax.stop_gradient(x), x) for x in (a, b)]
            return _sum(*held)

        return added(weights, own, product)

    return Kind(
        start=start,
        act=act,
        tx=optimizer or optax.adam(1e-3),
        act_for=act_for,
        describe=_described,
    )


def _sum(a: Array, b: Array) -> Array:
    """`Σ_k A_k B_k`, `[n, m]`, as one product of `[n, K r]` and `[K r, m]`."""
    count, n, rank = a.shape
    across = a.transpose(1, 0, 2).reshape(n, count * rank)
    return jnp.matmul(across, b.reshape(count * rank, -1), precision="highest")


def _described(weights: PyTree, own: PyTree, names: Sequence[str]) -> dict[str, Array]:
    """Each objective's share `|A_k B_k| / |W|` of each kernel, by Frobenius norms."""
    row = {}

    def one(path: tuple[Any, ...], weight: Array, pair: dict[str, Array] | None) -> None:
        if pair is not None:
            norms = jnp.linalg.norm(pair["a"] @ pair["b"], axis=(1, 2)) / jnp.linalg.norm(weight)
            for name, norm in zip(names, norms, strict=True):
                row[f"adapter/{name}/{gradients.path_name(path)}"] = norm

    jax.tree.map_with_path(one, weights, own)
    return row
