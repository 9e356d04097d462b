"""From a short, unmodified training to the regime of its losses, and to a method."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from modsync_jax import aggregators, gradients
from modsync_jax.diagnostics._direction import norm_ratio
from modsync_jax.diagnostics._snapshot import Snapshot, pairs
from modsync_jax.diagnostics._watch import EVERY, watch

PyTree = Any

IMBALANCE = "magnitude imbalance"
CONFLICT = "persistent directional conflict"
ORTHOGONAL = "orthogonal gradients"
LOW = "low or transient conflict"
_WINDOWS = 10  # of a training, each of which gives one row
_TINY = 1e-12
_LATE = 0.7  # a conflict that ends before this share of the training is said to have ended


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Where one regime ends and the next begins; docs/diagnosis.md says where they come from.

    Attributes:
      ratio: the norm of the longest gradient over that of the shortest one (geometric mean over the
        training) from which magnitudes are out of balance.
      conflict: a pair of gradients is in conflict while its mean cosine is below minus this.
      lasting: the share of the training for which a pair is in conflict, from which it persists.
      orthogonal: the root mean square of every pair's cosine up to which gradients are orthogonal.
      margin: a value within this factor of its bound is a borderline case.
    """

    ratio: float = 9.0
    conflict: float = 0.1
    lasting: float = 0.5
    orthogonal: float = 0.1
    margin: float = 1.5


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What a short training says about its losses.

    Attributes:
      regime: one of "magnitude imbalance", "persistent directional conflict", "orthogonal
        gradients" and "low or transient conflict".
      borderline: other regimes that are close to the bounds.
      method: the recommended method, a name of `modsync_jax.methods`.
      reason: why, in one paragraph.
      evidence: the numbers behind it, as `diagnostics.evidence` returns them.
      names: the objectives, sorted.
      rows: a row of measures for each of ten parts of the training.
      params: the parameters at its end.
    """

    regime: str
    borderline: tuple[str, ...]
    method: str
    reason: str
    evidence: Mapping[str, float]
    names: tuple[str, ...]
    rows: Sequence[Mapping[str, float]]
    params: PyTree


def diagnose(
    objectives: gradients.Objectives,
    params: PyTree,
    sampler: Callable[[Array], Any],
    *,
    steps: int = 1_000,
    optimizer: optax.GradientTransformation | None = None,
    key: Array | None = None,
    bounds: Bounds = Bounds(),
) -> Diagnosis:
    """Trains the plain sum of the losses for a while, and says which regime they are in.

    Args:
      objectives: as in `value_and_objective_grads`, of parameters and a batch.
      params: the parameters to start from.
      sampler: from a PRNG key to a batch.
      steps: the steps to watch, at least 10.
      optimizer: of the summed gradient; `optax.adam(1e-3)` if None.
      key: the PRNG key of the batches; `jax.random.key(0)` if None.
      bounds: where regimes begin.

    Raises:
      ValueError: on fewer than 10 steps, fewer than two objectives, or a training that is not
        finite.

    References:
      Kim & N'guessan, arXiv:2605.10136, for the regimes and remedies but the orthogonal one;
      ModSync, arXiv:2606.20156, for that one.
    """
    names = _names(objectives, params, jax.eval_shape(sampler, jax.random.key(0)))
    watched = partial(observed, objectives, sampler=sampler, steps=steps, optimizer=optimizer)
    params, columns = jax.jit(watched)(params, key=jax.random.key(0) if key is None else key)
    host = jax.device_get(columns)
    rows = [{name: float(c[i]) for name, c in host.items()} for i in range(_WINDOWS)]
    return judged(rows, names, params, bounds)


def observed(
    objectives: gradients.Objectives,
    params: PyTree,
    sampler: Callable[[Array], Any],
    *,
    key: Array,
    steps: int = 1_000,
    optimizer: optax.GradientTransformation | None = None,
) -> tuple[PyTree, dict[str, Array]]:
    """The training that `diagnose` watches, as a pure function; arguments as there.

    Returns:
      The parameters after it, and the columns of the ten rows, `[10]` each: those of a watch with
      `norm_ratio`, and the losses at the end of each part.

    Raises:
      ValueError: as `diagnose`.
    """
    if steps < _WINDOWS:
        raise ValueError(f"steps is {steps}; a diagnosis needs {_WINDOWS} or more")
    part = steps // _WINDOWS
    tx = optax.chain(aggregators.sum(), optimizer or optax.adam(1e-3))
    losses_and_grads = gradients.value_and_objective_grads(objectives)
    names = _names(objectives, params, jax.eval_shape(sampler, key))
    watcher = watch(norm_ratio)

    def step(carry: Any, index: Array) -> tuple[Any, Array]:
        params, state, sums = carry
        losses, grads = losses_and_grads(params, sampler(jax.random.fold_in(key, index)))
        seen = Snapshot(params, losses, grads, names)
        sums = watcher.update(sums, seen, index % part % EVERY == 0)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, sums), losses

    def window(carry: Any, indices: Array) -> tuple[Any, dict[str, Array]]:
        (params, state, sums), losses = jax.lax.scan(step, carry, indices)
        row, sums = watcher.row(sums, names)
        row |= {f"loss/{name}": losses[-1, k] for k, name in enumerate(names)}
        return (params, state, sums), row

    shapes = jax.eval_shape(lambda: losses_and_grads(params, sampler(key)))
    losses, grads = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    carry: Any = (params, tx.init(params), watcher.init(Snapshot(params, losses, grads, names)))
    indices = jnp.arange(part * _WINDOWS).reshape(_WINDOWS, part)
    (params, *_), rows = jax.lax.scan(window, carry, indices)
    return params, rows


def judged(
    rows: Sequence[Mapping[str, float]], names: Sequence[str], params: PyTree, bounds: Bounds
) -> Diagnosis:
    """Returns the diagnosis of rows that a watch with `norm_ratio` wrote.

    Args:
      rows: the rows of the parts of a training.
      names: the objectives, sorted.
      params: what to return beside it.
      bounds: where regimes begin.

    Raises:
      ValueError: if a number is not finite.
    """
    seen = evidence(rows, names, bounds)
    pair, opposed = _most_opposed(rows, names, bounds)
    # Each is 1 at its bound, and grows into the regime.
    strength = {
        IMBALANCE: seen["norm_ratio"] / bounds.ratio,
        CONFLICT: seen["lasting"] / bounds.lasting,
        ORTHOGONAL: bounds.orthogonal / max(seen["rms_cosine"], _TINY),
    }
    present = tuple(name for name, value in strength.items() if value >= 1)
    near = [n for n, v in strength.items() if 1 / bounds.margin < v < bounds.margin]
    regime = present[0] if present else LOW
    others = [name for name in (*present, *near) if name != regime]
    if present and set(present) <= set(near):  # a little less of each, and none would be left
        others.append(LOW)
    method, advice = _advice(regime, len(names))
    return Diagnosis(
        regime=regime,
        borderline=tuple(dict.fromkeys(others)),
        method=method,
        reason=f"{_sentence(regime, seen, bounds, pair, opposed)} {advice}",
        evidence=seen,
        names=tuple(names),
        rows=rows,
        params=params,
    )


def evidence(
    rows: Sequence[Mapping[str, float]], names: Sequence[str], bounds: Bounds
) -> dict[str, float]:
    """Returns the numbers that decide.

    `norm_ratio` is the geometric mean over the rows. `lasting` is the share of the rows in which
    the mean cosine of a pair is below `-bounds.conflict`, of the pair with the largest share, and
    `lasting_cosine` is the mean cosine of that pair. `rms_cosine` is the root mean square of the
    cosines of the pair where it is largest.
    """
    ratios = np.array([row["norm_ratio"] for row in rows])
    cosines, spreads = _columns(rows, names, "cosine"), _columns(rows, names, "spread")
    if not (np.isfinite(cosines).all() and (ratios > 0).all()):
        raise ValueError(
            "the training is not finite, so there is nothing to diagnose; try a smaller learning "
            "rate"
        )
    known = ratios[np.isfinite(ratios)]  # infinite while a gradient is zero
    pair, opposed = _most_opposed(rows, names, bounds)
    return {
        "norm_ratio": float(np.exp(np.log(known).mean())) if len(known) else math.inf,
        "lasting": float(opposed.mean()),
        "lasting_cosine": float(np.mean([row[f"cosine/{pair}"] for row in rows])),
        "rms_cosine": float(np.sqrt((cosines**2 + spreads**2).mean(axis=0).max())),
    }


def _columns(rows: Sequence[Mapping[str, float]], names: Sequence[str], kind: str) -> NDArray:
    """A quantity of every pair, `[rows, pairs]`."""
    labels = [name for *_, name in pairs(tuple(names))]
    return np.array([[row[f"{kind}/{name}"] for name in labels] for row in rows])


def _most_opposed(
    rows: Sequence[Mapping[str, float]], names: Sequence[str], bounds: Bounds
) -> tuple[str, NDArray]:
    """The pair that is in conflict for longest, then of the lowest mean cosine; when it is."""
    cosines = _columns(rows, names, "cosine")
    opposed = cosines < -bounds.conflict
    at = int(np.lexsort((cosines.mean(axis=0), -opposed.mean(axis=0)))[0])
    return pairs(tuple(names))[at][-1], opposed[:, at]


def _names(objectives: gradients.Objectives, params: PyTree, batch: Any) -> tuple[str, ...]:
    if isinstance(objectives, Mapping):
        found = tuple(sorted(objectives))
    else:
        found = tuple(sorted(jax.eval_shape(objectives, params, batch)))
    if len(found) < 2:
        raise ValueError(f"a diagnosis needs two objectives or more, got {', '.join(found)}")
    return found


def _sentence(
    regime: str, seen: Mapping[str, float], bounds: Bounds, pair: str, opposed: NDArray
) -> str:
    """What was seen, in words."""
    ratio, rms = f"{seen['norm_ratio']:.3g}", f"{seen['rms_cosine']:.2f}"
    lasting, cosine = f"{seen['lasting']:.0%}", f"{seen['lasting_cosine']:.2f}"
    losses = " and ".join(pair.split("~"))
    if regime == IMBALANCE:
        return (
            f"Over the training, the longest gradient is {ratio} times the shortest one (the bound "
            f"is {bounds.ratio:g}). Losses with short gradients hardly move the network."
        )
    if regime == CONFLICT:
        ended = int(np.flatnonzero(opposed)[-1]) + 1
        over = f" No conflict is seen after {ended / len(opposed):.0%} of the training."
        return (
            f"In {lasting} of the training, the gradients of {losses} point against each other "
            f"(mean cosine {cosine}; the bound is {bounds.lasting:.0%}). A step that lowers one of "
            f"these losses raises the other one.{over if ended <= _LATE * len(opposed) else ''}"
        )
    if regime == ORTHOGONAL:
        return (
            f"The cosines of the gradients are {rms} in root mean square (the bound is "
            f"{bounds.orthogonal:g}). Losses hardly touch the same directions of the weights."
        )
    return (
        f"Of all pairs, the gradients of {losses} oppose each other longest, in {lasting} of the "
        f"training (the bound is {bounds.lasting:.0%}). The longest gradient is {ratio} times the "
        f"shortest one (the bound is {bounds.ratio:g})."
    )


def _advice(regime: str, count: int) -> tuple[str, str]:
    """The method for a regime and a number of objectives, and why; the tables stand in the docs."""
    if regime == IMBALANCE:
        return "lra", (
            "Learning-rate annealing weighs losses until their gradients match. On the problems of "
            "this kind it reached from a sixteenth of the plain sum's error to the same error."
        )
    if regime == ORTHOGONAL:
        return "modsync+dcgd", (
            "ModSync is made to bring such losses back to common connections. That it lowers the "
            "error is the claim of its paper, which no table here has confirmed yet."
        )
    if regime == LOW:
        return "lra", (
            "Little stands in the way of the plain sum; learning-rate annealing reached 0.6 to 1.2 "
            "times its error on the problems of this kind."
        )
    if count == 2:
        return "dcgd", (
            "DCGD takes a step that hurts neither of two losses. On Burgers' equation it halved "
            "the plain sum's error; on the other problems of this kind it reached 0.8 to 1.9 times "
            "it."
        )
    return "sum", (
        "Stay with the plain sum: on problems of this kind with three losses or more, no "
        "first-order method was reliably better."
    )
