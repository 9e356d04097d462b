"""Base optimisers and learning-rate schedules by name."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import optax
import optax.contrib

if TYPE_CHECKING:
    from modsync_jax.training._config import TrainConfig

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": lambda rate, decay: optax.adam(rate),
    "adamw": lambda rate, decay: optax.adamw(rate, weight_decay=decay),
    "muon": lambda rate, decay: optax.contrib.muon(rate, weight_decay=decay),
    "sgd": lambda rate, decay: optax.sgd(rate),
}


@dataclasses.dataclass(frozen=True)
class Own:
    """An optimiser that the user gave as an object; it has its own schedule."""

    transformation: optax.GradientTransformation

    def __str__(self) -> str:
        return "own"


SCHEDULES = ("constant", "exponential", "cosine")


def learning_rate(config: "TrainConfig") -> optax.Schedule:
    """The learning rate over steps: a linear warm-up, then the schedule by name."""
    after = config.steps - config.warmup_steps
    main = {
        "constant": lambda: optax.constant_schedule(config.learning_rate),
        "exponential": lambda: optax.exponential_decay(
            config.learning_rate, config.decay_steps, config.decay_rate
        ),
        "cosine": lambda: optax.cosine_decay_schedule(config.learning_rate, after),
    }[config.schedule]()
    if not config.warmup_steps:
        return main
    ramp = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([ramp, main], [config.warmup_steps])


def weights_optimizer(config: "TrainConfig") -> optax.GradientTransformation:
    """The base optimiser of the weights."""
    if isinstance(config.optimizer, Own):
        return config.optimizer.transformation
    return OPTIMIZERS[config.optimizer](learning_rate(config), config.weight_decay)


def thresholds_optimizer(config: "TrainConfig") -> optax.GradientTransformation:
    """The optimiser of the thresholds."""
    return OPTIMIZERS[config.threshold_optimizer](config.threshold_learning_rate, 0.0)
