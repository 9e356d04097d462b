"""What the study trains: methods under their names, sizes, and the cells of tables and figures."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from modsync_jax import training
from modsync_jax.studies._cells import Cell, Scale, Variant

_BASES = ("dcgd", "dcgd-proj")
_BASELINES = ("lra", "ntk", "multi-adam", "pcgrad", "cagrad", "dcgd", "config", "dcgd-proj")
_SYNCED = tuple(f"modsync+{base}" for base in _BASES)
_ABLATION = ("dcgd + one threshold", "dcgd + two thresholds")

_PAPER = training.PRESETS["modsync-paper"]
_THRESHOLDS: Mapping[str, Variant] = {
    **{name: Variant(name) for name in _SYNCED},
    # The rows of the paper's ablation between DCGD and ModSync.
    "dcgd + one threshold": Variant("modsync+dcgd", {"shared_threshold": True, "beta": math.inf}),
    "dcgd + two thresholds": Variant("modsync+dcgd", {"beta": math.inf}),
}
PRESETS = ("default", "paper")
"""Whose settings the thresholds have: this package's defaults, or those of the paper."""

VARIANTS: Mapping[str, Variant] = {
    "adam": Variant("sum"),
    **{name: Variant(name) for name in _BASELINES},
    **_THRESHOLDS,
    **{
        f"{name}, paper": Variant(of.method, {**_PAPER, **of.settings})
        for name, of in _THRESHOLDS.items()
    },
}
"""Methods by their names in the study."""

PROBLEMS = ("burgers", "helmholtz2d", "klein_gordon2d", "helmholtz3d", "klein_gordon3d")
_FOUR = tuple(name for name in PROBLEMS if name != "helmholtz3d")

SCALES: Mapping[str, Scale] = {
    "small": Scale(
        steps=10_000,
        seeds=5,
        width=128,
        widths=(8, 16, 32, 64, 128),
        points={"residual": 256},
        settings={"schedule": "exponential", "decay_rate": 0.9, "decay_steps": 200},
    ),
    "full": Scale(
        steps=50_000,
        seeds=3,
        width=512,
        widths=(16, 32, 64, 128, 256, 512),
        points={"residual": 1280},
        settings={"schedule": "exponential", "decay_rate": 0.9, "decay_steps": 1000},
    ),
}


@dataclasses.dataclass(frozen=True)
class _What:
    """What a table or figure needs.

    Attributes:
      title: what it shows.
      variants: names of `VARIANTS`.
      problems: names of problems.
      all_widths: whether it needs all widths of a scale, or the one of its tables.
    """

    title: str
    variants: Sequence[str]
    problems: Sequence[str]
    all_widths: bool


WHAT: Mapping[str, _What] = {
    "table1": _What("Errors of all methods", ("adam", *_BASELINES, *_SYNCED), PROBLEMS, False),
    "table2": _What(
        "Ablation on Burgers' equation",
        ("adam", "dcgd", *_ABLATION, "modsync+dcgd"),
        ("burgers",),
        False,
    ),
    "fig1": _What("Error against width", ("adam", *_BASES, "pcgrad", "cagrad"), _FOUR, True),
    "fig2": _What("Cosine against step", ("adam",), ("burgers",), True),
    "fig3": _What("Interaction against width", ("adam", "dcgd", _SYNCED[0]), ("burgers",), True),
    "fig4": _What("Error against width", ("adam", *_BASES, *_SYNCED), _FOUR, True),
}
"""The paper's tables and figures."""


def variants(what: str, preset: str) -> list[str]:
    """Returns the names of the methods in a table or figure.

    Args:
      what: a name of `WHAT`.
      preset: whose settings thresholds have, of `PRESETS`.
    """
    names = WHAT[what].variants
    if preset == "default":
        return list(names)
    return [f"{name}, {preset}" if name in _THRESHOLDS else name for name in names]


def cells(what: str, scale: Scale, preset: str = "default") -> list[Cell]:
    """Returns the cells of a table or figure, the quickest ones first.

    Args:
      what: a name of `WHAT`.
      scale: which widths it has.
      preset: as in `variants`.
    """
    needs = WHAT[what]
    widths = scale.widths if needs.all_widths else (scale.width,)
    return [
        Cell(problem, width, name)
        for width in sorted(widths)
        for problem in needs.problems
        for name in variants(what, preset)
    ]
