"""Methods by name: `dcgd`, `lra(alpha=0.5)+dcgd`, `modsync+ntk+pcgrad`, ... as transformations.

A name consists of parts joined by `+`, in the order in which they act: what is trained beside the
weights (`modsync`, `magnitude` or `dropconnect` to mask them, `adapters`), any loss balancing, and
one aggregator. Without an aggregator the gradients are summed; `sum` is the name of that sum alone.
An optimiser follows, which is not part of the name; only `m-config` and `multi-adam` replace both
the aggregator and the optimiser. The hyperparameters of a part follow it in parentheses.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import optax

from modsync_jax import (
    _calls,
    adapters,
    aggregators,
    balancing,
    loss_indexed,
    optimizers,
    pruning,
    transform,
)
from modsync_jax._moved import missing
from modsync_jax._names import unknown


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a method's name.

    Attributes:
      kind: `"beside"` for what is trained beside the weights, `"balancing"`, `"aggregator"` or
        `"optimizer"`.
      summary: one line for the list of methods.
      citation: key of its source in `modsync_jax.citations`.
      make: the function that builds it. Its hyperparameters come by keyword, and so do
        `num_objectives`, `objectives` (K too), `reference` (index of the residual's objective) and
        `learning_rate` if it has a parameter of that name.
      alternates: whether each step takes the gradient of one objective and its index.
      by_run: whether its hyperparameters are settings of the run, none in parentheses.
    """

    kind: str
    summary: str
    citation: str
    make: Callable[..., Any]
    alternates: bool = False
    by_run: bool = False

    @property
    def hyperparameters(self) -> dict[str, inspect.Parameter]:
        """The parameters that a user may set in parentheses."""
        found = inspect.signature(self.make).parameters
        return {} if self.by_run else {n: p for n, p in found.items() if n not in _GIVEN}


# Parameters that the run sets itself, or whose values are neither numbers nor words.
_GIVEN = (
    "num_objectives",
    "objectives",
    "reference",
    "learning_rate",
    "key",
    "optimizer",
    "mask",
    "select",
)

PARTS: Mapping[str, Part] = {
    "modsync": Part(
        "beside",
        "learned thresholds mask the weights",
        "modsync",
        transform.thresholds,
        by_run=True,
    ),
    "adapters": Part(
        "beside", "a low-rank pair of factors per loss", "adapters", adapters.low_rank
    ),
    "magnitude": Part(
        "beside", "masks that keep the largest weights", "magnitude", pruning.by_magnitude
    ),
    "dropconnect": Part("beside", "masks at random", "dropconnect", pruning.at_random),
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
    "sum": Part("aggregator", "gradient of the summed losses", "pinn", aggregators.sum),
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


_OWN = {"modsync": "thresholds"}  # names of own parameters that differ from those of parts
OWN = "own"  # the name of a method that the user gave as a transformation


@dataclasses.dataclass(frozen=True)
class Method:
    """A method's parts with their hyperparameters, as `parse` makes it.

    Attributes:
      parts: the hyperparameters of each part, by the part's name and their own, in the order in
        which the parts act. Values may be traced.
      own: an optax transformation from stacked gradients to one direction, instead of parts.
    """

    parts: Mapping[str, Mapping[str, Any]]
    own: optax.GradientTransformation | None = None

    def __str__(self) -> str:
        return "+".join(map(_calls.written, self.parts, self.parts.values())) or OWN

    @property
    def shared(self) -> "Method":
        """The method of the weights that all losses share, without what is trained beside them."""
        left = {name: given for name, given in self.parts.items() if PARTS[name].kind != "beside"}
        return dataclasses.replace(self, parts=left)

    @property
    def moves_weights(self) -> bool:
        """Whether the method replaces the optimiser too."""
        return any(PARTS[name].kind == "optimizer" for name in self.parts)

    @property
    def alternates(self) -> bool:
        """Whether each step takes the gradient of one objective and its index."""
        return any(PARTS[name].alternates for name in self.parts)

    def replace(self, part: str, **hyperparameters: Any) -> "Method":
        """Returns the method with other hyperparameters of one part; values are not checked."""
        changed = {**self.parts[part], **hyperparameters}
        return dataclasses.replace(self, parts={**self.parts, part: changed})


def names() -> list[str]:
    """Returns the methods of one part, and ModSync with every aggregator."""
    single = [name for name in PARTS if name != "modsync"]
    bases = [name for name, part in PARTS.items() if part.kind == "aggregator"]
    return [*single, *("modsync+" + name for name in bases)]


def parse(method: str | Method) -> Method:
    """Returns the parts of a method's name, `"lra(alpha=0.5)+dcgd"`, with their hyperparameters.

    Raises:
      ValueError: on an unknown part or hyperparameter, with the nearest name, on a hyperparameter
        that is not `name=value`, or on parts that do not go together.
    """
    if isinstance(method, Method):
        return method
    parts: dict[str, Mapping[str, Any]] = {}
    pieces = _calls.split(method, "+")
    for piece in pieces:
        name = piece.partition("(")[0]
        if name == "adam":
            raise ValueError(
                f"method {method!r}: adam is an optimiser; the sum of the gradients before it is "
                "called sum now"
            )
        if name not in PARTS:
            if len(pieces) == 1:
                raise unknown("method", name, PARTS)
            raise ValueError(f"method {method!r}: {unknown('part', name, PARTS)}")
        parts[name] = _settings(method, piece, PARTS[name])
    kinds = [PARTS[name].kind for name in parts]
    if "optimizer" in kinds and len(pieces) > 1:
        taken = list(parts)[kinds.index("optimizer")]
        raise ValueError(
            f"method {method!r}: {taken} does not combine with others; it stands alone"
        )
    if "optimizer" not in kinds and (
        list(parts) != sorted(parts, key=_place)
        or kinds.count("aggregator") > 1
        or len(parts) < len(pieces)
    ):
        raise ValueError(
            f"method {method!r} is not [modsync+][adapters+][magnitude+][dropconnect+]"
            "[balancing+...][aggregator], in this order and each once, for example modsync+lra+dcgd"
        )
    if {"modsync", "magnitude"} <= set(parts):
        raise ValueError(
            f"method {method!r}: modsync and magnitude both cut weights; take one of them"
        )
    if list(parts) == ["modsync"]:
        raise ValueError(f"method {method!r} needs a base, for example modsync+dcgd or modsync+sum")
    return Method(parts)


def _place(name: str) -> int:
    """Where a part may stand; parts that may stand in any order have the same place."""
    kind = PARTS[name].kind
    return list(PARTS).index(name) if kind == "beside" else len(PARTS) + (kind == "aggregator")


def indexed(
    method: str | Method,
    thresholds_optimizer: optax.GradientTransformation | None = None,
    adapters_optimizer: optax.GradientTransformation | None = None,
    *,
    masked: pruning.Select | None = None,
    adapted: pruning.Select | None = None,
    **thresholds_settings: Any,
) -> loss_indexed.Kind:
    """Returns what a method trains beside the weights, most often parameters of single losses.

    Args:
      method: as `parse` takes it.
      thresholds_optimizer: the transformation that moves thresholds, for `modsync+...`.
      adapters_optimizer: the transformation that moves `adapters`.
      masked: predicate `(path, leaf) -> bool` of the weights that may be masked; see
        `sparsity.init_thresholds`.
      adapted: the same of the weights that get adapters; see `adapters.low_rank`.
      **thresholds_settings: further arguments of `transform.thresholds`.

    Raises:
      ValueError: on an unknown name, with the nearest one, or a hyperparameter out of range.
    """
    of_run = {
        "modsync": {"optimizer": thresholds_optimizer, "select": masked, **thresholds_settings},
        "adapters": {"optimizer": adapters_optimizer, "select": adapted},
        "magnitude": {"select": masked},
        "dropconnect": {"select": masked},
    }
    found = {
        _OWN.get(name, name): PARTS[name].make(**given, **of_run[name])
        for name, given in parse(method).parts.items()
        if PARTS[name].kind == "beside"
    }
    if len(found) < 2:
        return next(iter(found.values()), loss_indexed.NONE)
    return loss_indexed.together(**found)


def build(
    method: str | Method,
    optimizer: optax.GradientTransformation,
    beside: loss_indexed.Kind | None = None,
    *,
    num_objectives: int = 2,
    reference: int = -1,
    learning_rate: optax.ScalarOrSchedule = 1e-3,
) -> optax.GradientTransformationExtraArgs:
    """Assembles a method: from stacked gradients to updates.

    Args:
      method: as `parse` takes it. `sum` is the gradient of the summed losses.
      optimizer: the transformation after the aggregator.
      beside: the parameters of single losses; those of `indexed(method)` if None.
      num_objectives: K, for methods with state per objective.
      reference: index of the residual's objective, for `lra`.
      learning_rate: the rate of `m-config` and `multi-adam`, which replace the optimiser.

    Raises:
      ValueError: on an unknown name, with the nearest one, or a hyperparameter out of range.
    """
    method = parse(method)
    if method.own is not None:
        return optax.chain(method.own, optimizer)
    given = {
        "num_objectives": num_objectives,
        "objectives": num_objectives,
        "reference": reference,
        "learning_rate": learning_rate,
    }

    def make(name: str) -> optax.GradientTransformationExtraArgs:
        wanted = inspect.signature(PARTS[name].make).parameters
        fitting = {key: value for key, value in given.items() if key in wanted}
        return PARTS[name].make(**fitting, **method.parts[name])

    names = list(method.shared.parts)
    steps = [make(name) for name in names]
    if [PARTS[name].kind for name in names] == ["optimizer"]:
        return steps[0]
    if not names or PARTS[names[-1]].kind != "aggregator":
        steps.append(aggregators.sum())
    chain = optax.chain(*steps, optimizer)
    return loss_indexed.transformation(chain, indexed(method) if beside is None else beside)


def _settings(method: str, piece: str, part: Part) -> dict[str, Any]:
    """Returns the hyperparameters of a part in the form `name(key=value,...)`."""
    try:
        name, found = _calls.read(piece)
    except ValueError:
        raise ValueError(
            f"method {method!r}: {piece!r} is not name(hyperparameter=value,...), for example "
            "cagrad(c=0.3)"
        ) from None
    if part.by_run and found:
        raise ValueError(
            f"method {method!r}: hyperparameters of modsync are settings of the run, such as "
            "sparsity_weight, beta or min_keep"
        )
    for key in found:
        if key not in part.hyperparameters:
            wrong = unknown(f"hyperparameter of {name}", key, part.hyperparameters)
            raise ValueError(f"method {method!r}: {wrong}")
    return found


_MOVED = {
    "is_masked": "modsync_jax.methods.indexed(name).kept",
    "alternates": "modsync_jax.methods.parse(name).alternates",
}


def __getattr__(name: str) -> NoReturn:
    raise missing(__name__, name, _MOVED)
