"""Whether parts of a network serve single losses."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax import aggregators, gradients, loss_indexed, transform
from modsync_jax.diagnostics._snapshot import pairs

PyTree = Any


def supports(weights: PyTree, thresholds: PyTree) -> PyTree:
    """The weights that each objective's own thresholds alone would keep.

    Args:
      weights: a pytree.
      thresholds: as `sparsity.init_thresholds` returns them, with a row for each of K objectives.

    Returns:
      The structure of `weights`: booleans `[K, ...]`, and None where there are no thresholds.
    """

    def support(weight: Array, threshold: Array | None) -> Array | None:
        return None if threshold is None else jnp.abs(weight) > threshold

    return jax.tree.map(support, weights, thresholds)


def modularity(kept: PyTree, names: tuple[str, ...]) -> dict[str, Array]:
    """How far the objectives' supports are apart, in each layer and over all.

    Args:
      kept: as `supports` returns them.
      names: of the K objectives, sorted.

    Returns:
      `jaccard/a~b` and `jaccard/a~b/<path>`: the Jaccard distance, 1 minus the share that both keep
      of what one of them keeps; 0 if neither keeps any. `single` and `single/<path>`: the share of
      the weights that exactly one objective keeps.
    """
    leaves = jax.tree.leaves_with_path(kept)
    flat = {gradients.path_name(path): leaf.reshape(len(names), -1) for path, leaf in leaves}
    whole = jnp.concatenate(list(flat.values()), axis=1)
    row = {}
    for end, of in [("", whole), *((f"/{path}", leaf) for path, leaf in flat.items())]:
        for j, k, name in pairs(names):
            one, both = jnp.sum(of[j] | of[k]), jnp.sum(of[j] & of[k])
            row[f"jaccard/{name}{end}"] = jnp.where(one > 0, 1 - both / jnp.maximum(one, 1), 0.0)
        row[f"single{end}"] = jnp.mean(of.sum(0) == 1, dtype=float)
    return row


def learnt_thresholds(
    objectives: gradients.Objectives,
    weights: PyTree,
    batch: Callable[[Array], Any],
    num_objectives: int,
    *,
    steps: int = 1_000,
    kind: loss_indexed.Kind | None = None,
) -> PyTree:
    """Thresholds that each objective learns on weights that stay, for networks of any method.

    Args:
      objectives: of plain weights, `(weights, batch) -> scalar`.
      weights: a pytree.
      batch: from the number of a step, [] int32, to the batch of it.
      num_objectives: K.
      steps: the number of steps.
      kind: how thresholds are trained; `transform.thresholds()` if None.

    Returns:
      Thresholds as `sparsity.init_thresholds` returns them.
    """
    kind = transform.thresholds() if kind is None else kind
    tx = loss_indexed.transformation(optax.chain(aggregators.sum(), optax.set_to_zero()), kind)
    seen = loss_indexed.objectives(objectives, kind)
    losses_and_grads = gradients.value_and_objective_grads(seen)

    def step(carry: Any, number: Array) -> tuple[Any, None]:
        params, state = carry
        _, grads = losses_and_grads(params, batch(number))
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = loss_indexed.begin(weights, kind, num_objectives)
    (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), jnp.arange(steps))
    return kind.split(params)[1]


def shuffled(mask: PyTree, key: Array) -> PyTree:
    """A random mask that keeps as many weights of each layer as the given one.

    Args:
      mask: leaves of any shape, and None where there is no mask.
      key: for the permutations of the entries.
    """
    leaves, tree = jax.tree.flatten(mask)
    keys = jax.random.split(key, len(leaves))
    moved = [
        jax.random.permutation(one, leaf.ravel()).reshape(leaf.shape)
        for one, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def ablation(
    objectives: Mapping[str, Callable[..., Array]],
    weights: PyTree,
    kept: PyTree,
    key: Array,
    *args: Any,
    draws: int = 8,
) -> dict[str, Array]:
    """How much each loss rises when what another objective prunes is set to zero.

    Args:
      objectives: by name, of plain weights and `*args`.
      weights: a pytree.
      kept: as `supports` returns them, for the K objectives by sorted name.
      key: for the control.
      *args: further arguments of the objectives.
      draws: the number of random masks of the control.

    Returns:
      `ablation/a|b`: the factor by which loss a rises under the mask of b, for all a and b.
      `ablation_random/a|b`: the geometric mean of the factors under random masks that keep as many
      weights of each layer.
    """
    names = tuple(sorted(objectives))

    def loss(name: str, mask: PyTree) -> Array:
        cut = jax.tree.map(lambda w, m: w if m is None else w * m, weights, mask)
        return objectives[name](cut, *args)

    row = {}
    for k, other in enumerate(names):
        mask = jax.tree.map(lambda m, k=k: m[k], kept)
        masks = partial(shuffled, mask)
        keys = jax.random.split(jax.random.fold_in(key, k), draws)
        for name in names:
            whole = objectives[name](weights, *args)
            row[f"ablation/{name}|{other}"] = loss(name, mask) / whole
            random = jax.lax.map(lambda one, n=name, m=masks: loss(n, m(one)), keys)
            row[f"ablation_random/{name}|{other}"] = jnp.exp(jnp.log(random / whole).mean())
    return row
