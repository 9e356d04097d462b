"""M-ConFIG: ConFIG on momenta, with the gradient of one objective a step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from modsync_jax import gradients
from modsync_jax.aggregators import _base, _config
from modsync_jax.optimizers import _momenta


class MomentumConfigState(NamedTuple):
    """State of `momentum_config`.

    Attributes:
      momenta: of the objectives, and how often they were moved.
      first: moving average of the pseudo-gradients, leaves [...].
      second: moving average of their squares, leaves [...].
    """

    momenta: _momenta.Momenta
    first: Any
    second: Any


def momentum_config(
    num_objectives: int,
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    groups: _base.Groups = None,
) -> optax.GradientTransformationExtraArgs:
    """M-ConFIG: an optimiser, in Adam's place, that takes one objective's gradient a step.

    With `value_and_objective_grad` a step costs about 1/K of one that computes all gradients:

        index = step % num_objectives
        loss, grad = value_and_grad(params, index, batch)
        updates, state = tx.update(grad, state, params, objective=index)

    Objective i has a momentum m_i, moved by its own gradients alone, with the bias correction
    `1 - b1^t_i` of its own count t_i. With d_t = ConFIG(the corrected momenta), the pseudo-gradient
    p_t is the gradient whose bias-corrected momentum is d_t: `(1 - b1^t) d_t = b1 (1 - b1^(t-1))
    d_(t-1) + (1 - b1) p_t`. With v the moving average of its square, the update is `-learning_rate
    d_t / (√(v / (1 - b2^t)) + eps)`. It is zero until every objective was seen; t counts from
    there, as in the authors' code. Memory: K + 2 times the parameters, Adam's is 2.

    Args:
      num_objectives: K.
      learning_rate: a number or a schedule of the steps.
      b1: decay of the momenta.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      groups: parameters that are aggregated apart, as in `from_weights`.

    Returns:
      A transformation whose `update(grad, state, params, objective=index)` takes the gradient of
      one objective, leaves `[...]`, and its index by sorted name, [] integer, which may be traced.

    Raises:
      ValueError: when traced, on a missing `objective` or a gradient that is not one of `params`.

    References:
      Liu, Chu and Thuerey, ConFIG: Towards Conflict-free Training of Physics Informed Neural
      Networks, ICLR 2025, Algorithm 1.
    """
    config = _config.config(groups=groups)

    def init_fn(params: optax.Params) -> MomentumConfigState:
        gradients.check_whole(params)
        zeros = jax.tree.map(jnp.zeros_like, params)
        return MomentumConfigState(_momenta.start(params, num_objectives), zeros, zeros)

    def update_fn(
        updates: optax.Updates, state: MomentumConfigState, params: Any = None, **extra_args: Any
    ) -> tuple[optax.Updates, MomentumConfigState]:
        objective = _momenta.check(updates, params, extra_args.get("objective"))
        momenta = _momenta.move(state.momenta, updates, objective, b1)
        d, _ = config.update(_momenta.corrected(momenta, b1), config.init(params), params)
        warm1 = 1 - b1**momenta.steps
        warm2 = 1 - b2 ** jnp.maximum(momenta.steps, 1)
        first = jax.tree.map(lambda x: x * warm1.astype(x.dtype), d)
        pseudo = jax.tree.map(lambda new, old: (new - b1 * old) / (1 - b1), first, state.first)
        second = jax.tree.map(lambda v, p: b2 * v + (1 - b2) * p**2, state.second, pseudo)
        out = jax.tree.map(lambda x, v: x / (jnp.sqrt(v / warm2.astype(v.dtype)) + eps), d, second)
        return out, MomentumConfigState(momenta, first, second)

    aggregate = optax.GradientTransformationExtraArgs(init_fn, update_fn)
    return optax.chain(aggregate, optax.scale_by_learning_rate(learning_rate))
