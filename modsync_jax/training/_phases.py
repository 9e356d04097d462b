"""The phases of a run, as a user writes them: `adam:2000,ssbroyden(points=4):6000`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from modsync_jax import _calls
from modsync_jax._names import unknown
from modsync_jax.training import _optimizers

DTYPES = ("float32", "float64")


@dataclasses.dataclass(frozen=True)
class FirstOrder:
    """Settings of steps by the run's method and an optax optimiser, on fresh points every step.

    Attributes:
      learning_rate: 0 for the run's.
      schedule: empty for the run's; it counts the steps of the phase.
      dtype: floating type; empty for the run's.
    """

    learning_rate: float = 0.0
    schedule: str = ""
    dtype: str = ""


@dataclasses.dataclass(frozen=True)
class Kept:
    """Settings of phases whose points stay for a while.

    Attributes:
      points: the number of points, as a multiple of those of a step.
      redraw: iterations between two draws of points; 0 to keep the first ones.
      rad: the power of the residual in the density of redrawn points, see `_points.adapted`; 0 to
        draw as the problem does.
      dtype: floating type; empty for the run's.
      r3: at a draw points stay where the residual is above this many times its mean, see
        `_points.retained`; 0 to redraw them all.
    """

    points: int
    redraw: int
    rad: float
    dtype: str = ""
    r3: float = 0.0

    def __post_init__(self) -> None:
        if self.r3 and not self.redraw:
            raise ValueError("r3 keeps points at a draw, but redraw=0 draws only once")

    @property
    def needs_jacobian(self) -> bool:
        """Whether the residuals' Jacobian is in memory, one row for each residual."""
        return False


@dataclasses.dataclass(frozen=True)
class LBFGS(Kept):
    """Settings of L-BFGS.

    Attributes:
      memory: pairs of steps and changes of the gradient to keep.
    """

    points: int = 8
    redraw: int = 0
    rad: float = 0.0
    memory: int = 20


@dataclasses.dataclass(frozen=True)
class Dense(Kept):
    """Settings of quasi-Newton methods with a dense inverse Hessian, see `optimizers.ssbroyden`.

    Attributes:
      jacobian: at each draw of points the inverse Hessian starts again from the Gauss-Newton matrix
        `2 JᵀJ + λI`, with λ this share of the loss (Yamashita & Fukushima 2001: a damping
        proportional to the squared residuals); 0 to keep it instead.
    """

    points: int = 3
    redraw: int = 500
    rad: float = 1.0
    dtype: str = "float64"
    jacobian: float = 0.0

    @property
    def needs_jacobian(self) -> bool:
        return self.jacobian > 0


@dataclasses.dataclass(frozen=True)
class GaussNewton(Kept):
    """Settings of `optimizers.gauss_newton`.

    Attributes:
      damping: the first damping, relative to the Jacobian.
      momentum: the share of the latest step around which the next one is sought.
      cg: iterations of conjugate gradients for a step; 0 to factorise a dense Jacobian's product.
      sketch: the rank of their preconditioner; 0 for none.
    """

    points: int = 2
    redraw: int = 10
    rad: float = 1.0
    dtype: str = "float64"
    damping: float = 1e-3
    momentum: float = 0.0
    cg: int = 0
    sketch: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sketch and not self.cg:
            raise ValueError("sketch preconditions conjugate gradients; give cg, such as cg=100")

    @property
    def needs_jacobian(self) -> bool:
        return not self.cg


Settings = FirstOrder | LBFGS | Dense | GaussNewton

KINDS: dict[str, type[Settings]] = {
    **dict.fromkeys(_optimizers.OPTIMIZERS, FirstOrder),
    "lbfgs": LBFGS,
    "bfgs": Dense,
    "ssbfgs": Dense,
    "ssbroyden": Dense,
    "gauss-newton": GaussNewton,
}


# How readers know the names of optimisers and phases.
TITLES = {
    "adam": "Adam",
    "adamw": "AdamW",
    "muon": "Muon",
    "sgd": "SGD",
    "soap": "SOAP",
    "lbfgs": "L-BFGS",
    "bfgs": "BFGS",
    "ssbfgs": "SSBFGS",
    "ssbroyden": "SSBroyden",
    "gauss-newton": "Gauss-Newton",
}


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase of a run.

    Attributes:
      name: a name of `KINDS`; for the first phase the run's optimiser.
      steps: its steps or iterations.
      settings: an instance of `KINDS[name]`.
    """

    name: str
    steps: int
    settings: Settings

    def __str__(self) -> str:
        default = type(self.settings)()
        given = {
            name: value
            for name, value in vars(self.settings).items()
            if value != getattr(default, name)
        }
        return f"{_calls.written(self.name, given)}:{self.steps}"

    @property
    def freezes(self) -> bool:
        """Whether masks stay as they are in this phase, and in those after it."""
        return not isinstance(self.settings, FirstOrder)


def parse(text: str | Sequence[str]) -> tuple[Phase, ...]:
    """Returns the phases in `name(setting=value,...):steps,...`, or in a sequence of such texts.

    Raises:
      ValueError: on another form, an unknown name or setting, or a value that is not allowed.
    """
    whole = text if isinstance(text, str) else ",".join(text)
    return tuple(map(_one, _calls.split(whole, ","))) if whole.strip() else ()


def _one(piece: str) -> Phase:
    called, _, count = piece.rpartition(":")
    form = f"{piece!r} is not name:steps or name(setting=value,...):steps, such as lbfgs:3000"
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(form)
    try:
        name, given = _calls.read(called)
    except ValueError:
        raise ValueError(form) from None
    if name not in KINDS:
        raise unknown("phase", name, KINDS)
    known = {field.name: field for field in dataclasses.fields(KINDS[name])}
    for key, value in given.items():
        if key not in known:
            raise unknown(f"setting of {name}", key, known)
        _check(name, key, value, known[key].type)
    return Phase(name, int(count), KINDS[name](**given))


def _check(name: str, key: str, value: Any, kind: Any) -> None:
    """Raises a `ValueError` on a value that is not allowed."""
    choices = {"dtype": DTYPES, "schedule": _optimizers.SCHEDULES}
    if key in choices:
        if value not in choices[key]:
            raise unknown(f"{key} of {name}", value, choices[key])
        return
    low = 1 if key in ("points", "memory") else 0
    wanted = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted) or not low <= value < float("inf"):
        number = "a whole number" if kind is int else "a number"
        raise ValueError(f"{key} of {name} is {value!r}; it must be {number} of {low} or more")
