"""All settings of a run, as one frozen dataclass.

The command line is made of these fields: each field is a flag, and its metadata is the flag's help.
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, get_args

from modsync_jax import diagnostics, directions, methods, networks, sampling
from modsync_jax._names import unknown
from modsync_jax.problems import GROUPINGS, Unknown
from modsync_jax.training import _optimizers, _phases, _presets

_AUTO = ("auto", "yes", "no")


# The most accurate in most rows of the table in docs/problems.md.
DEFAULT_METHOD = "lra"
FORMAT = 4  # of a run's folder
# Settings, and their values, by the names that they had before.
_RENAMED = {"chunk_points": "block_points"}
_POLISH = "then='lbfgs(points=8):3000', a phase of 3,000 iterations"
_REPLACED = {"polish_steps": _POLISH, "polish_points": _POLISH}
_RENAMED_VALUES = {("objectives", "paper"): "grouped"}
# What runs of ModSync did before format 4, which may lack these settings.
_BEFORE = {"threshold_schedule": "constant", "sparsity_pull": "constant"}

# The sections of `--help`, by the first setting of each.
SECTIONS = {
    "method": "The run",
    "network": "The network",
    "objectives": "Objectives and points",
    "optimizer": "The optimiser",
    "threshold_optimizer": "Thresholds of ModSync",
    "dtype": "Precision and pace",
}


def upgraded(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Translates a `config.json` of any format into the present format.

    Settings that the file lacks have their defaults, which leave older runs as they were. Two of
    ModSync's had other defaults before format 4, and are added.

    Raises:
      ConfigError: on a format newer than this program knows.
    """
    written = stored.get("format", 1)
    if written > FORMAT:
        raise ConfigError(
            f"the folder has format {written}, and this program reads {FORMAT} and older; install "
            "the newer modsync_jax that wrote it"
        )
    new = dict(stored)
    if written < 2:
        new |= {"coefficients": stored.get("coefficients", {})}
        for (name, before), now in _RENAMED_VALUES.items():
            if new.get(name) == before:
                new[name] = now
        for before, now in _RENAMED.items():
            if before in new:
                new[now] = new.pop(before)
    if written < 3:
        parts = stored.get("method", DEFAULT_METHOD).split("+")
        new["method"] = "+".join({"adam": "sum"}.get(part, part) for part in parts)
        count, points = new.pop("polish_steps", 0), new.pop("polish_points", 8)
        polish = _phases.Phase("lbfgs", count, _phases.LBFGS(points=points))
        new["then"] = str(polish) if count else ""
    if written < 4:
        if "settings" in new:  # of a sweep, whose methods are not in the file
            new["settings"] = {**_BEFORE, **new["settings"]}
        elif "modsync" in new.get("method", ""):
            new = {**_BEFORE, **new}
    if new.get("architecture"):  # attributes that networks did not have yet
        new["architecture"] = {"omega": 1.0, **new["architecture"]}
    return new


def gone(name: str) -> str | None:
    """Returns the sentence about a setting that was renamed or removed; None for others."""
    if name in _RENAMED:
        return f"the setting {name} is called {_RENAMED[name]} now"
    if name in _REPLACED:
        return f"the setting {name} is gone; use {_REPLACED[name]}"
    return None


def entry_type(field: dataclasses.Field) -> type | None:
    """The type of the numbers in a setting that is a mapping; None for any other setting."""
    entry = next(iter(get_args(field.type)[1:]), None)
    return next(iter(get_args(entry)), entry)  # a coefficient may be the text of an unknown too


class ConfigError(ValueError):
    """A setting that is not allowed; the message is one line and names the allowed values."""


def _field(
    default: Any, help: str, choices: tuple[str, ...] = (), *, traceable: bool = False
) -> Any:
    factory = {"default_factory": dict} if default == {} else {"default": default}
    facts = {"help": help, "choices": choices, "traceable": traceable}
    return dataclasses.field(**factory, metadata=facts)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The settings of a run; the `help` of each field explains it.

    Raises:
      ConfigError: on a value that is not allowed, in one line.
    """

    method: str = _field(
        DEFAULT_METHOD,
        "how gradients become updates, [modsync+][balancing+...][aggregator], such as sum, dcgd,"
        " lra(alpha=0.5)+dcgd or modsync+config; --list_methods shows all; auto: what a diagnosis"
        " recommends",
    )
    steps: int = _field(20_000, "first-order steps; 0 to start with the phases of --then")
    seed: int = _field(0, "seed of all randomness: initialisation and points", traceable=True)
    coefficients: Mapping[str, float | str] = _field(
        {},
        "coefficients of the equation, viscosity=0.02,... (problem's); --list_problems; one to "
        "find from data: viscosity=unknown(start=0.05)",
        traceable=True,
    )

    network: str = _field("mlp", "kind of network", tuple(networks.NETWORKS))
    width: int = _field(128, "units of each hidden layer")
    depth: int = _field(5, "number of hidden layers; of blocks for piratenet")
    activation: str = _field(
        "tanh", f"{', '.join(networks.ACTIVATIONS)}; in turns with slashes: sin/tanh"
    )
    omega: float = _field(1.0, "factor of what enters the first layer, ω₀ of SIREN")
    adaptive: float = _field(0.0, "factor n of adaptive activations f(n a x); 0: fixed ones")
    factorized: bool = _field(False, "random weight factorisation of all kernels")
    fourier_features: int = _field(0, "random Fourier features of the inputs, an even number")
    fourier_scale: float = _field(1.0, "standard deviation of their frequencies")
    periods: Mapping[str, float] = _field({}, "periods of coordinates to build in, x=2,...")
    standardize: str = _field(
        "auto", "inputs of zero mean and unit variance ('auto': as the problem says)", _AUTO
    )

    objectives: str = _field(
        "grouped",
        "'grouped': residual, boundary (all conditions on faces) and each set of data; 'natural':"
        " initial conditions and each of several equations apart, too; 'each': every condition"
        " apart; 'all': every condition and every equation",
        GROUPINGS,
    )
    loss_weights: Mapping[str, float] = _field(
        {}, "fixed weights by objective, boundary=10,...", traceable=True
    )
    balance: float = _field(
        0.0,
        "weigh each objective so that it outweighs the residual this many times in the trace of the"
        " tangent kernel at random networks, times its loss weight (0: loss weights alone)",
    )
    points: Mapping[str, int] = _field({}, "points a step, residual=1280,left=42,... (problem's)")
    block_points: int = _field(
        0, "points differentiated at once: fewer need less memory (0: the fastest number)"
    )
    sampler: str = _field(
        "auto", "how points are drawn ('auto': as the problem says)", ("auto", *sampling.SAMPLERS)
    )

    causal: float = _field(
        0.0, "strength of weights under which earlier times are solved first (0: none)"
    )
    attention: float = _field(
        0.0, "points count more where the residual is large: vRBA's c, flatter when larger (0: no)"
    )

    laplacian: str = _field(
        "exact",
        "how sums of second derivatives over many coordinates are computed: exact, or estimated"
        " along random directions at each point, hutchinson:16 or stde:16",
    )

    optimizer: str = _field("adam", "base optimiser", tuple(_optimizers.OPTIMIZERS))
    learning_rate: float = _field(1e-3, "peak learning rate of the weights", traceable=True)
    schedule: str = _field("constant", "learning rate over steps", _optimizers.SCHEDULES)
    decay_rate: float = _field(0.9, "factor of the exponential schedule per decay_steps")
    decay_steps: int = _field(1_000, "steps per decay_rate")
    warmup_steps: int = _field(0, "steps of linear warm-up from 0")
    weight_decay: float = _field(
        0.0, "decoupled weight decay of adamw, muon and soap", traceable=True
    )
    l1: float = _field(
        0.0, "weight of the sum of |w| over all kernels, whose gradient joins the direction"
    )
    then: str = _field(
        "",
        "phases after the steps, name:iterations or name(setting=value,...):iterations, joined by"
        " commas, such as lbfgs:3000 or ssbroyden:6000; names: " + ", ".join(_phases.KINDS),
    )

    threshold_optimizer: str = _field("adam", "optimiser of the thresholds", ("adam", "sgd"))
    threshold_learning_rate: float = _field(1e-4, "learning rate of the thresholds", traceable=True)
    threshold_schedule: str = _field(
        "weights",
        "rate of the thresholds over steps: in proportion to that of the weights, or constant",
        ("weights", "constant"),
    )
    sparsity_weight: float = _field(1e-4, "weight of the sparsity loss, lambda_s", traceable=True)
    sparsity_pull: str = _field(
        "losses",
        "weight of the sparsity loss: in proportion to the sum of the losses, or constant",
        ("losses", "constant"),
    )
    beta: float = _field(
        0.3, "temperature of the synchronisation; inf switches it off", traceable=True
    )
    granularity: str = _field(
        "layer", "distance of thresholds per layer or unit", ("layer", "unit")
    )
    shared_threshold: bool = _field(False, "one threshold for all objectives, not one for each")
    masked_layers: str = _field(
        "all",
        "kernels that have thresholds: all, or those of width x width ('inner')",
        ("all", "inner"),
    )
    structural_gradient: bool = _field(True, "let gradients reach weights through the masks")
    min_keep: float = _field(
        0.0,
        "at or below this share of kept weights, thresholds of a layer may only fall",
        traceable=True,
    )
    reset_keep: float = _field(
        0.01,
        "at or below this share of kept weights, thresholds of a layer start again from zero",
        traceable=True,
    )

    dtype: str = _field("float32", "floating-point type", _phases.DTYPES)
    matmul_precision: str = _field(
        "highest", "precision of matrix products on GPU and TPU", ("highest", "high", "default")
    )
    selection: str = _field(
        "auto",
        "what selects the best parameters: 'auto': the validation error where a reference is known,"
        " else the loss; 'loss': the unweighted loss on points of its own",
        ("auto", "loss"),
    )
    time_limit: float = _field(
        0.0, "seconds, with compilation, after which a run is finished at its next chunk; 0: none"
    )
    measures: str = _field(
        "alignment,norm_ratio,stationarity",
        f"what is measured in every {diagnostics.EVERY}th training batch beside cosines: "
        + ", ".join(diagnostics.MEASURES),
    )
    chunk: int = _field(100, "steps per call of the device; the host wakes in between")
    eval_every: int = _field(500, "steps between rows of metrics.csv; a multiple of chunk")
    checkpoint_every: int = _field(2_000, "steps between checkpoints; a multiple of eval_every")

    def __post_init__(self) -> None:
        if not isinstance(self.then, str):
            object.__setattr__(self, "then", ",".join(map(str, self.then)))
        try:
            method = methods.parse(self.method)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata["choices"]
            if choices and (field.name, value) in _RENAMED_VALUES:
                now = _RENAMED_VALUES[field.name, value]
                raise ConfigError(f"{field.name}={value} is called {field.name}={now} now")
            if choices and value not in choices:
                raise ConfigError(str(unknown(field.name, value, choices)))
            if field.type is float and not (
                isinstance(value, float | int) and not math.isnan(value)
            ):
                raise ConfigError(f"{field.name} is {value!r}; it must be a number")
            if field.type is int and (isinstance(value, bool) or not isinstance(value, int)):
                raise ConfigError(f"{field.name} is {value!r}; it must be a whole number")
        for name in self.activation.split("/"):
            if name not in networks.ACTIVATIONS:
                raise ConfigError(str(unknown("activation", name, networks.ACTIVATIONS)))
        for name in self.measure_names:
            if name not in diagnostics.MEASURES:
                raise ConfigError(str(unknown("measure", name, diagnostics.MEASURES)))
        for low, names in {
            1: "width depth decay_steps chunk eval_every checkpoint_every",
            0: "steps seed warmup_steps weight_decay sparsity_weight min_keep reset_keep"
            " fourier_features adaptive block_points time_limit balance causal attention l1",
        }.items():
            for name in names.split():
                if getattr(self, name) < low:
                    raise ConfigError(f"{name} is {getattr(self, name)}; it must be {low} or more")
        positive = ("learning_rate", "threshold_learning_rate", "beta", "decay_rate")
        for name in (*positive, "fourier_scale", "omega"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive")
        for name in ("min_keep", "reset_keep"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")
        if self.l1 and method.moves_weights:
            raise ConfigError(
                f"l1 is {self.l1}; {method} has an optimiser of its own, which takes no penalty"
            )
        try:
            directions.read(self.laplacian)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if self.masked_layers == "inner" and self.depth < 2:
            raise ConfigError("masked_layers is inner; this needs depth=2 or more")
        try:
            later = _phases.parse(self.then)
        except ValueError as error:
            raise ConfigError(f"then: {error}") from None
        if not self.steps and not later:
            raise ConfigError("steps is 0; it must be 1 or more, or then must name phases")
        if self.warmup_steps >= max(self.steps, 1):
            raise ConfigError(
                f"warmup_steps is {self.warmup_steps}; it must be below steps={self.steps}"
            )
        if self.fourier_features % 2:
            raise ConfigError(f"fourier_features is {self.fourier_features}; it must be even")
        texts = {k: str(v) if isinstance(v, Unknown) else v for k, v in self.coefficients.items()}
        object.__setattr__(self, "coefficients", texts)
        for name, value in self.coefficients.items():
            if isinstance(value, str):  # of an unknown, which the problem reads
                continue
            if not (isinstance(value, float | int) and math.isfinite(value)):
                raise ConfigError(f"coefficients: {name} is {value!r}; it must be a number")
        for field_name in ("loss_weights", "periods"):
            for name, value in getattr(self, field_name).items():
                if not 0 < value < math.inf:
                    raise ConfigError(f"{field_name}: {name} is {value}; it must be positive")
        for every, of in (("eval_every", "chunk"), ("checkpoint_every", "eval_every")):
            value, unit = getattr(self, every), getattr(self, of)
            if value % unit:
                near = max(round(value / unit), 1) * unit
                raise ConfigError(
                    f"{every} is {value}; it must be a multiple of {of}={unit}, for example {near}"
                )

    def with_numbers(self, numbers: Mapping[str, Any]) -> "TrainConfig":
        """Returns this configuration with other numbers, which may be tracers and are not checked.

        Args:
          numbers: by the name of a field, by `loss_weights.boundary` for an entry of a mapping, or
            by `cagrad.c` for a hyperparameter of a part of the method.
        """
        new = copy.copy(self)
        for name, number in numbers.items():
            field, _, key = name.partition(".")
            value: Any = number
            if field in methods.PARTS:
                field, value = "method", methods.parse(new.method).replace(field, **{key: number})
            elif key:
                value = {**getattr(new, field), key: number}
            object.__setattr__(new, field, value)
        return new

    @property
    def sampler_name(self) -> str | None:
        """The sampler that replaces the problem's own, or None."""
        return None if self.sampler == "auto" else self.sampler

    @property
    def measure_names(self) -> tuple[str, ...]:
        """The names of the measures, in order."""
        return tuple(name.strip() for name in self.measures.split(",") if name.strip())

    @property
    def phases(self) -> tuple[_phases.Phase, ...]:
        """The first-order steps, if there are any, and the phases after them."""
        name = str(self.optimizer)
        first = _phases.Phase(name, self.steps, _phases.FirstOrder())
        return (*([first] if self.steps else []), *_phases.parse(self.then))

    @property
    def ends(self) -> tuple[int, ...]:
        """The steps of the run after each phase."""
        return tuple(itertools.accumulate(phase.steps for phase in self.phases))

    @property
    def starts(self) -> tuple[int, ...]:
        """The steps of the run before each phase."""
        return (0, *self.ends[:-1])

    @property
    def trained_by(self) -> str:
        """The method and the optimisers in words: `lra+dcgd, Adam, SSBroyden`."""
        method = methods.parse(self.method)
        names = [phase.name for phase in self.phases]
        titles = [_phases.TITLES.get(name, f"{name} optimiser") for name in names]
        first_order = [not phase.freezes for phase in self.phases]
        if method.moves_weights and first_order[0]:
            titles = titles[1:]
        return ", ".join([str(method)] * any(first_order) + titles)

    @property
    def total_steps(self) -> int:
        """The steps of all phases."""
        return self.ends[-1]

    @property
    def widest_dtype(self) -> str:
        """`float64` if any phase needs it, else `float32`."""
        used = [phase.settings.dtype or self.dtype for phase in self.phases]
        return max([self.dtype, *used])

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> "TrainConfig":
        """Returns the configuration in a run's `config.json`, whose other entries are ignored.

        A transformation of the user's own is not stored; the default takes its place.
        """
        fields = [field.name for field in dataclasses.fields(cls)]
        known = {name: stored[name] for name in fields if name in stored}
        return cls(**{name: value for name, value in known.items() if value != methods.OWN})

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "TrainConfig":
        """Returns a configuration from keyword settings.

        `preset`, a name of `PRESETS`, stands for its settings that are not given.

        Raises:
          ConfigError: on a setting that is not allowed, or an unknown name, with the nearest one.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        try:
            settings = _presets.expanded(settings)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        for name in settings:
            if sentence := gone(name):
                raise ConfigError(sentence)
            if name not in known:
                raise ConfigError(str(unknown("setting", name, known)))
        return cls(**settings)
