"""An optax transformation for each objective, and MultiAdam."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from modsync_jax import aggregators, gradients


def per_objective(
    tx: optax.GradientTransformation, num_objectives: int
) -> optax.GradientTransformationExtraArgs:
    """Applies `tx` to every objective's gradient, each with a state of its own.

    Args:
      tx: a transformation of plain gradients, such as `optax.scale_by_adam()`.
      num_objectives: K.

    Returns:
      A transformation from stacked gradients to stacked updates, leaves `[K, ...]`.

    Raises:
      ValueError: when traced, on gradients that are not a stack of K for `params`.
    """
    inner = optax.with_extra_args_support(tx)

    def init_fn(params: optax.Params) -> Any:
        gradients.check_whole(params)
        return jax.vmap(lambda _: inner.init(params))(jnp.arange(num_objectives))

    def update_fn(
        updates: optax.Updates, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[optax.Updates, Any]:
        gradients.check_count(updates, params, num_objectives)
        return jax.vmap(lambda g, s: inner.update(g, s, params, **extra_args))(updates, state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def multi_adam(
    num_objectives: int,
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.99,
    b2: float = 0.99,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """MultiAdam: Adam's direction for each objective, then their mean; it takes Adam's place.

    Args:
      num_objectives: K.
      learning_rate: a number or a schedule of the steps.
      b1: decay of the momenta.
      b2: decay of the second moments.
      eps: added to the roots of the second moments.

    References:
      Yao et al., MultiAdam: Parameter-wise Scale-invariant Optimizer for Multiscale Training of
      Physics-informed Neural Networks, ICML 2023, Algorithm 1.
    """
    adam = per_objective(optax.scale_by_adam(b1=b1, b2=b2, eps=eps), num_objectives)
    return optax.chain(adam, aggregators.mean(), optax.scale_by_learning_rate(learning_rate))
