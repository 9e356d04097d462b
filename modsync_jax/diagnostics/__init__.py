"""Measures of how losses share a network, for any JAX code.

A measure is a pure function from a `Snapshot` of a training step to named scalars. `MEASURES` has
those of a snapshot alone by name; others need thresholds or batches too.
"""

from modsync_jax.diagnostics._arrays import EDGES, histograms, slices, tangent_kernel
from modsync_jax.diagnostics._diagnosis import (
    CONFLICT,
    IMBALANCE,
    LOW,
    ORTHOGONAL,
    Bounds,
    Diagnosis,
    diagnose,
    evidence,
    judged,
    observed,
)
from modsync_jax.diagnostics._direction import (
    alignment,
    by_layer,
    cosines,
    in_metric,
    norm_ratio,
    stationarity,
)
from modsync_jax.diagnostics._interaction import (
    interaction,
    interaction_cosines,
    interactions,
)
from modsync_jax.diagnostics._modularity import (
    ablation,
    learnt_thresholds,
    modularity,
    shuffled,
    supports,
)
from modsync_jax.diagnostics._snapshot import Measure, Snapshot, pairs
from modsync_jax.diagnostics._watch import EVERY, Sums, Watch, watch

_DIRECTIONS = {"alignment": alignment, "norm_ratio": norm_ratio, "stationarity": stationarity}
MEASURES: dict[str, Measure] = {
    **_DIRECTIONS,
    "layer_cosine": by_layer(cosines),
    "metric_cosine": in_metric(cosines),
    **{f"metric_{name}": in_metric(measure) for name, measure in _DIRECTIONS.items()},
    "interaction": interaction,
}

__all__ = [
    "CONFLICT",
    "EDGES",
    "EVERY",
    "IMBALANCE",
    "LOW",
    "MEASURES",
    "ORTHOGONAL",
    "Bounds",
    "Diagnosis",
    "Measure",
    "Snapshot",
    "Sums",
    "Watch",
    "ablation",
    "alignment",
    "by_layer",
    "cosines",
    "diagnose",
    "evidence",
    "histograms",
    "in_metric",
    "interaction",
    "interaction_cosines",
    "interactions",
    "judged",
    "learnt_thresholds",
    "modularity",
    "norm_ratio",
    "observed",
    "pairs",
    "shuffled",
    "slices",
    "stationarity",
    "supports",
    "tangent_kernel",
    "watch",
]
