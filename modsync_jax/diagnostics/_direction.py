"""Measures of the directions and sizes of the objectives' gradients."""

import jax
import jax.numpy as jnp
from jax import Array

from modsync_jax import aggregators, gradients
from modsync_jax.aggregators import _cosines
from modsync_jax.diagnostics._snapshot import Measure, Snapshot, pairs


def cosines(seen: Snapshot) -> dict[str, Array]:
    """`cosine/a~b` of each pair of gradients; 0 if one of them is zero."""
    found, _ = _cosines.cosines(seen.gramian())
    return {f"cosine/{name}": found[j, k] for j, k, name in pairs(seen.names)}


def alignment(seen: Snapshot) -> dict[str, Array]:
    """`alignment`, the score `2 |mean_k u_k|² - 1` of K unit gradients, between -1 and 1.

    For two gradients it is their cosine. It is 1 if all gradients point one way.

    References:
      Wang et al., "Gradient Alignment in Physics-informed Neural Networks: A Second-Order
      Optimization Perspective", arXiv:2502.00604.
    """
    found, _ = _cosines.cosines(seen.gramian())
    return {"alignment": 2 * found.mean() - 1}


def norm_ratio(seen: Snapshot) -> dict[str, Array]:
    """`norm_ratio`, the largest gradient's norm over the smallest one's; infinite for zero."""
    norms = jnp.sqrt(jnp.diagonal(seen.gramian()))
    return {"norm_ratio": norms.max() / norms.min()}


def stationarity(seen: Snapshot) -> dict[str, Array]:
    """`stationarity`, the distance of the gradients' convex hull from zero, and `.../relative`.

    It is zero at Pareto-stationary points, where no step lowers all losses. The relative one is
    over the largest gradient's norm.

    References:
      Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization",
      Comptes Rendus Mathématique 350, 2012.
    """
    gramian = seen.gramian()
    weights = aggregators.mgda_weights(gramian)
    gap = jnp.sqrt(jnp.maximum(weights @ gramian @ weights, 0.0))
    largest = jnp.sqrt(jnp.diagonal(gramian).max())
    relative = jnp.where(largest > 0, gap / jnp.where(largest > 0, largest, 1.0), 0.0)
    return {"stationarity": gap, "stationarity/relative": relative}


def by_layer(measure: Measure) -> Measure:
    """Returns a measure of the gradients of each leaf apart: columns `layer_<column>/<path>`."""

    def of_layers(seen: Snapshot) -> dict[str, Array]:
        row = {}
        for path, leaf in jax.tree.leaves_with_path(seen.grads):
            for column, value in measure(
                seen._replace(grads=leaf, inner=None, products=None)
            ).items():
                row[f"layer_{column}/{gradients.path_name(path)}"] = value
        return row

    return of_layers


def in_metric(measure: Measure) -> Measure:
    """Returns a measure in the snapshot's metric: columns `metric_<column>`, NaN without one."""

    def in_its_metric(seen: Snapshot) -> dict[str, Array]:
        missing, inside = seen.metric is None, measure(seen._replace(inner=seen.metric))
        found = {f"metric_{column}": value for column, value in inside.items()}
        return {name: jnp.full_like(v, jnp.nan) if missing else v for name, v in found.items()}

    return in_its_metric
