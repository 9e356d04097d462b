"""The pure functions of a run: initial state, a chunk of steps, an evaluation.

Nothing here touches files, time or the terminal.
"""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array

from modsync_jax import balancing, blocks, gradients, methods, networks, sparsity
from modsync_jax.calculus import Field
from modsync_jax.problems import Problem
from modsync_jax.training import _optimizers
from modsync_jax.training._config import TrainConfig
from modsync_jax.training._solution import field_of
from modsync_jax.transform import (
    ModSyncParams,
    effective_weights,
    export,
    mask_objectives,
    with_thresholds,
)

PyTree = Any
# The streams of random numbers of one run.
_INIT, _TRAIN, _EVALUATE, _POLISH, _METHOD = range(5)


class Conflict(NamedTuple):
    """How the objectives' gradients met in the training batches since the latest row of metrics.

    Attributes:
      batches: how many there were, [] int32.
      cosines: sums of the P pairs' cosines, [P]; a zero gradient counts as orthogonal.
      opposed: in how many batches a pair's cosine was negative, [P].
    """

    batches: Array
    cosines: Array
    opposed: Array


class TrainState(NamedTuple):
    """Everything that a run carries from one step to the next.

    Attributes:
      key: raw data of the run's PRNG key.
      step: completed steps, [] int32.
      params: `{"network": ..., "unknowns": ...}`, or `ModSyncParams` of it.
      opt_state: state of the method's transformation, or of L-BFGS while polishing.
      best_params: the parameters of the lowest score so far.
      best_score: validation error, or unweighted loss without a reference, [].
      best_step: the step of `best_params`, [] int32.
      healthy: False once a loss or an update was not finite; the state is that before it, [] bool.
      losses: the losses at the latest step, [K].
      conflict: what the gradients' cosines were since the latest row of metrics.
    """

    key: Array
    step: Array
    params: PyTree
    opt_state: optax.OptState
    best_params: PyTree
    best_score: Array
    best_step: Array
    healthy: Array
    losses: Array
    conflict: Conflict


class Program(NamedTuple):
    """The functions of a run, pure; `compiled` puts them under `jit`.

    Attributes:
      init: `(seed) -> TrainState`.
      advance: `(state, count) -> state` after `count` (static) steps of the method.
      start_polish: `(state) -> state` with L-BFGS's state, masks folded into the weights.
      polish: `(state, count) -> state` after `count` (static) iterations of L-BFGS.
      evaluate: `(state, reference points and values) -> (state, row)`.
      residuals: `(state) -> (points, residuals)` of the batch of the next step, by term, and the
        residuals by equation, [N] each.
      objectives: names of the K objectives in order.
    """

    init: Callable[[int | Array], TrainState]
    advance: Callable[[TrainState, int], TrainState]
    start_polish: Callable[[TrainState], TrainState]
    polish: Callable[[TrainState, int], TrainState]
    evaluate: Callable[..., tuple[TrainState, dict[str, Array]]]
    residuals: Callable[[TrainState], tuple[Any, dict[str, dict[str, Array]]]]
    objectives: tuple[str, ...]


def network_of(problem: Problem, config: TrainConfig) -> networks.Network:
    """Returns the network that the settings describe, before its parameters."""
    scaled = {"auto": problem.standardize, "yes": True, "no": False}[config.standardize]
    periods = tuple(config.periods.get(name, 0.0) for name in problem.coordinates)
    return networks.NETWORKS[config.network](
        width=config.width,
        depth=config.depth,
        outputs=len(problem.outputs),
        activation=config.activation,
        shift=problem.domain.mean if scaled else (),
        scale=problem.domain.std if scaled else (),
        periods=periods if any(periods) else (),
        fourier_features=config.fourier_features,
        fourier_scale=config.fourier_scale,
        factorized=config.factorized,
        adaptive=config.adaptive,
        param_dtype=jnp.dtype(config.dtype),
    )


def build(
    problem: Problem,
    network: nn.Module,
    config: TrainConfig,
    place: Callable[[PyTree], PyTree] = lambda points: points,
) -> Program:
    """Assembles the functions of a run of `network` on `problem`.

    Numbers of `config` may be tracers: under `vmap` the functions then are those of many runs.
    `place` is that of `Problem.objectives`.
    """
    dtype = jnp.dtype(config.dtype)
    method = methods.parse(config.method)
    masked, alternating = method.masked, method.alternates
    counted = {**problem.points, **config.points}
    sample = partial(problem.sample, points=config.points, sampler=config.sampler_name, dtype=dtype)

    def fields(params: PyTree) -> tuple[Field, PyTree]:
        return field_of(network, problem.coordinates, params["network"]), params["unknowns"]

    block_points = config.block_points or blocks.default_size()
    plain = problem.objectives(fields, config.objectives, config.loss_weights, block_points, place)
    names = tuple(sorted(plain))
    pairs = tuple(itertools.combinations(range(len(names)), 2))
    terms = problem.term_losses(fields, block_points, place)
    objectives: Any = plain
    if masked:
        objectives = mask_objectives(plain, structural_gradient=config.structural_gradient)
    losses_and_grads = gradients.value_and_objective_grads(objectives)
    loss_and_grad = gradients.value_and_objective_grad(objectives)
    rate = _optimizers.learning_rate(config)
    known_rate = not isinstance(config.optimizer, _optimizers.Own)
    tx = methods.build(
        method,
        _optimizers.weights_optimizer(config),
        _optimizers.thresholds_optimizer(config),
        num_objectives=len(names),
        reference=names.index("residual"),
        learning_rate=rate,
        **_modsync_settings(config) if masked else {},
    )

    def stream(state: TrainState, number: int) -> Array:
        return jax.random.fold_in(jax.random.wrap_key_data(state.key), number)

    vectors: Any = problem.residual_vectors(fields, "each")
    if masked:
        vectors = mask_objectives(vectors, structural_gradient=config.structural_gradient)

    def traces(state: TrainState, batch: Any) -> Array:
        """Of the weights' tangent kernels; a method asks for them in the steps that need them."""

        def of_term(term: str, weights: PyTree, points: Any) -> Array:
            params = state.params._replace(weights=weights) if masked else weights
            return vectors[term](params, {term: points})

        residuals = {term: partial(of_term, term) for term in batch}
        sums = balancing.jacobian_traces(residuals, weights_of(state.params), batch)
        means = {
            term: total / len(jax.tree.leaves(batch[term])[0])
            for term, total in zip(sorted(batch), sums, strict=True)
        }
        groups = problem.objective_terms(config.objectives)
        weights = [config.loss_weights.get(name, 1.0) for name in names]
        return jnp.stack(
            [w * sum(means[t] for t in groups[n]) for w, n in zip(weights, names, strict=True)]
        )

    def init(seed: int | Array) -> TrainState:
        key = jax.random.key(seed)
        point = jnp.zeros(len(problem.coordinates), dtype)
        variables = network.init(jax.random.fold_in(key, _INIT), point)
        unknowns = {name: jnp.asarray(v, dtype) for name, v in problem.unknowns.items()}
        params: PyTree = {"network": variables, "unknowns": unknowns}
        if masked:
            params = with_thresholds(params, 1 if config.shared_threshold else len(names))
        return TrainState(
            key=jax.random.key_data(key),
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=jax.tree.map(jnp.copy, tx.init(params)),  # donated: no buffer twice
            best_params=jax.tree.map(jnp.copy, params),
            best_score=jnp.array(jnp.inf, dtype),
            best_step=jnp.zeros((), jnp.int32),
            healthy=jnp.array(True),
            losses=jnp.zeros(len(names), dtype),
            conflict=nothing_seen(),
        )

    def nothing_seen() -> Conflict:
        return Conflict(
            jnp.zeros((), jnp.int32), jnp.zeros(len(pairs), dtype), jnp.zeros(len(pairs), dtype)
        )

    def cosines(grads: PyTree) -> tuple[Array, Array]:
        """The norms [K] of stacked gradients, and the cosines of their pairs [P]."""
        gramian = gradients.gramian(weights_of(grads))
        norms = jnp.sqrt(jnp.diagonal(gramian))
        products = jnp.array([norms[j] * norms[k] for j, k in pairs])
        inner = jnp.array([gramian[j, k] for j, k in pairs])
        return norms, jnp.where(products > 0, inner / jnp.where(products > 0, products, 1.0), 0.0)

    def met(conflict: Conflict, grads: PyTree) -> Conflict:
        _, cosine = cosines(grads)
        return Conflict(
            conflict.batches + 1,
            conflict.cosines + cosine.astype(dtype),
            conflict.opposed + (cosine < 0),
        )

    def batch_of(state: TrainState) -> Any:
        return sample(jax.random.fold_in(stream(state, _TRAIN), state.step))

    def one_step(state: TrainState, _: None) -> tuple[TrainState, None]:
        batch = batch_of(state)
        extra: dict[str, Any] = {"key": jax.random.fold_in(stream(state, _METHOD), state.step)}
        if alternating:
            index = state.step % len(names)
            loss, grads = loss_and_grad(state.params, index, batch)
            losses, extra["objective"] = state.losses.at[index].set(loss), index
        else:
            losses, grads = losses_and_grads(state.params, batch)
            extra["losses"] = losses
            extra["residual_jacobian_traces"] = partial(traces, state, batch)
        updates, opt_state = tx.update(grads, state.opt_state, state.params, **extra)
        accepted = _accept(state, losses, updates, opt_state, _all_finite(opt_state))
        if alternating:
            return accepted, None
        seen = _chosen(accepted.healthy, met(state.conflict, grads), state.conflict)
        return accepted._replace(conflict=seen), None

    frozen = partial(effective_weights, structural_gradient=False)
    lbfgs = optax.lbfgs(memory_size=20)

    def start_polish(state: TrainState) -> TrainState:
        # Pruned weights become zeros under zero thresholds: their masks, and so their gradients,
        # stay zero, and every iterate of L-BFGS keeps them so.
        params = state.params
        if masked:
            zeros = jax.tree.map(jnp.zeros_like, params.thresholds)
            params = ModSyncParams(export(params), zeros)
        return state._replace(params=params, opt_state=lbfgs.init(weights_of(params)))

    def polish_losses(state: TrainState, weights: PyTree) -> Array:
        """The losses [K] on the points of the polish."""
        counts = {name: config.polish_points * n for name, n in counted.items()}
        batch = problem.sample(stream(state, _POLISH), counts, config.sampler_name, dtype)
        params = frozen(ModSyncParams(weights, state.params.thresholds)) if masked else weights
        return jnp.stack([plain[name](params, batch) for name in names])

    def one_polish(state: TrainState, _: None) -> tuple[TrainState, None]:
        def total(weights: PyTree) -> Array:
            return polish_losses(state, weights).sum()

        weights = weights_of(state.params)
        value, grad = optax.value_and_grad_from_state(total)(weights, state=state.opt_state)
        updates, opt_state = lbfgs.update(
            grad, state.opt_state, weights, value=value, grad=grad, value_fn=total
        )
        if masked:
            updates = ModSyncParams(updates, jax.tree.map(jnp.zeros_like, state.params.thresholds))
        return _accept(state, state.losses, updates, opt_state, jnp.isfinite(value)), None

    def polish(state: TrainState, count: int) -> TrainState:
        state = scan(one_polish, state, count)
        return state._replace(losses=polish_losses(state, weights_of(state.params)))

    def evaluate(
        state: TrainState, references: Mapping[str, tuple[Array, Array]]
    ) -> tuple[TrainState, dict[str, Array]]:
        batch = sample(jax.random.fold_in(stream(state, _EVALUATE), state.step))
        losses, grads = losses_and_grads(state.params, batch)
        norms, own_cosines = cosines(grads)
        own = Conflict(jnp.ones((), jnp.int32), own_cosines, (own_cosines < 0).astype(dtype))
        seen = _chosen(state.conflict.batches > 0, state.conflict, own)
        u, unknowns = fields(evaluated := export(state.params))
        of_terms = {name: loss(evaluated, batch) for name, loss in terms.items()}
        row = {"step": state.step, "loss": losses.sum()}
        if known_rate:
            row["learning_rate"] = rate(state.step)
        row |= {f"loss/{name}": losses[k] for k, name in enumerate(names)}
        row |= {f"term/{name}": value for name, value in of_terms.items()}
        row |= {f"grad_norm/{name}": norms[k] for k, name in enumerate(names)}
        for p, (j, k) in enumerate(pairs):
            row[f"cosine/{names[j]}~{names[k]}"] = seen.cosines[p] / seen.batches
            row[f"opposed/{names[j]}~{names[k]}"] = seen.opposed[p] / seen.batches
        row["batches"] = seen.batches
        row |= {f"unknown/{name}": value for name, value in unknowns.items()}
        if masked:
            row |= _sparsity_row(state.params, names)
        for name, (points, values) in references.items():
            error = problem.observed(u, unknowns, points) - values
            row[f"{name}/relative_l2"] = jnp.linalg.norm(error) / jnp.linalg.norm(values)
            row[f"{name}/mean_absolute"] = jnp.abs(error).mean()
        # Weights of losses say nothing about accuracy: without a reference they are left out.
        unweighted = jnp.stack(list(of_terms.values())).sum()
        score = row["validation/relative_l2"] if references else unweighted
        better = state.healthy & (score < state.best_score)
        params, score, step = _chosen(
            better,
            (state.params, score.astype(dtype), state.step),
            (state.best_params, state.best_score, state.best_step),
        )
        state = state._replace(best_params=params, best_score=score, best_step=step)
        return state._replace(conflict=nothing_seen()), row

    def residuals(state: TrainState) -> tuple[Any, dict[str, dict[str, Array]]]:
        batch = batch_of(state)
        return batch, problem.pointwise(*fields(export(state.params)), batch)

    def scan(body: Callable, state: TrainState, count: int) -> TrainState:
        return jax.lax.scan(body, state, None, length=count)[0]

    return Program(
        init=init,
        advance=partial(scan, one_step),
        start_polish=start_polish,
        polish=polish,
        evaluate=evaluate,
        residuals=residuals,
        objectives=names,
    )


def compiled(program: Program) -> Program:
    """The same under `jit`; `advance`, `polish` and `evaluate` take over the state they get."""
    return program._replace(
        advance=jax.jit(program.advance, static_argnums=1, donate_argnums=0),
        start_polish=jax.jit(program.start_polish),
        polish=jax.jit(program.polish, static_argnums=1, donate_argnums=0),
        evaluate=jax.jit(program.evaluate, donate_argnums=0),
        residuals=jax.jit(program.residuals),
    )


def _accept(
    state: TrainState,
    losses: Array,
    updates: PyTree,
    opt_state: optax.OptState,
    sound: Array,
) -> TrainState:
    """The state after an update, or, when something is not finite, the state as it was.

    `sound` is what else must hold, [] bool.
    """
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(updates))
    healthy = state.healthy & jnp.isfinite(losses).all() & jnp.isfinite(total) & sound
    new = (state.step + 1, optax.apply_updates(state.params, updates), opt_state)
    step, params, opt_state = _chosen(healthy, new, (state.step, state.params, state.opt_state))
    return state._replace(
        step=step, params=params, opt_state=opt_state, losses=losses, healthy=healthy
    )


def _chosen(flag: Array, one: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), one, other)


def _all_finite(tree: PyTree) -> Array:
    """Whether all floating numbers are: a second moment at infinity would freeze its weight."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _modsync_settings(config: TrainConfig) -> dict[str, Any]:
    regularizer = partial(
        sparsity.sparsity_loss,
        beta=config.beta,
        granularity=config.granularity,  # type: ignore[arg-type]
    )

    return {
        "sparsity_weight": config.sparsity_weight,
        "regularizer": regularizer,
        "min_keep": config.min_keep,
    }


def _sparsity_row(params: ModSyncParams, names: tuple[str, ...]) -> dict[str, Array]:
    overall, layers = sparsity.keep_ratio(*params)
    row = {"keep": overall} | {f"keep/{_layer(name)}": share for name, share in layers.items()}
    for path, threshold in jax.tree.leaves_with_path(params.thresholds):
        owners = names if len(threshold) == len(names) else ("all",)
        for owner, mean in zip(owners, threshold.reshape(len(threshold), -1).mean(1), strict=True):
            row[f"threshold/{owner}/{_layer(gradients.path_name(path))}"] = mean
    return row


def _layer(path: str) -> str:
    return path.removeprefix("network/").removeprefix("params/")


def weights_of(params: PyTree) -> PyTree:
    """Parameters without thresholds, not masked."""
    return params.weights if isinstance(params, ModSyncParams) else params
