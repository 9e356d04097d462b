"""The configuration: what is allowed, what is said when it is not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax.training import ConfigError, TrainConfig
from modsync_jax.training._optimizers import learning_rate, weights_optimizer

MISTAKES = {
    "steps": (-1, "0 or more"),
    "width": (-3, "1 or more"),
    "depth": (0, "1 or more"),
    "seed": (-1, "0 or more"),
    "learning_rate": (0.0, "positive"),
    "beta": (-0.3, "positive"),
    "sparsity_weight": (-1e-4, "0 or more"),
    "block_points": (-1, "0 or more"),
    "min_keep": (1.5, "between 0 and 1"),
    "reset_keep": (1.5, "between 0 and 1"),
    "masked_layers": ("iner", "did you mean 'inner'"),
    "method": ("modsnc+dcgd", "did you mean 'modsync'"),
    "optimizer": ("adan", "did you mean 'adam'"),
    "schedule": ("cosin", "did you mean 'cosine'"),
    "granularity": ("units", "did you mean 'unit'"),
    "threshold_schedule": ("weight", "did you mean 'weights'"),
    "sparsity_pull": ("loss", "did you mean 'losses'"),
    "activation": ("tahn", "did you mean 'tanh'"),
    "omega": (0.0, "positive"),
    "dtype": ("float16", "known: float32, float64"),
    "warmup_steps": (20_000, "below steps=20000"),
    "weight_decay": (-1.0, "0 or more"),
    "eval_every": (150, "multiple of chunk=100, for example 200"),
    "checkpoint_every": (700, "multiple of eval_every=500"),
    "loss_weights": ({"residual": -1.0}, "positive"),
    "coefficients": ({"viscosity": float("inf")}, "viscosity is inf; it must be a number"),
    "fourier_features": (1.5, "whole number"),
    "threshold_learning_rate": (float("nan"), "must be a number"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_what_was_given_and_what_is_allowed(name):
    value, hint = MISTAKES[name]
    with pytest.raises(ConfigError) as error:
        TrainConfig(**{name: value})
    message = str(error.value)
    assert name in message and hint in message and "\n" not in message
    if not isinstance(value, dict):
        assert str(value) in message


def test_masks_of_inner_layers_need_two_hidden_layers():
    with pytest.raises(ConfigError, match="masked_layers is inner; this needs depth=2 or more"):
        TrainConfig(masked_layers="inner", depth=1)


@pytest.mark.parametrize("method", ["m-config", "multi-adam"])
def test_an_l1_penalty_needs_an_optimiser_that_takes_it(method):
    with pytest.raises(ConfigError, match=f"l1 is 0.1; {method} has an optimiser of its own"):
        TrainConfig(method, l1=0.1)


def test_an_l1_penalty_joins_the_direction_of_kernels_alone():
    config = TrainConfig("dcgd", l1=0.3, optimizer="sgd", learning_rate=2.0)
    params = {"kernel": jnp.array([[1.0, -2.0, 0.0]]), "bias": jnp.array([4.0])}
    grads = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), params)
    tx = weights_optimizer(config, config.phases[0], first=True)
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], [[-1.6, -0.4, -1.0]], rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], [-1.0])


def test_an_unknown_setting_gets_the_nearest_name():
    with pytest.raises(ConfigError, match="unknown setting 'widht'; did you mean 'width'"):
        TrainConfig.from_settings({"widht": 3})


def test_every_field_has_help_and_its_default_is_allowed():
    for field in dataclasses.fields(TrainConfig):
        assert field.metadata["help"]
    TrainConfig()


def test_schedules_equal_their_formulas():
    def rates(steps, **settings):
        config = TrainConfig(steps=1000, learning_rate=2e-3, **settings)
        schedule = learning_rate(config, config.phases[0], first=True)
        return np.array([schedule(step) for step in steps])

    steps = np.array([0, 10, 250, 999])
    # float32 arithmetic in the schedules against float64 here: 1e-6 relative
    close = {"rtol": 1e-6, "atol": 1e-12}
    np.testing.assert_allclose(rates(steps), 2e-3, **close)
    decayed = rates(steps, schedule="exponential", decay_rate=0.9, decay_steps=100)
    np.testing.assert_allclose(decayed, 2e-3 * 0.9 ** (steps / 100), **close)
    cosine = rates(steps, schedule="cosine")
    np.testing.assert_allclose(
        cosine, 1e-3 * (1 + np.cos(np.pi * steps / 1000)), rtol=1e-5, atol=1e-9
    )
    warm = rates(np.array([0, 50, 100, 550]), schedule="cosine", warmup_steps=100)
    np.testing.assert_allclose(warm, [0.0, 1e-3, 2e-3, 1e-3], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adam", optax.adam(1e-3)),
        ("adamw", optax.adamw(1e-3, weight_decay=0.1)),
        ("sgd", optax.sgd(1e-3)),
        ("muon", optax.contrib.muon(1e-3, weight_decay=0.1)),
    ],
)
def test_optimisers_by_name_are_the_library_s(name, expected):
    params = {"kernel": np.ones((3, 2), np.float32)}
    grads = {"kernel": np.arange(6.0, dtype=np.float32).reshape(3, 2)}
    config = TrainConfig(optimizer=name, learning_rate=1e-3, weight_decay=0.1)
    ours = weights_optimizer(config, config.phases[0], first=True)
    got, _ = ours.update(grads, ours.init(params), params)
    want, _ = expected.update(grads, expected.init(params), params)
    np.testing.assert_array_equal(got["kernel"], want["kernel"])
