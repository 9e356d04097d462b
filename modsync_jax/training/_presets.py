"""Sets of settings under one name; settings that are given beside a preset replace its own."""

from collections.abc import Mapping
from typing import Any

from modsync_jax._names import unknown

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Quasi-Newton from the random start; see docs/accuracy.md for what each setting gives.
    "best": {
        "width": 20,
        "depth": 4,
        "activation": "sin/tanh",
        "omega": 4.0,
        "objectives": "each",
        "steps": 0,
        "then": "ssbroyden:1000000",
        "points": {"residual": 1000},  # of which the phase takes three times as many
        "balance": 10.0,
        "time_limit": 300.0,
        "selection": "loss",
        "chunk": 50,
        "eval_every": 100,
        "checkpoint_every": 2_000,
    },
    # The thresholds of every run in the ModSync paper, arXiv:2606.20156.
    "modsync-paper": {
        "threshold_optimizer": "adam",
        "threshold_learning_rate": 1e-4,
        "threshold_schedule": "constant",
        "sparsity_weight": 1e-4,
        "sparsity_pull": "constant",
        "beta": 0.3,
        "granularity": "layer",
        "masked_layers": "all",
        "structural_gradient": True,
        "min_keep": 0.0,
        "reset_keep": 0.01,
    },
}


def expanded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings with those of the preset that they name, under `preset`, in its place.

    Raises:
      ValueError: on an unknown preset.
    """
    given = dict(settings)
    name = given.pop("preset", "")
    if name and name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return {**PRESETS[name], **given} if name else given
