"""From objectives to losses and stacked gradients, and the Gramian of a stack.

A *stack* is a pytree whose every leaf carries a leading objective axis K. Objectives are ordered by
sorted name everywhere, which is how JAX orders dictionaries.
"""

import functools
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

PyTree = Any
Objectives = Mapping[str, Callable[..., Any]] | Callable[..., Any]


def value_and_objective_grads(
    objectives: Objectives,
    *,
    strategy: Literal["auto", "split", "vmap"] = "auto",
    has_aux: bool = False,
) -> Callable[..., tuple[Any, PyTree]]:
    """Returns a function that computes every objective's loss and gradient.

    Args:
      objectives: a mapping from name to a pure function `(params, *args) -> scalar`, or one pure
        function that returns a mapping of scalars. K objectives, ordered by sorted name.
      strategy: `"split"` differentiates each objective on its own, `"vmap"` linearises all of them
        once and maps the pull-back over the K unit cotangents. `"auto"` splits a mapping, whose
        objectives usually have points of their own, and vmaps one function, whose objectives
        usually share a forward pass.
      has_aux: whether each objective (or the one function) returns a pair `(value, aux)`.

    Returns:
      `fn(params, *args) -> (losses [K], grads)`, each leaf of `grads` of shape `[K, *leaf.shape]`;
      with `has_aux`, `((losses, aux), grads)`, where `aux` is a dictionary by name for a mapping,
      and what the function returned for one function.

    Raises:
      ValueError: on an unknown strategy or no objectives and, when traced, on an objective that is
        not a scalar.
      TypeError: when traced, on parameters that are not floating-point arrays.
    """
    if strategy not in ("auto", "split", "vmap"):
        raise ValueError(f"unknown strategy {strategy!r}; it is 'auto', 'split' or 'vmap'")
    mapping = objectives if isinstance(objectives, Mapping) else None
    if mapping is not None and not mapping:
        raise ValueError("no objectives were given; give a mapping from name to function")

    def evaluate(params: PyTree, *args: Any, only: str | None = None) -> tuple[dict, Any]:
        if mapping is None:
            result = objectives(params, *args)  # type: ignore[operator]
            values, aux = result if has_aux else (result, None)
        else:
            chosen = {name: f for name, f in mapping.items() if only in (None, name)}
            results = {name: f(params, *args) for name, f in chosen.items()}
            values = {name: r[0] if has_aux else r for name, r in results.items()}
            aux = {name: r[1] for name, r in results.items() if has_aux}
        if not isinstance(values, Mapping) or not values:
            raise ValueError(
                f"the objectives' function returned {type(values).__name__}; it returns a mapping "
                "from objective name to scalar"
            )
        return {name: _scalar(name, values[name]) for name in sorted(values)}, aux

    def split(params: PyTree, *args: Any) -> tuple[Array, Any, PyTree]:
        def one(p: PyTree, name: str) -> tuple[Array, Any]:
            values, aux = evaluate(p, *args, only=name)
            return values[name], aux

        names = sorted(mapping or jax.eval_shape(lambda p: evaluate(p, *args)[0], params))
        parts = [jax.value_and_grad(one, has_aux=True)(params, name) for name in names]
        losses = jnp.stack([loss for (loss, _), _ in parts])
        grads = jax.tree.map(lambda *g: jnp.stack(g), *[grad for _, grad in parts])
        auxes = [aux for (_, aux), _ in parts]
        return losses, auxes[0] if mapping is None else dict(ChainMap(*auxes)), grads

    def vmapped(params: PyTree, *args: Any) -> tuple[Array, Any, PyTree]:
        def stacked(p: PyTree) -> tuple[Array, Any]:
            values, aux = evaluate(p, *args)
            return jnp.stack(list(values.values())), aux

        losses, pull_back, aux = jax.vjp(stacked, params, has_aux=True)
        (grads,) = jax.vmap(pull_back)(jnp.eye(len(losses), dtype=losses.dtype))
        return losses, aux, grads

    def value_and_grads(params: PyTree, *args: Any) -> tuple[Any, PyTree]:
        _check_differentiable(params)
        vmap = strategy == "vmap" or (strategy == "auto" and mapping is None)
        losses, aux, grads = (vmapped if vmap else split)(params, *args)
        return ((losses, aux) if has_aux else losses), grads

    return value_and_grads


def gramian(grads: PyTree) -> Array:
    """The Gramian `G[i, j] = <g_i, g_j>` of stacked gradients.

    Computed leaf by leaf and by elementwise products: nothing is flattened or concatenated, sharded
    leaves stay where they are, and no platform lowers the precision of the sums.

    Args:
      grads: a stack, leaves of shape `[K, ...]`.

    Returns:
      `[K, K]`, symmetric, float32 or, if a leaf is float64, float64.

    Raises:
      ValueError: when there is no leaf, or leaves disagree on K.
    """
    leaves = jax.tree.leaves(grads)
    count = num_objectives(grads)
    dtype = jnp.result_type(jnp.float32, *leaves)

    @functools.cache
    def inner(i: int, j: int) -> Array:
        # Two stages keep running sums short: faster, and more accurate, than one long sum.
        products = [jnp.atleast_1d(g[i].astype(dtype) * g[j].astype(dtype)) for g in leaves]
        return sum(jnp.sum(jnp.sum(p, axis=-1)) for p in products)  # type: ignore[return-value]

    rows = range(count)
    return jnp.stack([jnp.stack([inner(min(i, j), max(i, j)) for j in rows]) for i in rows])


def weighted_sum(weights: Array, grads: PyTree) -> PyTree:
    """The combination `sum_k weights[k] g_k` of stacked gradients.

    Args:
      weights: `[K]`.
      grads: a stack, leaves of shape `[K, ...]`.

    Returns:
      A pytree of leaves `[...]`, in the dtypes of `grads`.
    """

    def combine(leaf: Array) -> Array:
        return sum(weights[k] * leaf[k] for k in range(len(leaf))).astype(leaf.dtype)  # type: ignore[union-attr]

    return jax.tree.map(combine, grads)


def own_objective(grads: PyTree, thresholds: PyTree) -> PyTree:
    """From a stack of gradients of loss-indexed parameters, what each row may move by.

    Loss-indexed parameters carry a leading objective axis themselves, and row k follows objective
    k alone: the diagonal of the two leading axes. With one row shared by all objectives, the row
    follows their sum.

    Args:
      grads: leaves `[K, J, ...]`, J equal to K or 1.
      thresholds: the loss-indexed parameters, leaves `[J, ...]`.

    Returns:
      Leaves `[J, ...]`.

    Raises:
      ValueError: when J is neither K nor 1, or `grads` is not a stack of `thresholds`.
    """
    count = check_stacked(grads, thresholds)

    def own(grad: Array) -> Array:
        if grad.shape[1] == 1:
            return grad.sum(0)
        if grad.shape[1] != count:
            raise ValueError(
                f"parameters indexed by {grad.shape[1]} objectives met gradients of {count}; "
                f"initialise them with num_objectives={count} (or 1, to share one row)"
            )
        return jnp.stack([grad[k, k] for k in range(count)])

    return jax.tree.map(own, grads)


def num_objectives(grads: PyTree) -> int:
    """The length K of the leading axis that all leaves of a stack share."""
    lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(grads)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"gradients are not stacked: the leading axes of their leaves have the lengths "
            f"{sorted(lengths)}; all need one objective axis, as value_and_objective_grads makes it"
        )
    return lengths.pop()


def check_stacked(grads: PyTree, params: PyTree) -> int:
    """Checks that `grads` is a stack of gradients of `params` and returns K.

    Raises:
      ValueError: when `params` is None, or the structures or shapes do not match.
    """
    if params is None:
        raise ValueError(
            "params is missing: call update(grads, state, params), against which the shapes of "
            "stacked gradients are checked"
        )
    if jax.tree.structure(grads) != jax.tree.structure(params):  # type: ignore[operator]
        raise ValueError(
            f"gradients have the structure {jax.tree.structure(grads)}, but params "
            f"{jax.tree.structure(params)}; give the gradients of these very parameters"
        )
    count = num_objectives(grads)
    named = jax.tree.leaves_with_path(grads)
    for (path, grad), param in zip(named, jax.tree.leaves(params), strict=True):
        if grad.shape != (count, *jnp.shape(param)):
            raise ValueError(
                f"gradients are not stacked: {path_name(path)} has shape {list(grad.shape)}, but "
                f"its parameter {list(jnp.shape(param))} asks for {['K', *jnp.shape(param)]}; "
                "compute them with modsync_jax.value_and_objective_grads"
            )
    return count


def path_name(path: tuple[Any, ...]) -> str:
    """The readable name of a leaf, for example `params/Dense_0/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _scalar(name: str, value: Any) -> Array:
    value = jnp.asarray(value)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"objective {name!r} returned {value.dtype}{list(value.shape)}; an objective returns "
            "one floating-point scalar, for example the mean of squared residuals"
        )
    return value


def _check_differentiable(params: PyTree) -> None:
    for path, leaf in jax.tree.leaves_with_path(params):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"parameter {path_name(path)} is {dtype or type(leaf).__name__}, not a "
                "floating-point array; partition the model first (Equinox: params, static = "
                "eqx.partition(model, eqx.is_inexact_array); Flax NNX: graphdef, params, rest = "
                "nnx.split(model, nnx.Param, ...))"
            )
