"""The step and its long-tailed derivative, against the piecewise definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax.sparsity import long_tailed_step

# (q, S(q), dS/dq) of Liu et al. 2020, Eq. 6; both bounds belong to the inner piece.
PIECES = [
    (-2.0, 0.0, 0.0),
    (-1.0001, 0.0, 0.0),
    (-1.0, 0.0, 0.4),
    (-0.7, 0.0, 0.4),
    (-0.4, 0.0, 0.4),
    (-0.3, 0.0, 0.8),
    (-1e-6, 0.0, 2.0 - 4e-6),
    (0.0, 0.0, 2.0),
    (1e-6, 1.0, 2.0 - 4e-6),
    (0.1, 1.0, 1.6),
    (0.4, 1.0, 0.4),
    (0.4001, 1.0, 0.4),
    (1.0, 1.0, 0.4),
    (1.0001, 1.0, 0.0),
    (50.0, 1.0, 0.0),
]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(("q", "step", "slope"), PIECES)
def test_forward_and_backward_are_the_piecewise_definition(x64, q, step, slope, dtype):
    value, grad = jax.value_and_grad(long_tailed_step)(jnp.asarray(q, dtype))
    assert value == step
    assert value.dtype == grad.dtype == dtype
    # One product and one subtraction of numbers up to 2.
    assert abs(float(grad) - slope) <= 4 * float(jnp.finfo(dtype).eps)


def test_backward_multiplies_the_cotangent_on_a_whole_grid(x64):
    q = np.round(np.linspace(-1.2, 1.2, 241), 2)  # holds 0, ±0.4 and ±1 exactly as written
    cotangent = np.random.default_rng(0).normal(size=q.shape)
    _, pull_back = jax.vjp(long_tailed_step, jnp.asarray(q))
    slope = np.select([np.abs(q) <= 0.4, np.abs(q) <= 1.0], [2.0 - 4.0 * np.abs(q), 0.4], 0.0)
    np.testing.assert_allclose(pull_back(jnp.asarray(cotangent))[0], slope * cotangent, atol=1e-15)


def test_forward_mode_has_the_same_derivative(x64):
    q = jnp.linspace(-1.2, 1.2, 241)
    tangent = jnp.asarray(np.random.default_rng(1).normal(size=q.shape))
    value, moved = jax.jvp(long_tailed_step, (q,), (tangent,))
    _, pull_back = jax.vjp(long_tailed_step, q)
    np.testing.assert_array_equal(value, long_tailed_step(q))
    np.testing.assert_array_equal(moved, pull_back(tangent)[0])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_stays_what_it_is(dtype):
    q = jnp.asarray([-0.25, 0.25], dtype)
    value, pull_back = jax.vjp(long_tailed_step, q)
    (grad,) = pull_back(jnp.ones(2, dtype))
    assert value.dtype == grad.dtype == dtype
    np.testing.assert_array_equal(value.astype(jnp.float32), [0.0, 1.0])
    np.testing.assert_array_equal(grad.astype(jnp.float32), [1.0, 1.0])
