"""Base optimisers and learning-rate schedules by name."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax import Array

from modsync_jax import loss_indexed, methods, optimizers, sparsity

if TYPE_CHECKING:
    from modsync_jax.training._config import TrainConfig
    from modsync_jax.training._phases import Phase

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": lambda rate, decay: optax.adam(rate),
    "adamw": lambda rate, decay: optax.adamw(rate, weight_decay=decay),
    "muon": lambda rate, decay: optax.contrib.muon(rate, weight_decay=decay),
    "sgd": lambda rate, decay: optax.sgd(rate),
    "soap": lambda rate, decay: optimizers.soap(rate, weight_decay=decay),
}


@dataclasses.dataclass(frozen=True)
class Own:
    """An optimiser that the user gave as an object; it has its own schedule."""

    transformation: optax.GradientTransformation

    def __str__(self) -> str:
        return "own"


SCHEDULES = ("constant", "exponential", "cosine")


def learning_rate(
    config: "TrainConfig", phase: "Phase", *, first: bool, peak: Any = None
) -> optax.Schedule:
    """The learning rate over the steps of a first-order phase, by name.

    A linear warm-up comes before the schedule of the first phase. The peak is that of the weights
    if it is None.
    """
    settings: Any = phase.settings
    peak = (settings.learning_rate or config.learning_rate) if peak is None else peak
    warmup = config.warmup_steps if first else 0
    main = {
        "constant": lambda: optax.constant_schedule(peak),
        "exponential": lambda: optax.exponential_decay(peak, config.decay_steps, config.decay_rate),
        "cosine": lambda: optax.cosine_decay_schedule(peak, phase.steps - warmup),
    }[settings.schedule or config.schedule]()
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup])


def weights_optimizer(
    config: "TrainConfig", phase: "Phase", *, first: bool
) -> optax.GradientTransformation:
    """What moves the weights in a first-order phase: the base optimiser, after any l1 penalty."""
    optimizer = _base_optimizer(config, phase, first=first)
    return optax.chain(_l1(config.l1), optimizer) if config.l1 else optimizer


def _base_optimizer(
    config: "TrainConfig", phase: "Phase", *, first: bool
) -> optax.GradientTransformation:
    if first and isinstance(config.optimizer, Own):
        return config.optimizer.transformation
    return OPTIMIZERS[phase.name](learning_rate(config, phase, first=first), config.weight_decay)


def _l1(weight: float) -> optax.GradientTransformation:
    """Adds the gradient of `weight Σ|w|` over all kernels."""

    def slope(update: Array, param: Array) -> Array:
        return update + weight * jnp.sign(param) if param.ndim >= 2 else update

    return optax.stateless(partial(jax.tree.map, slope))


def indexed(config: "TrainConfig") -> loss_indexed.Kind:
    """The parameters of single losses that a run trains beside the weights."""

    def of_network(path: str, leaf: Array) -> bool:
        return leaf.ndim >= 2 and not path.startswith("unknowns/")  # where fields are networks

    def inner(path: str, leaf: Array) -> bool:
        return of_network(path, leaf) and leaf.shape[-2:] == (config.width, config.width)

    regularizer = partial(
        sparsity.sparsity_loss,
        beta=config.beta,
        granularity=config.granularity,  # type: ignore[arg-type]
    )
    first = config.phases[0]
    rate: Any = config.threshold_learning_rate
    if config.threshold_schedule == "weights" and not first.freezes:
        rate = learning_rate(config, first, first=True, peak=rate)
    return methods.indexed(
        config.method,
        OPTIMIZERS[config.threshold_optimizer](rate, 0.0),
        None if first.freezes else _base_optimizer(config, first, first=True),
        sparsity_weight=config.sparsity_weight,
        regularizer=regularizer,
        min_keep=config.min_keep,
        reset_keep=config.reset_keep,
        masked=inner if config.masked_layers == "inner" else of_network,
        adapted=of_network,
        structural_gradient=config.structural_gradient,
        shared=config.shared_threshold,
        pull=config.sparsity_pull,
    )
