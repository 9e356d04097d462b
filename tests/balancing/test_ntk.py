"""Traces of the tangent kernel against the dense kernel, and when they are asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import balancing
from tests.balancing.test_battery import setting


def dense_traces(residuals, params, points):
    """Traces of J Jᵀ from the whole Jacobians."""
    kernels = []
    for name in sorted(residuals):
        jacobian = jax.jacrev(lambda p, name=name: residuals[name](p, points[name]))(params)
        j = np.concatenate(
            [np.reshape(x, (len(points[name]), -1)) for x in jax.tree.leaves(jacobian)], 1
        )
        kernels.append(np.trace(j @ j.T))
    return np.array(kernels)


@pytest.mark.long
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_exact_traces_are_those_of_the_dense_kernel(x64, chunk):
    params, _, residuals, points = setting(3, np.float64)
    got = jax.jit(lambda p: balancing.jacobian_traces(residuals, p, points, chunk=chunk))(params)
    np.testing.assert_allclose(got, dense_traces(residuals, params, points), rtol=1e-12)


def test_points_with_several_residuals_count_all_of_them(x64):
    params, _, residuals, points = setting(2, np.float64)

    def both(p, x):
        return jnp.concatenate([f(p, x) for f in residuals.values()])

    x = points["o0"]
    got = balancing.jacobian_traces({"both": both}, params, {"both": x})
    expected = balancing.jacobian_traces(residuals, params, dict.fromkeys(residuals, x))
    np.testing.assert_allclose(got, expected.sum()[None], rtol=1e-12)


def test_traces_given_as_a_function_are_computed_in_refreshing_steps_only():
    params = {"w": jnp.ones(3)}
    grads = {"w": jnp.ones((2, 3))}
    tx = balancing.ntk(2, every=3)
    calls = []

    def traces():
        jax.debug.callback(lambda: calls.append(1))
        return jnp.array([1.0, 3.0])

    def step(state, _):
        scaled, state = tx.update(grads, state, params, residual_jacobian_traces=traces)
        return state, scaled["w"]

    state, scaled = jax.jit(lambda s: jax.lax.scan(step, s, None, length=7))(tx.init(params))
    jax.block_until_ready(scaled)
    jax.effects_barrier()
    assert len(calls) == 3  # steps 0, 3 and 6
    np.testing.assert_allclose(optax.tree_utils.tree_get(state, "loss_weights"), [4.0, 4 / 3])
