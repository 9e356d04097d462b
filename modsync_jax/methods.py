"""Methods by name: `dcgd`, `lra+dcgd`, `modsync+ntk+pcgrad`, ... as assembled transformations.

A name is parts joined by `+`, in the order in which they act: `modsync` if weights are to be
masked, any loss balancing, and one aggregator. Without an aggregator the gradients are summed, for
which `adam` is the usual name when nothing else is done. `m-config` and `multi-adam` stand in the
place of aggregator and optimiser.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import optax

from modsync_jax import aggregators, balancing, optimizers
from modsync_jax._names import unknown
from modsync_jax.transform import modsync


@dataclasses.dataclass(frozen=True)
class Part:
    """One word of a method's name.

    Attributes:
      kind: `"mask"`, `"balancing"`, `"aggregator"` or `"optimizer"`.
      summary: what it does, in a line.
      citation: key of its source in `modsync_jax.citations`.
      make: what builds it. It gets by keyword those of `num_objectives`, `objectives` (K too),
        `reference` (index of the residual's objective) and `learning_rate` that it has a parameter
        for.
      alternates: whether it takes the gradient of one objective, and its index, each step.
    """

    kind: str
    summary: str
    citation: str
    make: Callable[..., Any]
    alternates: bool = False


PARTS: Mapping[str, Part] = {
    "modsync": Part("mask", "learned thresholds mask the weights", "modsync", modsync),
    "lra": Part(
        "balancing",
        "largest residual gradient over mean gradient",
        "lra",
        balancing.lra,
    ),
    "ntk": Part("balancing", "traces of the tangent kernel", "ntk", balancing.ntk),
    "norm": Part("balancing", "equal gradient norms", "norm", balancing.norm_balance),
    "gradnorm": Part(
        "balancing", "gradient norms that follow training rates", "gradnorm", balancing.gradnorm
    ),
    "relobralo": Part(
        "balancing", "relative loss with random look-back", "relobralo", balancing.relobralo
    ),
    "softadapt": Part(
        "balancing", "softmax of the losses' rates", "softadapt", balancing.softadapt
    ),
    "sa": Part("balancing", "loss weights that ascend", "self_adaptive", balancing.self_adaptive),
    "adam": Part("aggregator", "gradient of the summed losses", "adam", aggregators.sum),
    "dcgd": Part("aggregator", "dual cone gradient descent, center", "dcgd", aggregators.dcgd),
    "dcgd-avg": Part(
        "aggregator", "the same, average of projections", "dcgd", lambda: aggregators.dcgd("avg")
    ),
    "dcgd-proj": Part(
        "aggregator", "the same, one projection", "dcgd", lambda: aggregators.dcgd("proj")
    ),
    "config": Part("aggregator", "equal cosine to all gradients", "config", aggregators.config),
    "pcgrad": Part(
        "aggregator", "conflicting components projected away", "pcgrad", aggregators.pcgrad
    ),
    "cagrad": Part(
        "aggregator", "best for the worst objective, near the mean", "cagrad", aggregators.cagrad
    ),
    "mgda": Part("aggregator", "shortest vector of the convex hull", "mgda", aggregators.mgda),
    "chebyshev": Part(
        "aggregator", "center of the dual cone", "chebyshev", aggregators.chebyshev_center
    ),
    "imtl-g": Part(
        "aggregator", "equal projections on all gradients", "imtl_g", aggregators.imtl_g
    ),
    "aligned-mtl": Part(
        "aggregator", "singular values made equal", "aligned_mtl", aggregators.aligned_mtl
    ),
    "upgrad": Part(
        "aggregator", "mean of projections on the dual cone", "upgrad", aggregators.upgrad
    ),
    "dual-proj": Part(
        "aggregator", "projection of the mean on the dual cone", "dual_proj", aggregators.dual_proj
    ),
    "nash-mtl": Part("aggregator", "Nash bargaining solution", "nash_mtl", aggregators.nash_mtl),
    "grad-drop": Part(
        "aggregator", "one sign per coordinate, at random", "grad_drop", aggregators.grad_drop
    ),
    "m-config": Part(
        "optimizer",
        "ConFIG on momenta, one objective's gradient a step",
        "config",
        optimizers.momentum_config,
        alternates=True,
    ),
    "multi-adam": Part(
        "optimizer", "Adam per objective, then the mean", "multi_adam", optimizers.multi_adam
    ),
}


def names() -> list[str]:
    """Methods of one part, and ModSync on every aggregator."""
    single = [name for name, part in PARTS.items() if part.kind != "mask"]
    bases = [name for name, part in PARTS.items() if part.kind == "aggregator"]
    return [*single, *("modsync+" + name for name in bases)]


def parse(name: str) -> tuple[str, ...]:
    """Returns the parts of a method's name in the order in which they act.

    Raises:
      ValueError: on an unknown part, with the nearest name, or parts that do not go together.
    """
    parts = tuple(name.split("+"))
    for part in parts:
        if part not in PARTS:
            if len(parts) == 1:
                raise unknown("method", part, PARTS)
            raise ValueError(f"method {name!r}: {unknown('part', part, PARTS)}")
    kinds = [PARTS[part].kind for part in parts]
    order = ["mask", "balancing", "aggregator"]
    if "optimizer" in kinds and len(parts) > 1:
        taken = parts[kinds.index("optimizer")]
        raise ValueError(f"method {name!r}: {taken} does not combine with others; it stands alone")
    if "optimizer" not in kinds and (
        kinds != sorted(kinds, key=order.index)
        or kinds.count("mask") > 1
        or kinds.count("aggregator") > 1
        or len(set(parts)) < len(parts)
    ):
        raise ValueError(
            f"method {name!r} is not [modsync+][balancing+...][aggregator], in this order and each "
            "once, for example modsync+lra+dcgd"
        )
    if kinds == ["mask"]:
        raise ValueError(f"method {name!r} needs a base, for example modsync+dcgd or modsync+adam")
    return parts


def is_masked(name: str) -> bool:
    """Whether a method trains `ModSyncParams`, weights and thresholds, or plain parameters."""
    return parse(name)[0] == "modsync"


def alternates(name: str) -> bool:
    """Whether a method takes the gradient of one objective, and its index, each step."""
    return PARTS[parse(name)[0]].alternates


def build(
    name: str,
    optimizer: optax.GradientTransformation,
    thresholds_optimizer: optax.GradientTransformation | None = None,
    *,
    num_objectives: int = 2,
    reference: int = -1,
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    **modsync_settings: Any,
) -> optax.GradientTransformationExtraArgs:
    """Assembles a method: from stacked gradients to updates.

    Args:
      name: as `parse` takes it. `adam` stands for the summed gradient before whatever `optimizer`.
      optimizer: what follows the aggregator.
      thresholds_optimizer: what moves thresholds, for `modsync+...`.
      num_objectives: K, for methods with state per objective.
      reference: index of the residual's objective, for `lra`.
      learning_rate: of `m-config` and `multi-adam`, which take the optimiser's place.
      **modsync_settings: further arguments of `modsync_jax.modsync`.

    Raises:
      ValueError: on an unknown name, with the nearest one.
    """
    given = {
        "num_objectives": num_objectives,
        "objectives": num_objectives,
        "reference": reference,
        "learning_rate": learning_rate,
    }

    def make(part: Part) -> optax.GradientTransformationExtraArgs:
        wanted = inspect.signature(part.make).parameters
        return part.make(**{key: value for key, value in given.items() if key in wanted})

    parts = [PARTS[part] for part in parse(name)]
    steps = [make(part) for part in parts if part.kind != "mask"]
    if parts[0].kind == "optimizer":
        return steps[0]
    if parts[-1].kind != "aggregator":
        steps.append(aggregators.sum())
    chain = optax.chain(*steps, optimizer)
    return modsync(chain, thresholds_optimizer, **modsync_settings) if is_masked(name) else chain
