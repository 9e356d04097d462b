"""The ModSync transformation: Algorithm 1 as one optax transformation."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax import gradients, sparsity
from modsync_jax._ranges import check_range
from modsync_jax.sparsity._thresholds import kept_share

PyTree = Any


class ModSyncParams(NamedTuple):
    """A network's parameters beside their thresholds.

    Attributes:
      weights: the parameters, any pytree.
      thresholds: leaves `[K, 1, ..., out, ..., 1]`, None where a parameter has no thresholds.
    """

    weights: PyTree
    thresholds: PyTree


class ModSyncState(NamedTuple):
    """States of the two transformations behind `modsync`.

    Attributes:
      weights: the state of the weights' transformation.
      thresholds: in the structure of the thresholds, a state for each of their leaves.
    """

    weights: optax.OptState
    thresholds: PyTree


def with_thresholds(
    params: PyTree,
    num_objectives: int,
    *,
    select: Callable[[str, Array], bool] | None = None,
    output_axis: int = -1,
) -> ModSyncParams:
    """Pairs parameters with zero thresholds; arguments as in `sparsity.init_thresholds`.

    Raises:
      ValueError: as `init_thresholds`; so on a kernel of zeros, which could never move.
      TypeError: on parameters that have thresholds already.
    """
    if isinstance(params, ModSyncParams):
        raise TypeError(
            "these parameters have thresholds already; give with_thresholds plain parameters, such "
            "as modsync_jax.export(params)"
        )
    thresholds = sparsity.init_thresholds(
        params, num_objectives, select=select, output_axis=output_axis
    )
    return ModSyncParams(params, thresholds)


def effective_weights(params: ModSyncParams, *, structural_gradient: bool = True) -> PyTree:
    """The masked parameters `M ⊙ θ` of Eq. 6, differentiable; see `sparsity.masks`.

    Args:
      params: weights and thresholds.
      structural_gradient: whether gradients reach the weights through the masks too.

    Returns:
      The structure, shapes and dtypes of `params.weights`.
    """
    masks = sparsity.masks(*params, structural_gradient=structural_gradient)
    return jax.tree.map(lambda w, m: w if m is None else w * m, params.weights, masks)


def export(params: PyTree) -> PyTree:
    """Plain parameters for any other code: masked if they are `ModSyncParams`, else as given."""
    if not isinstance(params, ModSyncParams):
        return params
    return jax.lax.stop_gradient(effective_weights(params))


def mask_objectives(
    objectives: gradients.Objectives, *, structural_gradient: bool = True
) -> gradients.Objectives:
    """Objectives of `ModSyncParams` from objectives of plain parameters.

    Args:
      objectives: as in `value_and_objective_grads`: a mapping of functions, or one function.
      structural_gradient: whether gradients reach the weights through the masks too.

    Returns:
      The same form; each function masks the weights once and calls the given one with them.
    """

    def masked(objective: Callable[..., Any]) -> Callable[..., Any]:
        def on_effective_weights(params: ModSyncParams, *args: Any) -> Any:
            _check_params(params)
            weights = effective_weights(params, structural_gradient=structural_gradient)
            return objective(weights, *args)

        return on_effective_weights

    if isinstance(objectives, Mapping):
        return {name: masked(objective) for name, objective in objectives.items()}
    return masked(objectives)


def modsync(
    weights_tx: optax.GradientTransformation,
    thresholds_tx: optax.GradientTransformation | None = None,
    *,
    sparsity_weight: float | Array = 1e-4,
    regularizer: Callable[[PyTree], Array] = sparsity.sparsity_loss,
    min_keep: float | Array = 0.0,
    reset_keep: float | Array = 0.01,
) -> optax.GradientTransformationExtraArgs:
    """ModSync: weights by any method, each objective's thresholds by its own gradient.

    Weights follow `weights_tx`, usually an aggregator and an optimiser. Row k of the thresholds
    follows `dL_k/dt_k + sparsity_weight * d regularizer/dt_k` through `thresholds_tx`; since masks
    are cut by the mean threshold, the first term is 1/K of the derivative by that mean. A layer
    that would keep no more than `reset_keep` of its weights starts again: thresholds 0, and the
    state of their optimiser as new.

    Each leaf of the thresholds is optimised on its own: `thresholds_tx` has a state for each. So
    schedules count the steps since the layer's last reset, and transformations that look at all
    leaves, such as `optax.clip_by_global_norm`, look at one layer.

    The rows of the paper's ablation are settings: one threshold vector instead of K is
    `with_thresholds(params, 1)`; no synchronisation is a regulariser with `beta=math.inf`.

    Args:
      weights_tx: from stacked weight gradients to weight updates, for example
        `optax.chain(aggregators.dcgd(), optax.adam(1e-3))`.
      thresholds_tx: from threshold gradients to threshold updates; `optax.adam(1e-4)` if None.
      sparsity_weight: factor of the regulariser, λ_s; not negative.
      regularizer: any function from thresholds to a scalar.
      min_keep: share of a layer's weights, in [0, 1]; at or below this share, thresholds may fall
        but not rise.
      reset_keep: share of a layer's weights, in [0, 1], at or below which thresholds are reset.

    Returns:
      A transformation over stacked `ModSyncParams` gradients. `init` and `update` take plain
      `ModSyncParams` as `params`; extra arguments go to both transformations.

    Raises:
      ValueError: on a hyperparameter out of range and, when traced, on gradients that are not a
        stack for `params`, a K that does not match the thresholds, or a `weights_tx` without an
        aggregator.
      TypeError: when traced, on parameters that are not `ModSyncParams`.

    References:
      ModSync, arXiv:2606.20156, Eq. 10 and Algorithm 1; Liu et al., Dynamic Sparse Training, ICLR
      2020, for the reset.
    """
    check_range("sparsity_weight", sparsity_weight, 0.0, float("inf"))
    check_range("min_keep", min_keep, 0.0, 1.0)
    check_range("reset_keep", reset_keep, 0.0, 1.0)
    weights_tx = optax.with_extra_args_support(weights_tx)
    thresholds_tx = optax.with_extra_args_support(thresholds_tx or optax.adam(1e-4))

    def init_fn(params: ModSyncParams) -> ModSyncState:
        _check_params(params)
        gradients.check_whole(params)
        thresholds = jax.tree.map(thresholds_tx.init, params.thresholds)
        return ModSyncState(weights_tx.init(params.weights), thresholds)

    def update_fn(
        updates: ModSyncParams, state: ModSyncState, params: Any = None, **extra_args: Any
    ) -> tuple[ModSyncParams, ModSyncState]:
        gradients.check_stacked(updates, params)
        _check_params(params)
        weights, thresholds = params
        moves, w_state = weights_tx.update(updates.weights, state.weights, weights, **extra_args)
        gradients.check_single(
            moves, weights, "modsync(optax.chain(aggregators.dcgd(), optax.adam(1e-3)))"
        )
        own = gradients.own_objective(updates.thresholds, thresholds)
        pull = jax.grad(regularizer)(thresholds)
        slopes = jax.tree.map(lambda o, p: o + sparsity_weight * p, own, pull)
        shifts, t_state = _move_each(
            thresholds_tx, slopes, state.thresholds, thresholds, extra_args
        )
        # Shares are float32 quotients: rounding must not make 5 of 500 weights more than 1%.
        held = jax.tree.map(lambda kept: kept <= min_keep * (1 + 1e-6), kept_share(*params))
        shifts = jax.tree.map(lambda s, h: jnp.where(h, jnp.minimum(s, 0.0), s), shifts, held)
        stepped = optax.apply_updates(params, ModSyncParams(moves, shifts))
        dying = jax.tree.map(lambda kept: kept <= reset_keep * (1 + 1e-6), kept_share(*stepped))
        shifts = jax.tree.map(lambda s, t, d: jnp.where(d, -t, s), shifts, thresholds, dying)
        t_state = _restart(thresholds_tx, t_state, thresholds, dying)
        return ModSyncParams(moves, shifts), ModSyncState(w_state, t_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _move_each(
    tx: optax.GradientTransformationExtraArgs,
    slopes: PyTree,
    states: PyTree,
    thresholds: PyTree,
    extra_args: Mapping[str, Any],
) -> tuple[PyTree, PyTree]:
    """Shifts and new states of `tx`, which has a state for each leaf of the thresholds."""
    # A state for all leaves would share its count of steps: a layer that starts again with moments
    # of zero would keep the old count, Adam would no longer correct their bias, and the first
    # steps would reach 3.3 times the rate.
    moved = jax.tree.map(
        lambda leaf, slope, state: tx.update(slope, state, leaf, **extra_args),
        thresholds,
        slopes,
        states,
    )
    shifts = jax.tree.map(lambda _, pair: pair[0], thresholds, moved)
    return shifts, jax.tree.map(lambda _, pair: pair[1], thresholds, moved)


def _restart(
    tx: optax.GradientTransformation, states: PyTree, thresholds: PyTree, dying: PyTree
) -> PyTree:
    """`states`, those of leaves that are `dying` as `init` makes them for thresholds of zero."""

    def one(threshold: Array, dies: Array, state: PyTree) -> PyTree:
        fresh = tx.init(jnp.zeros_like(threshold))
        return jax.tree.map(lambda new, old: jnp.where(dies, new, old), fresh, state)

    return jax.tree.map(one, thresholds, dying, states)


def _check_params(params: Any) -> None:
    if not isinstance(params, ModSyncParams):
        raise TypeError(
            f"ModSync got parameters of type {type(params).__name__}; it takes the ModSyncParams "
            "that modsync_jax.with_thresholds(params, num_objectives) returns"
        )
