"""The losses of a run, as pure functions of its parameters and a batch, for all of its phases."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from modsync_jax import balancing, blocks, loss_indexed
from modsync_jax.calculus import Field
from modsync_jax.diagnostics import Snapshot
from modsync_jax.problems import Problem, Weighted
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
        return u, problem.values(params["unknowns"])

    block_points = config.block_points or blocks.default_size()
    plain = problem.objectives(fields, config.objectives, config.loss_weights, block_points, place)
    vectors = problem.residual_vectors(fields, "each")
    names = tuple(sorted(plain))
    groups = problem.objective_terms(config.objectives)
    index_of = {term: k for k, name in enumerate(names) for term in groups[name]}
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
        """From a term and weights to the weights that its objective sees."""
        _, own = kind.split(params)
        kept = cut(params)
        return lambda term, w: kept(w) if stay else kind.seen(w, own, index_of[term])

    def traces(params: PyTree, batch: Any, stay: bool) -> Array:
        shared, _ = kind.split(params)
        seen = seen_by(params, stay)

        def of_term(term: str, weights: PyTree, points: Any) -> Array:
            return vectors[term](seen(term, weights), {term: points})

        residuals = {term: partial(of_term, term) for term in batch}
        sums = balancing.jacobian_traces(residuals, shared, batch)
        means = {
            term: total / len(jax.tree.leaves(batch[term])[0])
            for term, total in zip(sorted(batch), sums, strict=True)
        }
        return jnp.stack(
            [w * sum(means[t] for t in groups[n]) for w, n in zip(weights, names, strict=True)]
        )

    weight_of = {t: weight for n, weight in zip(names, weights, strict=True) for t in groups[n]}

    def of_points(term: str, params: PyTree, points: Any) -> Array:
        """The residuals of a term at N points, [N, equations]."""
        named = problem.term(term)(*fields(params), points)
        return jnp.stack(list(named.values()), axis=1)

    def snapshot(
        params: PyTree, batch: Any, values: Array, grads: PyTree, stay: bool, metric: Metric
    ) -> Snapshot:
        seen = seen_by(params, stay)

        def samples(name: str, weights: PyTree) -> Array:
            """Losses of single points, [N], whose mean is the objective's."""
            found = {
                term: jnp.square(of_points(term, seen(term, weights), place(batch[term]))).sum(1)
                for term in groups[name]
            }
            count = sum(map(len, found.values()))
            return jnp.concatenate([weight_of[t] * count / len(f) * f for t, f in found.items()])

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

    def scale(term: str, batch: Any) -> Array:
        return jnp.sqrt(weight_of[term] / len(jax.tree.leaves(batch[term])[0]))

    def residuals(params: PyTree, batch: Any) -> Array:
        def part(term: str) -> Array:
            return scale(term, batch) * of_points(term, params, place(batch[term])).ravel()

        return jnp.concatenate([part(term) for term in sorted(batch)])

    def jacobian(params: PyTree, batch: Any) -> tuple[Array, Array]:
        def at_point(term: str, point: Any) -> Array:
            one = jax.tree.map(lambda x: x[None], point)
            rows = jax.jacrev(lambda p: of_points(term, p, one)[0])(params)
            flat = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(rows)]
            return jnp.concatenate(flat, axis=1)

        parts = []
        for term in sorted(batch):
            rows = jax.lax.map(partial(at_point, term), batch[term], batch_size=_AT_ONCE)
            parts.append(scale(term, batch) * rows.reshape(-1, rows.shape[-1]))
        return residuals(params, batch), jnp.concatenate(parts)

    def sample(key: Array, times: int, dtype: DTypeLike) -> Any:
        counts = {**problem.points, **config.points} if times > 1 else config.points
        counts = {name: times * n for name, n in counts.items()}
        return problem.sample(key, counts, config.sampler_name, dtype)

    def sizes(params: PyTree, points: Array) -> Array:
        residuals = partial(problem.term("residual"), *fields(params))
        return _points.sizes(residuals, points, block_points)

    def counted(params: PyTree, batch: Any, draws: Array) -> Any:
        if not (config.causal or config.attention):
            return batch
        points = batch["residual"]
        found = sizes(params, points)
        weights = jnp.ones_like(found)
        if config.causal:
            times = points[:, problem.coordinates.index("t")]
            weights *= _points.causal(times, found, config.causal)
        if config.attention:
            weights *= _points.attention(found, draws, config.attention)
        return batch | {"residual": Weighted(points, weights)}

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
        residuals=residuals,
        jacobian=jacobian,
        sample=sample,
        sizes=sizes,
        counted=counted,
    )
