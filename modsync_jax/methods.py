"""Methods by name: `dcgd`, `lra(alpha=0.5)+dcgd`, `modsync+ntk+pcgrad`, ... as transformations.

A name is parts joined by `+`, in the order in which they act: `modsync` if weights are to be
masked, any loss balancing, and one aggregator. Without an aggregator the gradients are summed, for
which `adam` is the usual name when nothing else is done. `m-config` and `multi-adam` stand in the
place of aggregator and optimiser. Hyperparameters of a part stand in parentheses behind it.
"""

import ast
import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import optax

from modsync_jax import aggregators, balancing, optimizers
from modsync_jax._moved import missing
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
        for, and its hyperparameters.
      alternates: whether it takes the gradient of one objective, and its index, each step.
    """

    kind: str
    summary: str
    citation: str
    make: Callable[..., Any]
    alternates: bool = False

    @property
    def hyperparameters(self) -> dict[str, inspect.Parameter]:
        """What may stand in parentheses behind the name."""
        found = inspect.signature(self.make).parameters
        return {} if self.kind == "mask" else {n: p for n, p in found.items() if n not in _GIVEN}


# What a run sets itself, and what is no number or word.
_GIVEN = ("num_objectives", "objectives", "reference", "learning_rate", "key", "optimizer", "mask")

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


OWN = "own"  # the name of a transformation that was handed over as an object


@dataclasses.dataclass(frozen=True)
class Method:
    """A method's parts with their hyperparameters, as `parse` makes it.

    Attributes:
      parts: the parts by name in the order in which they act, with hyperparameters by keyword,
        which may be traced.
      own: an optax transformation from stacked gradients to one direction, in place of parts.
    """

    parts: Mapping[str, Mapping[str, Any]]
    own: optax.GradientTransformation | None = None

    def __str__(self) -> str:
        return "+".join(map(_written, self.parts, self.parts.values())) or OWN

    @property
    def masked(self) -> bool:
        """Whether it trains `ModSyncParams`, weights and thresholds, or plain parameters."""
        return "modsync" in self.parts

    @property
    def alternates(self) -> bool:
        """Whether it takes the gradient of one objective, and its index, each step."""
        return any(PARTS[name].alternates for name in self.parts)

    def replace(self, part: str, **hyperparameters: Any) -> "Method":
        """The same with other hyperparameters of a part; values are not checked."""
        changed = {**self.parts[part], **hyperparameters}
        return dataclasses.replace(self, parts={**self.parts, part: changed})


def names() -> list[str]:
    """Methods of one part, and ModSync on every aggregator."""
    single = [name for name, part in PARTS.items() if part.kind != "mask"]
    bases = [name for name, part in PARTS.items() if part.kind == "aggregator"]
    return [*single, *("modsync+" + name for name in bases)]


def parse(method: str | Method) -> Method:
    """Returns the parts of a method's name, `"lra(alpha=0.5)+dcgd"`, with their hyperparameters.

    Raises:
      ValueError: on an unknown part or hyperparameter, with the nearest name, on one that is not
        `name=value`, or parts that do not go together.
    """
    if isinstance(method, Method):
        return method
    parts: dict[str, Mapping[str, Any]] = {}
    pieces = _split(method)
    for piece in pieces:
        name, _, inside = piece.partition("(")
        if name not in PARTS:
            if len(pieces) == 1:
                raise unknown("method", name, PARTS)
            raise ValueError(f"method {method!r}: {unknown('part', name, PARTS)}")
        parts[name] = _settings(method, piece, PARTS[name]) if inside else {}
    kinds = [PARTS[name].kind for name in parts]
    order = ["mask", "balancing", "aggregator"]
    if "optimizer" in kinds and len(pieces) > 1:
        taken = list(parts)[kinds.index("optimizer")]
        raise ValueError(
            f"method {method!r}: {taken} does not combine with others; it stands alone"
        )
    if "optimizer" not in kinds and (
        kinds != sorted(kinds, key=order.index)
        or kinds.count("mask") > 1
        or kinds.count("aggregator") > 1
        or len(parts) < len(pieces)
    ):
        raise ValueError(
            f"method {method!r} is not [modsync+][balancing+...][aggregator], in this order and "
            "each once, for example modsync+lra+dcgd"
        )
    if kinds == ["mask"]:
        raise ValueError(
            f"method {method!r} needs a base, for example modsync+dcgd or modsync+adam"
        )
    return Method(parts)


def build(
    method: str | Method,
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
      method: as `parse` takes it. `adam` stands for the summed gradient before whatever
        `optimizer`.
      optimizer: what follows the aggregator.
      thresholds_optimizer: what moves thresholds, for `modsync+...`.
      num_objectives: K, for methods with state per objective.
      reference: index of the residual's objective, for `lra`.
      learning_rate: of `m-config` and `multi-adam`, which take the optimiser's place.
      **modsync_settings: further arguments of `modsync_jax.modsync`.

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

    kinds = [PARTS[name].kind for name in method.parts]
    steps = [make(name) for name in method.parts if name != "modsync"]
    if kinds == ["optimizer"]:
        return steps[0]
    if kinds[-1] != "aggregator":
        steps.append(aggregators.sum())
    chain = optax.chain(*steps, optimizer)
    return modsync(chain, thresholds_optimizer, **modsync_settings) if method.masked else chain


def _split(text: str) -> list[str]:
    """The parts of a name; a `+` in parentheses is part of a number."""
    pieces, depth = [""], 0
    for letter in text.replace(" ", ""):
        depth += (letter == "(") - (letter == ")")
        if letter == "+" and not depth:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces


def _settings(method: str, piece: str, part: Part) -> dict[str, Any]:
    """The hyperparameters of a part that is written `name(key=value,...)`."""
    name = piece.partition("(")[0]
    try:
        call = ast.parse(piece.replace("-", "_", name.count("-")), mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise SyntaxError
        found = {str(k.arg): _literal(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(
            f"method {method!r}: {piece!r} is not name(hyperparameter=value,...), for example "
            "cagrad(c=0.3)"
        ) from None
    if part.kind == "mask":
        raise ValueError(
            f"method {method!r}: hyperparameters of modsync are settings of the run, such as "
            "sparsity_weight, beta or min_keep"
        )
    for key in found:
        if key not in part.hyperparameters:
            wrong = unknown(f"hyperparameter of {name}", key, part.hyperparameters)
            raise ValueError(f"method {method!r}: {wrong}")
    return found


def _literal(node: ast.expr) -> Any:
    """A number, a tuple, or a word with or without quotes."""
    if isinstance(node, ast.Name):
        return math.inf if node.id == "inf" else node.id
    return ast.literal_eval(node)


def _written(name: str, hyperparameters: Mapping[str, Any]) -> str:
    inside = ",".join(f"{key}={value}" for key, value in hyperparameters.items())
    return f"{name}({inside})" if inside else name


_MOVED = {
    "is_masked": "modsync_jax.methods.parse(name).masked",
    "alternates": "modsync_jax.methods.parse(name).alternates",
}


def __getattr__(name: str) -> NoReturn:
    raise missing(__name__, name, _MOVED)
