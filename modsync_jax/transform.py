"""ModSync, Algorithm 1: thresholds as a kind of loss-indexed parameters."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax import gradients, loss_indexed, sparsity
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


def with_thresholds(
    params: PyTree,
    num_objectives: int,
    *,
    select: Callable[[str, Array], bool] | None = None,
    output_axis: int = -1,
) -> ModSyncParams:
    """Pairs parameters with zero thresholds; arguments as in `sparsity.init_thresholds`.

    Raises:
      ValueError: as `init_thresholds`, for example on a kernel of zeros, which could never move.
      TypeError: on parameters that have thresholds already.
    """
    kind = thresholds(select=select, output_axis=output_axis)
    return loss_indexed.begin(params, kind, num_objectives)


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
    """Plain parameters for other code: `ModSyncParams` are masked, others stay as given."""
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
    kind = thresholds(structural_gradient=structural_gradient)
    return loss_indexed.objectives(objectives, kind)


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

    Args:
      weights_tx: from stacked weight gradients to weight updates, for example
        `optax.chain(aggregators.dcgd(), optax.adam(1e-3))`.
      thresholds_tx: from threshold gradients to threshold updates; `optax.adam(1e-4)` if None.
      sparsity_weight: as in `thresholds`.
      regularizer: as there.
      min_keep: as there.
      reset_keep: as there.

    Returns:
      A transformation over stacked `ModSyncParams` gradients, as `loss_indexed.transformation`,
      where further errors stand.

    Raises:
      ValueError: on a hyperparameter out of range.

    References:
      ModSync, arXiv:2606.20156, Eq. 10 and Algorithm 1.
    """
    kind = thresholds(
        thresholds_tx,
        sparsity_weight=sparsity_weight,
        regularizer=regularizer,
        min_keep=min_keep,
        reset_keep=reset_keep,
    )
    return loss_indexed.transformation(weights_tx, kind)


def thresholds(
    optimizer: optax.GradientTransformation | None = None,
    *,
    sparsity_weight: float | Array = 1e-4,
    regularizer: Callable[[PyTree], Array] = sparsity.sparsity_loss,
    min_keep: float | Array = 0.0,
    reset_keep: float | Array = 0.01,
    structural_gradient: bool = True,
    shared: bool = False,
    pull: Literal["constant", "losses"] = "constant",
    select: Callable[[str, Array], bool] | None = None,
    output_axis: int = -1,
) -> loss_indexed.Kind:
    """Thresholds, whose mean over the objectives masks the weights: the kind behind `modsync`.

    Row k of the thresholds follows `dL_k/dt_k + sparsity_weight * d regularizer/dt_k` through the
    optimiser. The mean threshold cuts the masks, so the first term is 1/K of the derivative with
    respect to that mean. If a layer would keep `reset_keep` of its weights or less, its thresholds
    and the state of their optimiser start again from zero.

    Each leaf of the thresholds is optimised on its own: there is a state for each. So schedules
    count the steps since the layer's last reset, and a transformation over all leaves, such as
    `optax.clip_by_global_norm`, sees one layer at a time.

    Settings give the rows of the paper's ablation: `shared`, and a regulariser with
    `beta=math.inf`, which does not synchronise.

    Args:
      optimizer: from threshold gradients to threshold updates; `optax.adam(1e-4)` if None.
      sparsity_weight: factor of the regulariser, λ_s; not negative.
      regularizer: any function from thresholds to a scalar.
      min_keep: share of a layer's weights, in [0, 1]; at or below this share, thresholds may fall
        but not rise.
      reset_keep: share of a layer's weights, in [0, 1], at or below which thresholds are reset.
      structural_gradient: whether gradients reach the weights through the masks too.
      shared: whether all objectives share one threshold vector.
      pull: `losses` multiplies the regulariser by the sum of the losses, which `update` takes as
        the extra argument `losses`, [K]. Gradients of the losses vanish with the losses, and so
        does this pull; a constant one prevails in the end, whatever its weight. (This is no part
        of the paper.)
      select: as in `sparsity.init_thresholds`.
      output_axis: as there.

    Raises:
      ValueError: on a hyperparameter out of range; in `update`, without the losses that `pull`
        needs.

    References:
      ModSync, arXiv:2606.20156; Liu et al., Dynamic Sparse Training, ICLR 2020, for the reset.
    """
    check_range("sparsity_weight", sparsity_weight, 0.0, float("inf"))
    check_range("min_keep", min_keep, 0.0, 1.0)
    check_range("reset_keep", reset_keep, 0.0, 1.0)
    if pull not in ("constant", "losses"):
        raise ValueError(f"pull is {pull!r}; it must be 'constant' or 'losses'")
    tx = optax.with_extra_args_support(optimizer or optax.adam(1e-4))

    def start(weights: PyTree, num_objectives: int, _: Array) -> PyTree:
        count = 1 if shared else num_objectives
        return sparsity.init_thresholds(weights, count, select=select, output_axis=output_axis)

    def act(weights: PyTree, own: PyTree) -> PyTree:
        pair = ModSyncParams(weights, own)
        return effective_weights(pair, structural_gradient=structural_gradient)

    def init_fn(own: PyTree) -> PyTree:
        return jax.tree.map(tx.init, own)

    def update_fn(
        updates: PyTree,
        state: PyTree,
        params: PyTree = None,
        *,
        weights: PyTree,
        moves: PyTree,
        **extra_args: Any,
    ) -> tuple[PyTree, PyTree]:
        rises = jax.grad(regularizer)(params)
        weight = sparsity_weight * (_total(extra_args) if pull == "losses" else 1.0)
        slopes = jax.tree.map(lambda o, r: o + weight * r, updates, rises)
        shifts, state = _move_each(tx, slopes, state, params, extra_args)
        # Shares are float32 quotients: rounding must not make 5 of 500 weights more than 1%.
        shares = kept_share(weights, params)
        held = jax.tree.map(lambda kept: kept <= min_keep * (1 + 1e-6), shares)
        shifts = jax.tree.map(lambda s, h: jnp.where(h, jnp.minimum(s, 0.0), s), shifts, held)
        stepped = optax.apply_updates((weights, params), (moves, shifts))
        dying = jax.tree.map(lambda kept: kept <= reset_keep * (1 + 1e-6), kept_share(*stepped))
        shifts = jax.tree.map(lambda s, t, d: jnp.where(d, -t, s), shifts, params, dying)
        return shifts, _restart(tx, state, params, dying)

    return loss_indexed.Kind(
        start=start,
        act=act,
        tx=optax.GradientTransformationExtraArgs(init_fn, update_fn),
        kept=partial(sparsity.masks, structural_gradient=False),
        describe=sparsity.describe,
        pair=ModSyncParams,
    )


def _total(extra_args: Mapping[str, Any]) -> Array:
    if extra_args.get("losses") is None:
        raise ValueError("thresholds(pull='losses') need update(..., losses=losses), [K]")
    return jnp.sum(extra_args["losses"])


def _move_each(
    tx: optax.GradientTransformationExtraArgs,
    slopes: PyTree,
    states: PyTree,
    thresholds: PyTree,
    extra_args: Mapping[str, Any],
) -> tuple[PyTree, PyTree]:
    """Returns the shifts and the new states of `tx`, one state for each leaf of the thresholds."""
    # One state for all leaves would have one count of steps. A layer that starts again with moments
    # of zero would keep the old count. Adam would then not correct their bias, and the first steps
    # would reach 3.3 times the rate.
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
    """Returns `states`; the leaves that are `dying` get the state of `init` for zero thresholds."""

    def one(threshold: Array, dies: Array, state: PyTree) -> PyTree:
        fresh = tx.init(jnp.zeros_like(threshold))
        return jax.tree.map(lambda new, old: jnp.where(dies, new, old), fresh, state)

    return jax.tree.map(one, thresholds, dying, states)
