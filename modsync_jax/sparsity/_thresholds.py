"""Thresholds, the masks that they cut, and the share of a network that remains."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from modsync_jax import gradients
from modsync_jax.sparsity._step import long_tailed_step

PyTree = Any


def init_thresholds(
    params: PyTree,
    num_objectives: int,
    *,
    select: Callable[[str, Array], bool] | None = None,
    output_axis: int = -1,
) -> PyTree:
    """One zero threshold per objective and output unit of every selected parameter.

    Thresholds are float32 or, for float64 parameters, float64: in bfloat16 a step of 1e-4 vanishes
    beside a threshold of 0.03.

    Args:
      params: parameters, a pytree of arrays.
      num_objectives: K, the number of threshold vectors per layer; 1 shares one vector among all
        objectives (dynamic sparse training).
      select: predicate `(path, leaf) -> bool`, with paths like `params/Dense_0/kernel`. Default:
        floating-point leaves of two or more axes.
      output_axis: the axis of a leaf that counts output units: -1 for Flax and Haiku (`[in, out]`),
        0 for Equinox (`[out, in]`).

    Returns:
      The structure of `params` with leaves `[K, 1, ..., out, ..., 1]`, broadcastable against the
      parameter, and None where there are no thresholds.

    Raises:
      ValueError: when `num_objectives` is not positive, or `select` matches no leaf, a leaf without
        `output_axis`, or a leaf that is all zeros. A weight of exactly 0 is masked and has no
        gradient while its threshold is not negative. Tracers are not checked for zeros.
    """
    if num_objectives < 1:
        raise ValueError(f"num_objectives is {num_objectives}; it must be 1 or more")
    choose = select or (lambda _, leaf: leaf.ndim >= 2)

    def init(path: tuple[Any, ...], leaf: Array) -> Array | None:
        name = gradients.path_name(path)
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or not choose(name, leaf):
            return None
        if not -leaf.ndim <= output_axis < leaf.ndim:
            raise ValueError(
                f"{name} has {leaf.ndim} axes and no output_axis={output_axis}; choose another "
                "axis, or leave it out with select"
            )
        if _is_zero(leaf):
            raise ValueError(
                f"{name} is all zeros, and a masked weight of 0 never moves; initialise it at "
                "random, or leave it out with select=lambda path, leaf: ..."
            )
        shape = [1] * leaf.ndim
        shape[output_axis] = leaf.shape[output_axis]
        return jnp.zeros([num_objectives, *shape], jnp.result_type(leaf.dtype, jnp.float32))

    thresholds = jax.tree.map_with_path(init, params)
    if not jax.tree.leaves(thresholds):
        names = [gradients.path_name(path) for path, _ in jax.tree.leaves_with_path(params)]
        raise ValueError(
            f"no parameter gets thresholds; select must match a floating-point leaf of: "
            f"{', '.join(names)}"
        )
    return thresholds


def masks(weights: PyTree, thresholds: PyTree, *, structural_gradient: bool = True) -> PyTree:
    """The masks `M = S(|w| - mean_k t_k)` of Eq. 6, differentiable by the long-tailed estimator.

    Args:
      weights: parameters, a pytree of arrays.
      thresholds: as `init_thresholds` returns them.
      structural_gradient: whether gradients reach the weights through `|w|` inside the step, as in
        dynamic sparse training, or only through the product with the mask.

    Returns:
      The structure of `weights`: 0 or 1 in its shape and dtype, and None where there are no
      thresholds.
    """

    def mask(weight: Array, threshold: Array | None) -> Array | None:
        if threshold is None:
            return None
        magnitude = jnp.abs(weight if structural_gradient else jax.lax.stop_gradient(weight))
        return long_tailed_step(magnitude - threshold.mean(0)).astype(weight.dtype)

    return jax.tree.map(mask, weights, thresholds)


class KeepRatio(NamedTuple):
    """Shares of the masked parameters that are kept: `overall` [], and `layers`, [] by path."""

    overall: Array
    layers: dict[str, Array]


def keep_ratio(weights: PyTree, thresholds: PyTree) -> KeepRatio:
    """The share of parameters above their thresholds, per layer and overall.

    Args:
      weights: parameters, a pytree of arrays.
      thresholds: as `init_thresholds` returns them.

    Returns:
      Shares between 0 and 1, float32 scalars.
    """
    kept = kept_share(weights, thresholds)
    layers = {gradients.path_name(path): share for path, share in jax.tree.leaves_with_path(kept)}
    masked = jax.tree.map(lambda w, t: None if t is None else w.size, weights, thresholds)
    sizes = jnp.array(jax.tree.leaves(masked), jnp.float32)
    return KeepRatio(jnp.average(jnp.stack(list(layers.values())), weights=sizes), layers)


def describe(weights: PyTree, thresholds: PyTree, names: Sequence[str]) -> dict[str, Array]:
    """Columns of metrics: the shares of weights kept, and mean thresholds.

    Args:
      weights: parameters, a pytree of arrays.
      thresholds: as `init_thresholds` returns them.
      names: of the K objectives in order.

    Returns:
      `keep` and `keep/<path>`, and `threshold/<name>/<path>` by objective, or
      `threshold/all/<path>` where the objectives share one row.
    """
    overall, layers = keep_ratio(weights, thresholds)
    row = {"keep": overall} | {f"keep/{name}": share for name, share in layers.items()}
    for path, threshold in jax.tree.leaves_with_path(thresholds):
        owners = names if len(threshold) == len(names) else ("all",)
        for owner, mean in zip(owners, threshold.reshape(len(threshold), -1).mean(1), strict=True):
            row[f"threshold/{owner}/{gradients.path_name(path)}"] = mean
    return row


def kept_share(weights: PyTree, thresholds: PyTree) -> PyTree:
    """The share of each leaf above its thresholds: [] float32, None where there are none.

    It is NaN where a weight or a threshold is NaN: such a layer has no share.
    """

    def share(weight: Array, threshold: Array | None) -> Array | None:
        if threshold is None:
            return None
        excess = jnp.abs(weight) - threshold.mean(0)
        kept = jnp.mean(excess > 0, dtype=jnp.float32)
        return jnp.where(jnp.isnan(excess).any(), jnp.nan, kept)

    return jax.tree.map(share, weights, thresholds)


def _is_zero(leaf: Array) -> bool:
    """Whether all entries are known to be 0 before anything runs."""
    if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array | np.ndarray):
        return False
    # NumPy, because this may run while something else is traced.
    return getattr(leaf, "is_fully_addressable", True) and not np.any(np.asarray(leaf))
