"""Groups of parameters: an inverse problem whose coefficient lives beside the weights.

u'' + κ u = 0 with data of sin 2x: κ = 4. The field is a sum of sines with trained amplitudes, so
that a training run takes a moment. The data loss does not depend on κ: in its group, one of the two
gradients is zero.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import aggregators, value_and_objective_grads

X = jnp.linspace(0.0, 3.0, 40)
FREQUENCIES = jnp.array([0.5, 1.0, 1.5, 2.0, 2.5])
OBJECTIVES = {
    "data": lambda p: jnp.mean((field(p, X) - jnp.sin(2 * X)) ** 2),
    "residual": lambda p: jnp.mean((second(p, X) + p["unknowns"]["kappa"] * field(p, X)) ** 2),
}
START = {"network": {"amplitudes": jnp.full(5, 0.3)}, "unknowns": {"kappa": jnp.float32(1.0)}}


def field(params, x):
    return jnp.sin(x[:, None] * FREQUENCIES) @ params["network"]["amplitudes"]


def second(params, x):
    return -jnp.sin(x[:, None] * FREQUENCIES) @ (FREQUENCIES**2 * params["network"]["amplitudes"])


def apart(path, leaf):
    return path.split("/")[0]


METHODS = {
    name: getattr(aggregators, name)
    for name in (
        "config", "dcgd", "pcgrad", "cagrad", "mgda", "chebyshev_center", "imtl_g", "aligned_mtl",
        "upgrad", "dual_proj", "nash_mtl",
    )
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_each_group_is_aggregated_as_if_it_were_alone(name):
    tx = METHODS[name](groups=apart)
    params = jax.tree.map(lambda p: p + 0.1, START)
    _, grads = value_and_objective_grads(OBJECTIVES)(params)
    update, _ = tx.update(grads, tx.init(params), params, key=jax.random.key(0))
    single = METHODS[name]()
    for part in params:
        expected, _ = single.update(
            grads[part], single.init(params[part]), params[part], key=jax.random.key(0)
        )
        for a, b in zip(jax.tree.leaves(update[part]), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)  # other orders of float32 sums


def trained(name):
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 4000))
    tx = optax.chain(METHODS[name](groups=apart), optimizer)
    losses_and_grads = value_and_objective_grads(OBJECTIVES)

    def step(carry, _):
        params, state = carry
        _, grads = losses_and_grads(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=4000)[0][0])
    return float(run(START)["unknowns"]["kappa"])


@pytest.mark.parametrize("name", ["dcgd", "cagrad", "nash_mtl"])
def test_coefficient_of_an_inverse_problem_is_found_beside_the_weights(name):
    assert abs(trained(name) - 4.0) < 0.02  # 0.002 and less here; it starts at 1


def test_mgda_does_not_move_what_one_objective_does_not_depend_on():
    assert trained("mgda") == START["unknowns"]["kappa"]
