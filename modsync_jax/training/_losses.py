"""The losses of a run, as pure functions of its parameters and a batch, for all of its phases."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from modsync_jax import balancing, blocks, directions, loss_indexed
from modsync_jax.calculus import Field
from modsync_jax.diagnostics import Snapshot
from modsync_jax.problems import RESIDUAL, Problem, Weighted, points_of, term_of
from modsync_jax.training import _optimizers, _points
from modsync_jax.training._config import TrainConfig
from modsync_jax.training._solution import field_of
from modsync_jax.training._state import weights_of

PyTree = Any
Metric = Callable[[PyTree], PyTree] | None
Loss = Callable[[PyTree, Any], Array]
Sample = Callable[[Array, int, DTypeLike], Any]
_AT_ONCE = 256  # points whose rows of the Jacobian are computed at once


class Losses(NamedTuple):
    """What can be asked of a run's losses.

    Trained parameters are what `loss_indexed.begin` returns: plain ones, or a pair of them and
    parameters of single losses.

    Attributes:
      names: the names of the K objectives in order.
      kind: the parameters of single losses.
      fields: from plain parameters to the field and the values of the unknowns.
      trained: each objective of the trained parameters.
      settled: from trained parameters to each objective of the weights alone, while parameters of
        single losses are zero and stay.
      cut: from trained parameters to a function that makes zeros of weights that are cut.
      terms: each term's loss of plain parameters, without weights.
      traces: `(trained parameters, batch, whether own ones stay) -> [K]`, the traces of the
        objectives' tangent kernels of the weights.
      snapshot: `(trained parameters, batch, losses, stacked gradients, whether own ones stay,
        metric) -> Snapshot` of the weights.
      like: `(trained parameters, key, dtype) -> Snapshot` of the same shapes.
      scale: `(term or equation, batch) -> []`, the root of its weight over its points, by which
        its residuals are multiplied in `residuals`.
      residuals: `(plain parameters, batch) -> [M]`, whose squared norm is the sum of objectives.
      jacobian: `(plain parameters, batch) -> ([M], [M, n])`, the residuals and their derivatives by
        the n parameters in the order of `ravel_pytree`.
      sample: `(key, times, dtype) -> batch`, with `times` as many points as a step has.
      sizes: `(plain parameters, points) -> [N]`, the norms of all residuals at points of the
        equation.
      counted: `(plain parameters, batch, draws before it) -> batch` in which points of the equation
        count as the settings say.
    """

    names: tuple[str, ...]
    kind: loss_indexed.Kind
    fields: Callable[[PyTree], tuple[Field, Mapping[str, Any]]]
    trained: Mapping[str, Loss]
    settled: Callable[[PyTree], Mapping[str, Loss]]
    cut: Callable[[PyTree], Callable[[PyTree], PyTree]]
    terms: Mapping[str, Loss]
    traces: Callable[[PyTree, Any, bool], Array]
    snapshot: Callable[..., Snapshot]
    like: Callable[[PyTree, Array, DTypeLike], Snapshot]
    scale: Callable[[str, Any], Array]
    residuals: Callable[[PyTree, Any], Array]
    jacobian: Callable[[PyTree, Any], tuple[Array, Array]]
    sample: Sample
    sizes: Callable[[PyTree, Array], Array]
    counted: Callable[[PyTree, Any, Array], Any]


def build(
    problem: Problem,
    network: nn.Module,
    config: TrainConfig,
    place: Callable[[PyTree], PyTree],
) -> Losses:
    """Returns the losses of `network` on `problem`; `place` is the argument of its objectives."""
    kind = _optimizers.indexed(config)

    def fields(params: PyTree) -> tuple[Field, Mapping[str, Any]]:
        u = field_of(network, problem.coordinates, params["network"])
        u = dataclasses.replace(u, directions=directions.read(config.laplacian))
        return u, problem.values(params["unknowns"])

    block_points = config.block_points or blocks.default_size(len(problem.coordinates))
    plain = problem.objectives(fields, config.objectives, config.loss_weights, block_points, place)
    names = tuple(sorted(plain))
    groups = problem.objective_terms(config.objectives)
    index_of = {part: k for k, name in enumerate(names) for part in groups[name]}
    weights = [config.loss_weights.get(name, 1.0) for name in names]

    def cut(params: PyTree) -> Callable[[PyTree], PyTree]:
        if kind.kept is None:
            return lambda weights: weights
        kept = jax.lax.stop_gradient(kind.kept(*kind.split(params)))
        return lambda weights: jax.tree.map(lambda w, m: w if m is None else w * m, weights, kept)

    def settled(params: PyTree) -> dict[str, Loss]:
        kept = cut(params)

        def on_kept(name: str, weights: PyTree, batch: Any) -> Array:
            return plain[name](kept(weights), batch)

        return {name: partial(on_kept, name) for name in names}

    def seen_by(params: PyTree, stay: bool) -> Callable[[str, PyTree], PyTree]:
        """From a part and weights to the weights that its objective sees."""
        _, own = kind.split(params)
        kept = cut(params)
        return lambda part, w: kept(w) if stay else kind.seen(w, own, index_of[part])

    def parts_in(batch: Any) -> list[str]:
        """The terms of a batch; the residual's equations where they are objectives."""
        return sorted(part for part in index_of if term_of(part) in batch)

    def traces(params: PyTree, batch: Any, stay: bool) -> Array:
        shared, _ = kind.split(params)
        seen = seen_by(params, stay)

        def of_part(part: str, weights: PyTree, points: Any) -> Array:
            return of_points(part, seen(part, weights), points).ravel()

        parts = parts_in(batch)
        points = {part: points_of(batch, part) for part in parts}
        residuals = {part: partial(of_part, part) for part in parts}
        sums = balancing.jacobian_traces(residuals, shared, points)
        means = {part: s / count(points[part]) for part, s in zip(parts, sums, strict=True)}
        return jnp.stack(
            [w * sum(means[p] for p in groups[n]) for w, n in zip(weights, names, strict=True)]
        )

    weight_of = {p: weight for n, weight in zip(names, weights, strict=True) for p in groups[n]}

    def of_points(part: str, params: PyTree, points: Any) -> Array:
        """The residuals of a part at N points, [N, equations]."""
        named = problem.term(part)(*fields(params), points)
        return jnp.stack(list(named.values()), axis=1)

    def count(points: Any) -> int:
        return len(jax.tree.leaves(points)[0])

    def snapshot(
        params: PyTree, batch: Any, values: Array, grads: PyTree, stay: bool, metric: Metric
    ) -> Snapshot:
        seen = seen_by(params, stay)

        def samples(name: str, weights: PyTree) -> Array:
            """Losses of single points, [N], whose mean is the objective's."""

            def squares(part: str) -> Array:
                points = place(points_of(batch, part))
                return jnp.square(of_points(part, seen(part, weights), points)).sum(1)

            found = {part: squares(part) for part in groups[name]}
            total = sum(map(len, found.values()))
            return jnp.concatenate([weight_of[p] * total / len(f) * f for p, f in found.items()])

        return Snapshot(
            weights=weights_of(params),
            losses=values,
            grads=weights_of(grads),
            names=names,
            samples={name: partial(samples, name) for name in names},
            metric=metric,
        )

    def like(params: PyTree, key: Array, dtype: DTypeLike) -> Snapshot:
        batch = counted(kind.export(params), sample(key, 1, dtype), jnp.zeros((), jnp.int32))
        grads = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(names)), params)
        return snapshot(params, batch, jnp.zeros(len(names), dtype), grads, False, lambda g: g)

    def scale(part: str, batch: Any) -> Array:
        return jnp.sqrt(weight_of[part] / count(points_of(batch, part)))

    def residuals(params: PyTree, batch: Any) -> Array:
        def of_part(part: str) -> Array:
            points = place(points_of(batch, part))
            return scale(part, batch) * of_points(part, params, points).ravel()

        return jnp.concatenate([of_part(part) for part in parts_in(batch)])

    def jacobian(params: PyTree, batch: Any) -> tuple[Array, Array]:
        def at_point(part: str, point: Any) -> Array:
            one = jax.tree.map(lambda x: x[None], point)
            rows = jax.jacrev(lambda p: of_points(part, p, one)[0])(params)
            flat = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(rows)]
            return jnp.concatenate(flat, axis=1)

        found = []
        for part in parts_in(batch):
            points = points_of(batch, part)
            rows = jax.lax.map(partial(at_point, part), points, batch_size=_AT_ONCE)
            found.append(scale(part, batch) * rows.reshape(-1, rows.shape[-1]))
        return residuals(params, batch), jnp.concatenate(found)

    def sample(key: Array, times: int, dtype: DTypeLike) -> Any:
        counts = {**problem.points, **config.points} if times > 1 else config.points
        counts = {name: times * n for name, n in counts.items()}
        return problem.sample(key, counts, config.sampler_name, dtype)

    def sizes(params: PyTree, points: Array) -> Array:
        residuals = partial(problem.term(RESIDUAL), *fields(params))
        return _points.sizes(residuals, points, block_points)

    def counted(params: PyTree, batch: Any, draws: Array) -> Any:
        if not (config.causal or config.attention):
            return batch
        points = batch[RESIDUAL]
        found = sizes(params, points)
        weights = jnp.ones_like(found)
        if config.causal:
            times = points[:, problem.coordinates.index("t")]
            weights *= _points.causal(times, found, config.causal)
        if config.attention:
            weights *= _points.attention(found, draws, config.attention)
        return batch | {RESIDUAL: Weighted(points, weights)}

    return Losses(
        names=names,
        kind=kind,
        fields=fields,
        trained=loss_indexed.objectives(plain, kind),  # type: ignore[arg-type]
        settled=settled,
        cut=cut,
        terms=problem.term_losses(fields, block_points, place),
        traces=traces,
        snapshot=snapshot,
        like=like,
        scale=scale,
        residuals=residuals,
        jacobian=jacobian,
        sample=sample,
        sizes=sizes,
        counted=counted,
    )
