"""Sets of settings under one name; settings that are given beside a preset replace its own."""

from collections.abc import Mapping
from typing import Any

from modsync_jax._names import unknown

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Chosen on the fifteen problems, see docs/accuracy.md.
    "best": {
        "width": 20,
        "depth": 3,
        "steps": 0,
        "then": "ssbroyden:1000000",
        "time_limit": 300.0,
        "selection": "loss",
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
