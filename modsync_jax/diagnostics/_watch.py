"""Measures of a training: sums over its batches from one row of metrics to the next."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from modsync_jax.aggregators import _cosines
from modsync_jax.diagnostics._snapshot import Measure, Snapshot, pairs

EVERY = 25  # batches from one whose measures are taken to the next


class Sums(NamedTuple):
    """What was seen in the training batches since the latest row of metrics.

    Cosines are those of the P pairs of objectives. Their sums are of differences from `first`, so
    that small changes of large cosines do not drown in rounding.

    Attributes:
      batches: the number of batches, [] int32.
      first: the cosines in the first batch, [P].
      latest: the cosines in the latest batch, [P].
      total: sums of the differences, [P].
      squares: sums of their squares, [P].
      lagged: sums of products of a difference with that of the batch before, [P].
      opposed: the number of batches with a negative cosine, [P] int32.
      stretch: the number of batches in a row, up to the latest, with a negative cosine, [P] int32;
        it goes on over rows of metrics.
      longest: the longest such stretch, [P] int32.
      sampled: the number of batches whose measures were taken, [] int32.
      measured: sums of the measures by column, [] each.
    """

    batches: Array
    first: Array
    latest: Array
    total: Array
    squares: Array
    lagged: Array
    opposed: Array
    stretch: Array
    longest: Array
    sampled: Array
    measured: dict[str, Array]


class Watch(NamedTuple):
    """The functions that watch a training.

    Attributes:
      init: `(snapshot) -> sums` over no batch; only names, shapes and dtypes count.
      update: `(sums, snapshot, whether to take the measures of this batch [] bool) -> sums`.
      row: `(sums, names) -> (row, sums)`: the columns of a row of metrics, and the sums to go on
        with.
    """

    init: Callable[[Snapshot], Sums]
    update: Callable[[Sums, Snapshot, Array], Sums]
    row: Callable[[Sums, Sequence[str]], tuple[dict[str, Array], Sums]]


def watch(*measures: Measure) -> Watch:
    """Watches a training: cosines in every batch, and measures in some of them.

    A row has, for each pair of objectives, the mean `cosine` and its standard deviation (`spread`),
    the share of batches in which it is negative (`opposed`), the most such batches in a row
    (`stretch`), and the `autocorrelation` of a batch's cosine with that of the batch before (0 if
    it is not known). `batches` is the number of batches. Then come the measures, as means over the
    batches in which they were taken.

    Args:
      *measures: such as those of `MEASURES`.
    """

    def columns(seen: Snapshot) -> dict[str, Array]:
        row: dict[str, Array] = {}
        for measure in measures:
            row |= measure(seen)
        return {name: jnp.asarray(value, seen.losses.dtype) for name, value in row.items()}

    def init(seen: Snapshot) -> Sums:
        count = len(pairs(tuple(seen.names)))
        zeros, none = jnp.zeros(count, seen.losses.dtype), jnp.zeros(count, jnp.int32)
        found = jax.eval_shape(lambda: columns(seen))
        measured = {name: jnp.zeros((), like.dtype) for name, like in found.items()}
        return Sums(
            batches=jnp.zeros((), jnp.int32),
            first=zeros,
            latest=zeros,
            total=zeros,
            squares=zeros,
            lagged=zeros,
            opposed=none,
            stretch=none,
            longest=none,
            sampled=jnp.zeros((), jnp.int32),
            measured=measured,
        )

    def update(sums: Sums, seen: Snapshot, sampled: Array) -> Sums:
        gramian = seen.gramian()
        seen = seen._replace(products=gramian)  # the condition below then takes no gradients
        matrix, _ = _cosines.cosines(gramian)
        found = [matrix[j, k] for j, k, _ in pairs(tuple(seen.names))]
        cosine = jnp.array(found, sums.first.dtype)
        first = jnp.where(sums.batches == 0, cosine, sums.first)
        change, before = cosine - first, jnp.where(sums.batches == 0, 0.0, sums.latest - first)
        opposed = cosine < 0
        stretch = jnp.where(opposed, sums.stretch + 1, 0)

        def with_measures() -> dict[str, Array]:
            return jax.tree.map(jnp.add, sums.measured, columns(seen))

        measured = sums.measured
        if measures:
            measured = jax.lax.cond(sampled, with_measures, lambda: sums.measured)
        return Sums(
            batches=sums.batches + 1,
            first=first,
            latest=cosine,
            total=sums.total + change,
            squares=sums.squares + change**2,
            lagged=sums.lagged + change * before,
            opposed=sums.opposed + opposed,
            stretch=stretch,
            longest=jnp.maximum(sums.longest, stretch),
            sampled=sums.sampled + sampled,
            measured=measured,
        )

    def row(sums: Sums, names: Sequence[str]) -> tuple[dict[str, Array], Sums]:
        mean = sums.total / sums.batches
        variance = sums.squares / sums.batches - mean**2
        covariance = sums.lagged / jnp.maximum(sums.batches - 1, 1) - mean**2
        known = (sums.batches > 2) & (variance > 0)
        correlation = jnp.where(known, covariance / jnp.where(known, variance, 1.0), 0.0)
        of_pairs = {
            "cosine": sums.first + mean,
            "spread": jnp.sqrt(jnp.maximum(variance, 0.0)),
            "opposed": sums.opposed / sums.batches,
            "stretch": sums.longest,
            "autocorrelation": jnp.clip(correlation, -1.0, 1.0),
        }
        both = pairs(tuple(names))
        found = {
            f"{k}/{pair}": v[p] for k, v in of_pairs.items() for p, (*_, pair) in enumerate(both)
        }
        found["batches"] = sums.batches
        found |= {name: total / sums.sampled for name, total in sums.measured.items()}
        empty = jax.tree.map(jnp.zeros_like, sums)
        return found, empty._replace(stretch=sums.stretch)

    return Watch(init, update, row)
