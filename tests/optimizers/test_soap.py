"""SOAP against the paper's algorithm in NumPy, and its special cases."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import optimizers


def by_hand(grads, rate, b1, b2, eps, frequency):
    """The steps of one kernel, from its gradients, in NumPy's float64."""
    m, n = grads[0].shape
    left, right, mu, nu = np.zeros((m, m)), np.zeros((n, n)), 0.0, 0.0
    steps = []
    for t, g in enumerate(grads, 1):
        old = 0.0 if t == 1 else b2
        left, right = old * left + (1 - old) * g @ g.T, old * right + (1 - old) * g.T @ g
        if t == 1:
            ql, qr = (np.linalg.eigh(a)[1][:, ::-1] for a in (left, right))
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * (ql.T @ g @ qr) ** 2
        first = ql.T @ mu @ qr / (1 - b1**t)
        inside = first / (np.sqrt(nu / (1 - b2**t)) + eps)
        steps.append(-rate * ql @ inside @ qr.T)
        if t > 1 and t % frequency == 0:
            ql, qr = np.linalg.qr(left @ ql)[0], np.linalg.qr(right @ qr)[0]
    return steps


def test_kernels_follow_the_algorithm_and_others_adam(x64):
    rng = np.random.default_rng(0)
    # as many axes on both sides, so that no eigenvalue is zero and eigenvectors are defined
    grads = [{"kernel": rng.normal(size=(4, 4)), "bias": rng.normal(size=4)} for _ in range(9)]
    tx = optimizers.soap(0.1, b1=0.9, b2=0.8, eps=1e-6, frequency=3)
    adam = optax.adam(0.1, b1=0.9, b2=0.8, eps=1e-6)
    params = jax.tree.map(jnp.zeros_like, grads[0])
    state, adam_state = tx.init(params), adam.init(params["bias"])
    expected = by_hand([g["kernel"] for g in grads], 0.1, 0.9, 0.8, 1e-6, 3)
    for g, step in zip(grads, expected, strict=True):
        updates, state = tx.update(g, state, params)
        of_bias, adam_state = adam.update(g["bias"], adam_state)
        np.testing.assert_allclose(updates["kernel"], step, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(updates["bias"], of_bias, rtol=1e-12)
    assert state[0].bases["bias"] is None


def test_a_long_axis_takes_adam():
    params = {"kernel": jnp.ones((5, 3))}
    grads = {"kernel": jnp.arange(15.0).reshape(5, 3)}
    tx, adam = optimizers.soap(0.1, largest=4), optax.adam(0.1, b1=0.95, b2=0.95)
    updates, _ = tx.update(grads, tx.init(params), params)
    expected, _ = adam.update(grads, adam.init(params))
    np.testing.assert_allclose(updates["kernel"], expected["kernel"], rtol=1e-5)  # float32
    assert optimizers.soap(0.1, largest=5).init(params)[0].bases["kernel"].left.shape == (5, 5)


def test_a_rotated_loss_is_a_rotated_path(x64):
    """Rotations of the inputs and outputs of a kernel rotate its steps, which Adam's do not."""
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    grads = [rng.normal(size=(3, 3)) for _ in range(6)]
    tx = optimizers.soap(0.1, frequency=2)

    def path(turn):
        params, steps = jnp.zeros((3, 3)), []
        state = tx.init(params)
        for g in grads:
            step, state = tx.update(turn(g), state, params)
            steps.append(np.asarray(step))
        return steps

    turned = path(lambda g: left @ g @ right.T)
    for one, other in zip(path(lambda g: g), turned, strict=True):
        # entries that are zero but for rounding are divided by eps, 1e-8
        np.testing.assert_allclose(left @ one @ right.T, other, rtol=0, atol=1e-7)


def test_weights_decay_apart_from_the_gradient():
    params = {"kernel": jnp.full((2, 2), 3.0)}
    grads = {"kernel": jnp.eye(2)}
    plain, decayed = (optimizers.soap(0.1, weight_decay=w) for w in (0.0, 0.5))
    one, _ = plain.update(grads, plain.init(params), params)
    other, _ = decayed.update(grads, decayed.init(params), params)
    np.testing.assert_allclose(other["kernel"] - one["kernel"], -0.1 * 0.5 * 3.0, rtol=1e-5)


@pytest.mark.parametrize(("name", "value"), [("b1", 1.5), ("b2", -0.1), ("frequency", 0)])
def test_hyperparameters_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be between"):
        optimizers.soap(1e-3, **{name: value})
