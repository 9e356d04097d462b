"""ReLoBRaLo: relative loss balancing with random look-back."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax._ranges import check_range
from modsync_jax.balancing import _base
from modsync_jax.balancing._base import Given


def relobralo(
    objectives: _base.Names,
    *,
    temperature: float | Array = 0.1,
    alpha: float | Array = 0.999,
    look_back: float | Array = 0.999,
    key: Array | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Weighs losses by how little they fell since the step before, and since the start.

    With `b(t, s) = K softmax_k(L_k(t) / (temperature L_k(s)))` and ρ drawn 1 with probability
    `look_back`, else 0, `λ(t) = alpha (ρ λ(t-1) + (1 - ρ) b(t, 0)) + (1 - alpha) b(t, t-1)`. The
    first weights are 1.

    Args:
      objectives: K, or the objectives' names.
      temperature: of the softmax; positive, smaller is sharper.
      alpha: share of the past, in [0, 1].
      look_back: expectation of ρ, in [0, 1].
      key: PRNG key of ρ, kept in the state and split every update; `jax.random.key(0)` if None. An
        extra argument `key` that is not None takes its place.

    Raises:
      ValueError: on a hyperparameter out of range and, when traced, on missing `losses`.

    References:
      Bischof and Kraus, Multi-Objective Loss Balancing for Physics-Informed Deep Learning,
      arXiv:2110.09813, Eq. 10-11.
    """
    check_range("alpha", alpha, 0.0, 1.0)
    check_range("look_back", look_back, 0.0, 1.0)
    if isinstance(temperature, int | float) and not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be positive")

    source = jax.random.key(0) if key is None else key
    start_key = jax.random.key_data(source)  # as numbers, which every checkpoint can hold

    def rule(now: Given) -> tuple[Array, tuple]:
        losses, old = now.extra["losses"].astype(now.loss_weights.dtype), now.loss_weights
        initial, previous, carried = now.memory
        initial = jnp.where(now.first, losses, initial)
        wrapped = jax.random.wrap_key_data(carried, impl=jax.random.key_impl(source))
        following, drawn = jax.random.split(wrapped)
        given = now.extra.get("key")
        rho = jax.random.bernoulli(drawn if given is None else given, look_back)

        def balanced(past: Array) -> Array:
            ratios = _base.quotient(losses, past, jnp.ones_like(past))
            return len(losses) * jax.nn.softmax(ratios / temperature)

        history = jnp.where(rho, old, balanced(initial))
        new = alpha * history + (1 - alpha) * balanced(previous)
        memory = (initial, losses, jax.random.key_data(following))
        return jnp.where(now.first, old, new).astype(old.dtype), memory

    return _base.from_rule(
        rule,
        objectives,
        needs=("losses",),
        start=lambda ones: (ones, (jnp.zeros_like(ones), jnp.zeros_like(ones), start_key)),
    )
