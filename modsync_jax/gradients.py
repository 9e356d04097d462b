"""From objectives to losses and stacked gradients, and the Gramian of a stack.

A *stack* is a pytree in which every leaf carries a leading objective axis K. Objectives are ordered
by sorted name everywhere, as JAX orders dictionaries.
"""

import functools
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

PyTree = Any
Objectives = Mapping[str, Callable[..., Any]] | Callable[..., Any]


def value_and_objective_grads(
    objectives: Objectives,
    *,
    strategy: Literal["split", "vmap"] = "split",
    has_aux: bool = False,
) -> Callable[..., tuple[Any, PyTree]]:
    """Returns a function that computes every objective's loss and gradient.

    Where objectives have points of their own, a split step under `jit` costs as much as the
    gradient of the summed losses, whether the objectives come as a mapping or as one function: XLA
    drops the computations that a loss does not need. Where losses share a forward pass, the pass is
    computed once (unless it is inside a loop such as `lax.scan`), but each loss still needs its own
    backward pass. Then the cost grows with K: 1.9, 3.6 and 6.7 times the step of the summed losses
    for K = 2, 4 and 8, against 2.5, 4.7 and 9.5 times with `"vmap"`, for the residuals of one
    network of K outputs on two CPU cores (`benchmarks/drop_in.py`).

    Args:
      objectives: a mapping from name to a pure function `(params, *args) -> scalar`, or one pure
        function that returns a mapping of scalars. K objectives, ordered by sorted name.
      strategy: `"split"` differentiates each objective on its own. `"vmap"` linearises all of them
        once and maps the pull-back over the K unit cotangents: it traces the objectives once
        instead of K + 1 times, but it also pulls zeros through the computations that an objective
        does not use.
      has_aux: whether each objective (or the one function) returns a pair `(value, aux)`.

    Returns:
      `fn(params, *args) -> (losses [K], grads)`, each leaf of `grads` of shape `[K, *leaf.shape]`;
      with `has_aux`, `((losses, aux), grads)`, where `aux` is a dictionary by name for a mapping,
      and the function's own aux for one function.

    Raises:
      ValueError: on an unknown strategy or no objectives and, when traced, on an objective that is
        not a scalar.
      TypeError: when traced, on parameters that are not floating-point arrays.
    """
    if strategy not in ("split", "vmap"):
        raise ValueError(f"unknown strategy {strategy!r}; it is 'split' or 'vmap'")
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
        compute = vmapped if strategy == "vmap" else split
        losses, aux, grads = compute(params, *args)
        return ((losses, aux) if has_aux else losses), grads

    return value_and_grads


def value_and_objective_grad(
    objectives: Mapping[str, Callable[..., Array]],
) -> Callable[..., tuple[Array, PyTree]]:
    """Returns a function that computes the loss and gradient of one objective, chosen by index.

    The index may be traced: under `jit` and `scan` only that objective runs (`lax.switch`), so a
    step costs about 1/K of `value_and_objective_grads`. Under `vmap` over indices all of them run.

    Args:
      objectives: a mapping from name to a pure function `(params, *args) -> scalar`; K objectives,
        ordered by sorted name.

    Returns:
      `fn(params, index, *args) -> (loss [], grad)`, with leaves of `grad` shaped as those of
      `params`. An index out of range is clipped.

    Raises:
      ValueError: when objectives is not a mapping, or empty.
    """
    if not isinstance(objectives, Mapping) or not objectives:
        raise ValueError(
            f"objectives is {type(objectives).__name__}; give a mapping from name to function, "
            "of which one can run without the others"
        )
    branches = [jax.value_and_grad(objectives[name]) for name in sorted(objectives)]

    def value_and_grad(params: PyTree, index: Array | int, *args: Any) -> tuple[Array, PyTree]:
        return jax.lax.switch(index, branches, params, *args)

    return value_and_grad


def gramian(grads: PyTree) -> Array:
    """The Gramian `G[i, j] = <g_i, g_j>` of stacked gradients.

    It is computed leaf by leaf with elementwise products: nothing is flattened or concatenated,
    sharded leaves stay where they are, and no platform lowers the precision of the sums.

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
        # Two stages keep running sums short, which is faster and more accurate than one long sum.
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
    """Picks each objective's own gradient from a stack for loss-indexed parameters.

    Loss-indexed parameters carry a leading objective axis themselves. Row k follows objective k
    alone, so the result is the diagonal of the two leading axes. One row that all objectives share
    follows the sum of their gradients.

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


def check_whole(params: PyTree) -> None:
    """Refuses parameters that `optax.masked` or `multi_transform` has hidden in part.

    The gradients of the hidden part would keep their objective axis, and parameters would grow by
    it. Every transformation of stacks calls this in its `init`.

    Raises:
      ValueError: when parameters are hidden.
    """
    nodes = jax.tree.leaves(params, is_leaf=lambda node: isinstance(node, optax.MaskedNode))
    if any(isinstance(node, optax.MaskedNode) for node in nodes):
        raise ValueError(
            "optax.masked or optax.multi_transform hides some parameters from a transformation of "
            "stacked gradients, and those would stay stacked; put it after the aggregator, as in "
            "optax.chain(aggregators.dcgd(), optax.multi_transform(...)), or let groups= aggregate "
            "parts of the parameters apart"
        )


def check_single(updates: PyTree, params: PyTree, example: str) -> None:
    """Checks that `updates` are no longer stacked.

    Args:
      updates: the updates that a user's transformation made of stacked gradients of `params`.
      params: the parameters.
      example: a correct call with an aggregator, for the message.

    Raises:
      ValueError: when an update has another shape than its parameter.
    """
    named = jax.tree.leaves_with_path(params)
    for (path, param), update in zip(named, jax.tree.leaves(updates), strict=True):
        if jnp.shape(update) != jnp.shape(param):
            raise ValueError(
                f"no aggregator follows the stacked gradients: the update of {path_name(path)} has "
                f"shape {list(jnp.shape(update))}, the parameter {list(jnp.shape(param))}; put one "
                f"first, as in {example}"
            )


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
                "compute them with modsync_jax.value_and_objective_grads, aggregate them once, and "
                "let optax.MultiSteps and the like wrap only transformations after the aggregator"
            )
    return count


def check_count(grads: PyTree, params: PyTree, expected: int) -> None:
    """Raises a `ValueError` unless `grads` is a stack of `expected` gradients of `params`."""
    count = check_stacked(grads, params)
    if count != expected:
        raise ValueError(f"gradients are of {count} objectives, but {expected} were announced")


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
