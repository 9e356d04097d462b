"""Masks that no loss learns, by magnitude and at random: controls for what ModSync gains."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax import loss_indexed, sparsity
from modsync_jax._ranges import check_range

PyTree = Any
Select = Callable[[str, Array], bool]
_MASKS = 1  # the stream of the masks in a key


def by_magnitude(
    keep: float | Array = 0.5,
    steps: int | Array = 5_000,
    *,
    every: int = 100,
    select: Select | None = None,
) -> loss_indexed.Kind:
    """Gradual magnitude pruning: in each kernel, the largest weights are kept.

    The share that is kept falls from 1 to `keep` along a cubic, `keep + (1 - keep)(1 - t / steps)³`
    after t steps, and then stays. Now and then each kernel gets the threshold that leaves this
    share of it. In between, a weight may cross the threshold in both directions. Weights that are
    cut have no gradient.

    Args:
      keep: the final share of each kernel, in [0, 1].
      steps: the steps until then, 1 or more.
      every: the steps between two thresholds.
      select: as in `sparsity.init_thresholds`.

    Returns:
      A kind of parameters beside the weights, for `modsync_jax.loss_indexed`; the own parameters
      are thresholds `[1, 1, ..., 1]` of each kernel, which all objectives share.

    Raises:
      ValueError: on a hyperparameter out of range; when parameters start, as `init_thresholds`.

    References:
      Zhu & Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
      compression", arXiv:1710.01878, Eq. 1.
    """
    check_range("keep", keep, 0.0, 1.0)
    check_range("steps", steps, 1, float("inf"))
    check_range("every", every, 1, float("inf"))

    def start(weights: PyTree, _: int, key: Array) -> PyTree:
        units = sparsity.init_thresholds(weights, 1, select=select)
        return jax.tree.map(lambda leaf: jnp.zeros([1] * leaf.ndim, leaf.dtype), units)

    def kept(weights: PyTree, own: PyTree) -> PyTree:
        return sparsity.masks(*jax.lax.stop_gradient((weights, own)))

    def update_fn(
        updates: PyTree,
        state: Array,
        params: PyTree = None,
        *,
        weights: PyTree,
        moves: PyTree,
        **_: Any,
    ) -> tuple[PyTree, Array]:
        left = 1 - jnp.minimum((state + 1) / steps, 1.0)
        share = keep + (1 - keep) * left**3
        stepped = optax.apply_updates(weights, moves)

        def renewed() -> PyTree:
            return jax.tree.map(
                lambda w, own: None if own is None else jnp.full_like(own, _threshold(w, share)),
                stepped,
                params,
            )

        now = jax.lax.cond((state + 1) % every == 0, renewed, lambda: params)
        return jax.tree.map(jnp.subtract, now, params), state + 1

    return loss_indexed.Kind(
        start=start,
        act=lambda weights, own: _masked(weights, kept(weights, own)),
        tx=optax.GradientTransformationExtraArgs(lambda _: jnp.zeros((), jnp.int32), update_fn),
        kept=kept,
        describe=sparsity.describe,
    )


def at_random(
    rate: float | Array = 0.1, *, key: Array | None = None, select: Select | None = None
) -> loss_indexed.Kind:
    """DropConnect: in every step each weight of a kernel is cut with a probability.

    The others are divided by the probability of being kept. All objectives of a step see the same
    masks. A finished network is that of all weights.

    Args:
      rate: the probability of being cut, in [0, 1).
      key: the PRNG key of the masks, `jax.random.key(0)` if None, split every update. The extra
        argument `key` of `update` replaces it.
      select: as in `sparsity.init_thresholds`.

    Returns:
      A kind of parameters beside the weights, for `modsync_jax.loss_indexed`; the own parameters
      are factors of the weights, `[1, *kernel.shape]`.

    Raises:
      ValueError: on a rate out of range; when parameters start, as `init_thresholds`.

    References:
      Wan et al., "Regularization of Neural Networks using DropConnect", ICML 2013.
    """
    check_range("rate", rate, 0.0, 1.0)
    if not isinstance(rate, jax.core.Tracer) and rate >= 1:
        raise ValueError(f"rate is {rate}; it must be below 1, or no weight is left")

    def drawn(own: PyTree, key: Array) -> PyTree:
        leaves, tree = jax.tree.flatten(own)
        keys = jax.random.split(key, len(leaves))
        factors = [
            jax.random.bernoulli(k, 1 - rate, leaf.shape).astype(leaf.dtype) / (1 - rate)
            for k, leaf in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(tree, factors)

    def start(weights: PyTree, _: int, key: Array) -> PyTree:
        units = sparsity.init_thresholds(weights, 1, select=select)
        like = jax.tree.map(
            lambda w, unit: None if unit is None else jnp.ones((1, *w.shape), w.dtype),
            weights,
            units,
        )
        return drawn(like, key)

    def act_for(weights: PyTree, own: PyTree, _: int) -> PyTree:
        factors = jax.lax.stop_gradient(own)
        return _masked(weights, jax.tree.map(lambda factor: factor[0], factors))

    first = jax.random.key(0) if key is None else key

    def init_fn(_: PyTree) -> Array:
        return jax.random.key_data(first)

    def update_fn(
        updates: PyTree,
        state: Array,
        params: PyTree = None,
        *,
        key: Array | None = None,
        **_: Any,
    ) -> tuple[PyTree, Array]:
        current = jax.random.wrap_key_data(state, impl=jax.random.key_impl(first))
        later, own = jax.random.split(current)
        # Of its own, because a random aggregator draws from the same key.
        now = drawn(params, own if key is None else jax.random.fold_in(key, _MASKS))
        return jax.tree.map(jnp.subtract, now, params), jax.random.key_data(later)

    return loss_indexed.Kind(
        start=start,
        act=lambda weights, own: weights,
        act_for=act_for,
        tx=optax.GradientTransformationExtraArgs(init_fn, update_fn),
    )


def _threshold(weight: Array, share: Array) -> Array:
    """The magnitude above which a share of a kernel's entries lies, rounded to whole entries."""
    count = weight.size - jnp.round(share * weight.size).astype(jnp.int32)  # to cut
    ordered = jnp.sort(jnp.abs(weight), axis=None)
    return jnp.where(count > 0, ordered[jnp.maximum(count - 1, 0)], 0.0)


def _masked(weights: PyTree, masks: PyTree) -> PyTree:
    return jax.tree.map(lambda w, m: w if m is None else w * m, weights, masks)
