"""What the study trains: methods under their names, sizes, and the cells of tables and figures."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

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

CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "paper": _PAPER,
    "schedule": {"threshold_schedule": "weights"},
    "losses": {"sparsity_pull": "losses"},
    "schedule, losses": {"threshold_schedule": "weights", "sparsity_pull": "losses"},
    "half": {"min_keep": 0.5},
    "half, schedule": {"min_keep": 0.5, "threshold_schedule": "weights"},
    "gentle": {"threshold_learning_rate": 1e-5},
    "descent": {"threshold_optimizer": "sgd", "threshold_learning_rate": 1.0},
}
"""Settings of thresholds from which the default is chosen; what they change is the paper's."""

CHOICES: Mapping[str, Mapping[str, Any]] = {
    "distance of units": {"granularity": "unit"},
    "inner layers": {"masked_layers": "inner"},
    "no structural gradient": {"structural_gradient": False},
    "no reset": {"reset_keep": 0.0},
}
"""What the paper leaves open of the thresholds, each decided in the other way."""

SETUPS: Mapping[str, Mapping[str, Any]] = {
    "four layers": {"depth": 4},
    "conditions apart": {"objectives": "each"},
}
"""What the paper leaves open of the training, each decided in the other way."""

_KEEP = 0.86  # the share that the default keeps, in the mean over the candidates' study


def narrow_and_deep(width: int) -> dict[str, int]:
    """Half the width, and as many layers as make up for it: as many weights as of five layers."""
    half = max(width // 2, 1)
    return {"width": half, "depth": 1 + round(4 * width * (width + 1) / (half * (half + 1)))}


def narrower(width: int) -> dict[str, int]:
    """The width at which five layers have as many weights as ModSync keeps of them."""
    return {"width": max(round(width * math.sqrt(_KEEP)), 1)}


CONTROLS: Mapping[str, Variant] = {
    "magnitude": Variant(f"magnitude(keep={_KEEP},steps=5000)+dcgd"),
    "dropconnect": Variant(f"dropconnect(rate={1 - _KEEP:.2g})+dcgd"),
    "l1 of 1e-7": Variant("dcgd", {"l1": 1e-7}),
    "l1 of 1e-6": Variant("dcgd", {"l1": 1e-6}),
    "narrower": Variant("dcgd", shape=narrower),
    "narrow and deep": Variant("dcgd", shape=narrow_and_deep),
}
"""What may do the same as ModSync's masks, and networks of other shapes, each with `dcgd`."""

VARIANTS: Mapping[str, Variant] = {
    "adam": Variant("sum"),
    **{name: Variant(name) for name in _BASELINES},
    **_THRESHOLDS,
    **{
        f"{name}, {candidate}": Variant(name, {**_PAPER, **settings})
        for name in _SYNCED
        for candidate, settings in CANDIDATES.items()
    },
    **{
        f"modsync+dcgd, {name}": Variant("modsync+dcgd", {**_PAPER, **settings})
        for name, settings in {**CHOICES, **SETUPS}.items()
    },
    **{f"dcgd, {name}": Variant("dcgd", settings) for name, settings in SETUPS.items()},
    **{f"dcgd, {name}": variant for name, variant in CONTROLS.items()},
    "adam, narrow and deep": Variant("sum", shape=narrow_and_deep),
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
        settings={"schedule": "cosine"},
    ),
    "candidates": Scale(
        steps=10_000,
        seeds=3,
        first_seed=200,
        width=64,
        widths=(16, 64),
        points={"residual": 256},
        settings={"schedule": "cosine"},
        rates=(1e-3,),
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


Pairs = Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class _What:
    """What a table or figure needs.

    Attributes:
      title: what it shows.
      variants: names of `VARIANTS`.
      problems: names of problems.
      all_widths: whether it needs all widths of a scale, or the one of its tables.
      pairs: methods and their bases by the name of a setting, where settings are compared.
    """

    title: str
    variants: Sequence[str]
    problems: Sequence[str]
    all_widths: bool
    pairs: Mapping[str, Pairs] = dataclasses.field(default_factory=dict)


def _settings(title: str, pairs: Mapping[str, Pairs], all_widths: bool) -> _What:
    """A comparison of settings of thresholds, on the two problems that are quickest to train."""
    variants = dict.fromkeys(name for of in pairs.values() for pair in of for name in pair[::-1])
    return _What(title, tuple(variants), ("burgers", "helmholtz2d"), all_widths, pairs)


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
    "candidates": _settings(
        "Settings of thresholds",
        {name: [(f"modsync+{base}, {name}", base) for base in _BASES] for name in CANDIDATES},
        all_widths=True,
    ),
    "choices": _settings(
        "What the paper leaves open",
        {
            **{name: [(f"modsync+dcgd, {name}", "dcgd")] for name in ("paper", *CHOICES)},
            **{name: [(f"modsync+dcgd, {name}", f"dcgd, {name}")] for name in SETUPS},
        },
        all_widths=False,
    ),
    "controls": _settings(
        "What may do the same as ModSync",
        {
            **{name: [(name, "dcgd")] for name in ("modsync+dcgd", *_ABLATION)},
            **{name: [(f"dcgd, {name}", "dcgd")] for name in CONTROLS},
            "narrow and deep, adam": [("adam, narrow and deep", "adam")],
        },
        all_widths=False,
    ),
}
"""The paper's tables and figures, the choice of the default, and the questions of the protocol."""


def variants(what: str, preset: str) -> list[str]:
    """Returns the names of the methods in a table or figure.

    Args:
      what: a name of `WHAT`.
      preset: whose settings thresholds have, of `PRESETS`; comparisons of settings name their own.
    """
    names = WHAT[what].variants
    if preset == "default" or WHAT[what].pairs:
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
