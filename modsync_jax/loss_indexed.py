"""Parameters that belong to single losses, trained beside weights that all losses share.

Thresholds, low-rank adapters and weights of points are *kinds* of such parameters. A kind says how
they start, how they act on the shared weights, and how they move. The rest is the same for all
kinds and stands here: shared weights follow all losses through an aggregator, and what belongs to
loss k follows loss k alone.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax import gradients

PyTree = Any


class LossIndexed(NamedTuple):
    """Shared weights beside what belongs to single losses.

    Attributes:
      weights: any pytree.
      own: leaves `[K, ...]`, row k for objective k, or `[1, ...]` for a row that all share; None
        where a weight has none.
    """

    weights: PyTree
    own: PyTree


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of parameters that belong to single losses.

    Attributes:
      start: `(weights, K, PRNG key) -> own`, the first own parameters.
      act: `(weights, own) -> weights` that the losses see, differentiable.
      tx: from gradients of the own parameters to their updates. Its `update` gets the shared
        weights as the extra argument `weights` and their updates as `moves`. Penalties and limits
        of a step belong to it.
      act_for: `(weights, own, k) -> weights` that objective k sees, if they differ from `act`'s.
      kept: `(weights, own) -> ` a tree like the weights with 0 where a weight is cut and 1
        elsewhere, or None for a leaf that is not cut; None for a kind that cuts nothing.
      describe: `(weights, own, names) -> {column: []}`, what a row of a run's metrics says.
      pick: from gradients of the own parameters, leaves `[K, *leaf.shape]`, and these parameters to
        the gradients that move them.
      pair: the type that holds both, of two fields; None for plain weights without own parameters.
    """

    start: Callable[[PyTree, int, Array], PyTree]
    act: Callable[[PyTree, PyTree], PyTree]
    tx: optax.GradientTransformation
    act_for: Callable[[PyTree, PyTree, int], PyTree] | None = None
    kept: Callable[[PyTree, PyTree], PyTree] | None = None
    describe: Callable[[PyTree, PyTree, Sequence[str]], dict[str, Array]] = lambda w, own, names: {}
    pick: Callable[[PyTree, PyTree], PyTree] = gradients.own_objective
    pair: type[Any] | None = LossIndexed

    def join(self, weights: PyTree, own: PyTree) -> Any:
        """Returns both in one tree."""
        return weights if self.pair is None else self.pair(weights, own)

    def split(self, params: Any) -> tuple[PyTree, PyTree]:
        """Returns the shared weights and the own parameters.

        Raises:
          TypeError: on parameters of another type.
        """
        if self.pair is None:
            return params, ()
        if not isinstance(params, self.pair):
            raise TypeError(
                f"got parameters of type {type(params).__name__}; here belong "
                f"{self.pair.__name__}, as modsync_jax.with_thresholds or loss_indexed.begin makes "
                "them"
            )
        return params

    def seen(self, weights: PyTree, own: PyTree, objective: int | None = None) -> PyTree:
        """Returns the weights that an objective sees, by its index; None for a finished network."""
        if objective is None or self.act_for is None:
            return self.act(weights, own)
        return self.act_for(weights, own, objective)

    def export(self, params: Any) -> PyTree:
        """Returns plain weights for other code, through which no gradients flow."""
        return jax.lax.stop_gradient(self.act(*self.split(params)))

    def settled(self, params: Any) -> Any:
        """Returns parameters of the same network in which all own ones are zero.

        This holds for kinds that change no weight, `act(weights, zeros) = weights`, or only cut
        those that are zero already.
        """
        weights, own = self.split(params)
        return self.join(self.act(weights, own), jax.tree.map(jnp.zeros_like, own))


NONE = Kind(lambda *_: (), lambda weights, own: weights, optax.identity(), pair=None)
"""No parameters of single losses."""


def begin(params: PyTree, kind: Kind, num_objectives: int, key: Array | None = None) -> Any:
    """Returns parameters beside the first own ones of a kind.

    Args:
      params: plain parameters.
      kind: what belongs to single losses.
      num_objectives: K.
      key: the PRNG key for a kind that starts at random; `jax.random.key(0)` if None.

    Raises:
      TypeError: on parameters that are such a pair already.
      ValueError: as the kind's `start`.
    """
    if kind.pair is not None and isinstance(params, kind.pair):
        raise TypeError(
            f"these parameters are {kind.pair.__name__} already; give plain ones, such as "
            "modsync_jax.export(params) or kind.export(params)"
        )
    key = jax.random.key(0) if key is None else key
    return kind.join(params, kind.start(params, num_objectives, key))


def objectives(given: gradients.Objectives, kind: Kind) -> gradients.Objectives:
    """Objectives of shared weights beside own parameters, from objectives of plain parameters.

    Args:
      given: as in `value_and_objective_grads`: a mapping of functions, or one function. It gets the
        weights that the kind shows to an objective, computed once, and never sees own parameters.
      kind: what belongs to single losses.

    Returns:
      The same form.

    Raises:
      ValueError: when traced, on one function that returns no mapping, if objectives see different
        weights.
    """

    def of(objective: Callable[..., Any], index: int | None) -> Callable[..., Any]:
        def on_seen(params: Any, *args: Any) -> Any:
            return objective(kind.seen(*kind.split(params), index), *args)

        return on_seen

    if isinstance(given, Mapping):
        index = {name: k for k, name in enumerate(sorted(given))}
        return {name: of(objective, index[name]) for name, objective in given.items()}
    if kind.act_for is None:
        return of(given, None)

    def each(params: Any, *args: Any) -> dict[str, Array]:
        found = jax.eval_shape(of(given, None), params, *args)
        if not isinstance(found, Mapping):
            raise ValueError(
                f"the objectives' function returned {type(found).__name__}; where each objective "
                "sees weights of its own, it returns a mapping from objective name to scalar"
            )
        return {name: of(given, k)(params, *args)[name] for k, name in enumerate(sorted(found))}

    return each


def transformation(
    weights_tx: optax.GradientTransformation, kind: Kind
) -> optax.GradientTransformationExtraArgs:
    """Moves shared weights by any method, and what belongs to objective k by its own gradient.

    Args:
      weights_tx: from stacked gradients of the weights to their updates, for example
        `optax.chain(aggregators.dcgd(), optax.adam(1e-3))`.
      kind: what belongs to single losses, and the transformation that moves it.

    Returns:
      A transformation over stacked gradients of what `begin` returns. Extra arguments go to both
      transformations. Its state is a pair of theirs.

    Raises:
      ValueError: when traced, on gradients that are not a stack for `params`, a K that does not
        match the own parameters, or a `weights_tx` without an aggregator.
      TypeError: when traced, on parameters of another type than the kind's.
    """
    weights_tx = optax.with_extra_args_support(weights_tx)
    if kind.pair is None:
        return weights_tx
    own_tx = optax.with_extra_args_support(kind.tx)

    def init_fn(params: Any) -> Any:
        weights, own = kind.split(params)
        gradients.check_whole(params)
        return kind.join(weights_tx.init(weights), own_tx.init(own))

    def update_fn(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        gradients.check_stacked(updates, params)
        (weights, own), (w_state, o_state) = kind.split(params), kind.split(state)
        w_updates, o_updates = kind.split(updates)
        moves, w_state = weights_tx.update(w_updates, w_state, weights, **extra_args)
        gradients.check_single(moves, weights, "optax.chain(aggregators.dcgd(), optax.adam(1e-3))")
        shifts, o_state = own_tx.update(
            kind.pick(o_updates, own), o_state, own, weights=weights, moves=moves, **extra_args
        )
        return kind.join(moves, shifts), kind.join(w_state, o_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def together(**kinds: Kind) -> Kind:
    """Several kinds side by side; own parameters are a dictionary by their names.

    They act in the order in which they are given. All start from the shared weights alone, so that
    thresholds never cover adapters: a factor of zeros under a mask would never move.
    """

    def seen(weights: PyTree, own: PyTree, objective: int | None = None) -> PyTree:
        for name, kind in kinds.items():
            weights = kind.seen(weights, own[name], objective)
        return weights

    def kept(weights: PyTree, own: PyTree) -> PyTree:
        trees = [kind.kept(weights, own[name]) for name, kind in kinds.items() if kind.kept]

        def product(weight: Array, *masks: Array | None) -> Array | None:
            cut = [mask for mask in masks if mask is not None]
            return jnp.prod(jnp.stack(cut), axis=0) if cut else None

        return jax.tree.map(product, weights, *trees)

    def start(weights: PyTree, count: int, key: Array) -> dict[str, PyTree]:
        keys = jax.random.split(key, len(kinds))
        return {n: k.start(weights, count, keys[i]) for i, (n, k) in enumerate(kinds.items())}

    def describe(weights: PyTree, own: PyTree, names: Sequence[str]) -> dict[str, Array]:
        rows = [kind.describe(weights, own[name], names) for name, kind in kinds.items()]
        return {column: value for row in rows for column, value in row.items()}

    def init_fn(own: PyTree) -> dict[str, Any]:
        return {name: kind.tx.init(own[name]) for name, kind in kinds.items()}

    def update_fn(updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any) -> Any:
        found = {
            name: optax.with_extra_args_support(kind.tx).update(
                updates[name], state[name], params[name], **extra_args
            )
            for name, kind in kinds.items()
        }
        return {n: moves for n, (moves, _) in found.items()}, {n: s for n, (_, s) in found.items()}

    return Kind(
        start=start,
        act=seen,
        tx=optax.GradientTransformationExtraArgs(init_fn, update_fn),
        act_for=seen if any(kind.act_for for kind in kinds.values()) else None,
        kept=kept if any(kind.kept for kind in kinds.values()) else None,
        describe=describe,
        pick=lambda grads, own: {n: k.pick(grads[n], own[n]) for n, k in kinds.items()},
    )
