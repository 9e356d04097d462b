"""M-ConFIG and the gradient of one objective."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import optimizers, value_and_objective_grad, value_and_objective_grads

B1, B2, EPS, RATE = 0.9, 0.99, 1e-8, 0.1


def algorithm_1(gradients, order, count):
    """The updates of the paper's Algorithm 1, on dense float64 vectors.

    Bias corrections count each objective's own gradients, and, as in the authors' code, the updates
    from the first that is not zero on.
    """
    size = gradients.shape[1]
    m, seen = np.zeros((count, size)), np.zeros(count)
    v, previous, t, updates = np.zeros(size), np.zeros(size), 0, []
    for g, i in zip(gradients, order, strict=True):
        seen[i] += 1
        m[i] = B1 * m[i] + (1 - B1) * g
        if not seen.all():
            updates.append(np.zeros(size))
            continue
        t += 1
        corrected = m / (1 - B1**seen)[:, None]
        units = corrected / np.linalg.norm(corrected, axis=1, keepdims=True)
        d = np.linalg.pinv(units) @ np.ones(count)
        d /= np.linalg.norm(d)
        d *= (corrected @ d).sum()
        pseudo = (d * (1 - B1**t) - B1 * previous) / (1 - B1)
        previous = d * (1 - B1**t)
        v = B2 * v + (1 - B2) * pseudo**2
        updates.append(-RATE * d / (np.sqrt(v / (1 - B2**t)) + EPS))
    return np.array(updates)


@pytest.mark.long
@pytest.mark.parametrize("order", [[0, 1, 2] * 8, [2, 2, 0, 2, 0, 1, 1, 0, 2, 1, 1, 1, 0]])
def test_follows_the_papers_algorithm(x64, order):
    rng = np.random.default_rng(5)
    flat = rng.normal(size=(len(order), 7))
    params = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(())}
    tx = optimizers.momentum_config(3, RATE, B1, B2, EPS)

    def step(state, inputs):
        g, i = inputs
        grad = {"kernel": g[:6].reshape(2, 3), "bias": g[6]}
        updates, state = tx.update(grad, state, params, objective=i)
        return state, jnp.append(updates["kernel"].ravel(), updates["bias"])

    inputs = (jnp.asarray(flat), jnp.asarray(order))
    _, got = jax.jit(lambda s: jax.lax.scan(step, s, inputs))(tx.init(params))
    expected = algorithm_1(flat, order, 3)
    first = max(order.index(i) for i in range(3))
    assert not got[:first].any()
    assert np.abs(expected[first:]).min() > 1e-6  # else zeros would pass
    # eps 2e-16, over 1 - B1 = 0.1 in the pseudo-gradient, through a few dozen steps.
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.long
def test_with_one_objective_is_adam():
    rng = np.random.default_rng(1)
    params = jnp.zeros(5)
    ours, adam = optimizers.momentum_config(1, RATE, B1, B2, EPS), optax.adam(RATE, B1, B2, EPS)
    state, adam_state = ours.init(params), adam.init(params)
    for _ in range(20):
        g = jnp.asarray(rng.normal(size=5), jnp.float32)
        updates, state = ours.update(g, state, params, objective=0)
        expected, adam_state = adam.update(g, adam_state, params)
        # float32; the pseudo-gradient takes two momenta apart, over 1 - B1 = 0.1.
        np.testing.assert_allclose(updates, expected, rtol=1e-4, atol=1e-5 * RATE)


def test_state_keeps_its_types_under_scan_and_vmap_and_a_schedule_is_a_rate(x64):
    params = {"a": jnp.ones(3, jnp.float32), "b": jnp.ones(2, jnp.float64)}
    tx = optimizers.momentum_config(2, optax.constant_schedule(0.5))
    constant = optimizers.momentum_config(2, 0.5)

    def run(tx, seed):
        def step(state, i):
            grad = jax.tree.map(
                lambda p: jnp.sin(seed + i + jnp.arange(p.size, dtype=p.dtype)), params
            )
            updates, state = tx.update(grad, state, params, objective=i % 2)
            return state, updates

        return jax.lax.scan(step, tx.init(params), jnp.arange(5))[1]

    seeds = jnp.arange(3.0, dtype=jnp.float32)
    got = jax.jit(jax.vmap(lambda s: run(tx, s)))(seeds)
    assert got["a"].dtype == jnp.float32
    assert got["b"].dtype == jnp.float64
    for k in range(3):
        expected = run(constant, seeds[k])
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a[k], b, rtol=1e-4, atol=1e-6)  # float32


def test_groups_have_directions_of_their_own():
    params = {"w": jnp.zeros(3), "coefficient": jnp.zeros(())}
    rng = np.random.default_rng(0)
    grads = [
        jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params) for _ in range(2)
    ]

    def last(tx, params, grads):
        state = tx.init(params)
        for i, grad in enumerate(grads):
            _, state = tx.update(grad, state, params, objective=i)
        return state[0].first

    together = last(optimizers.momentum_config(2, RATE), params, grads)
    apart = last(optimizers.momentum_config(2, RATE, groups="leaf"), params, grads)
    alone = last(optimizers.momentum_config(2, RATE), params["w"], [g["w"] for g in grads])
    np.testing.assert_allclose(apart["w"], alone, rtol=1e-6)
    assert np.abs(apart["w"] - together["w"]).max() > 1e-3


@pytest.mark.parametrize(
    ("grad", "extra", "message"),
    [
        (jnp.ones(3), {}, "objective=None"),
        (
            jnp.ones((2, 3)),
            {"objective": 0},
            r"the shapes \[\(2, 3\)\] for parameters of \[\(3,\)\]",
        ),
    ],
)
def test_missing_index_and_stacked_gradients_are_errors(grad, extra, message):
    tx = optimizers.momentum_config(2, RATE)
    with pytest.raises(ValueError, match=message):
        tx.update(grad, tx.init(jnp.zeros(3)), jnp.zeros(3), **extra)


# --- the gradient of one objective ---------------------------------------------------------------

OBJECTIVES = {
    "residual": lambda p, x: jnp.sum((p["w"] * x) ** 3),
    "boundary": lambda p, x: jnp.sum(jnp.sin(p["w"]) * x) + p["b"],
    "data": lambda p, x: p["b"] ** 2,
}


def test_one_objective_is_the_row_of_all():
    params, x = {"w": jnp.arange(3.0), "b": jnp.float32(2.0)}, jnp.ones(3)
    losses, grads = value_and_objective_grads(OBJECTIVES)(params, x)
    one = jax.jit(value_and_objective_grad(OBJECTIVES))
    for k in range(3):
        loss, grad = one(params, k, x)
        np.testing.assert_allclose(loss, losses[k], rtol=1e-6)  # one rounding of float32
        for name in params:
            np.testing.assert_allclose(grad[name], grads[name][k], rtol=1e-6)


def test_only_the_chosen_objective_runs_under_jit_and_scan():
    ran = []

    def counted(name):
        def objective(p):
            jax.debug.callback(lambda: ran.append(name))
            return (p**2).sum()

        return objective

    one = value_and_objective_grad({name: counted(name) for name in "ab"})
    run = jax.jit(lambda p: jax.lax.scan(lambda c, i: (c, one(p, i % 2)[0]), 0, jnp.arange(5)))
    jax.block_until_ready(run(jnp.ones(2)))
    jax.effects_barrier()
    assert (ran.count("a"), ran.count("b")) == (3, 2)


def test_conflicting_losses_fall_together():
    """Two quadratics with different minima, along a shared valley: both losses fall."""
    objectives = {
        "a": lambda p: (p[0] - 1.0) ** 2 + p[1] ** 2,
        "b": lambda p: (p[0] + 1.0) ** 2 + p[1] ** 2,
    }
    one = value_and_objective_grad(objectives)
    tx = optimizers.momentum_config(2, 0.02)

    def step(carry, i):
        params, state = carry
        _, grad = one(params, i % 2)
        updates, state = tx.update(grad, state, params, objective=i % 2)
        return (optax.apply_updates(params, updates), state), None

    start = jnp.array([0.3, 2.0])
    (end, _), _ = jax.lax.scan(step, (start, tx.init(start)), jnp.arange(600))
    assert abs(float(end[1])) < 0.05  # Pareto-stationary points are those with p[1] = 0
    for name, f in objectives.items():
        assert f(end) < f(start), name


@pytest.mark.parametrize("objectives", [{}, lambda p: {"a": p.sum()}])
def test_objectives_that_can_not_be_told_apart_are_an_error(objectives):
    with pytest.raises(ValueError, match="give a mapping from name to function"):
        value_and_objective_grad(objectives)
