"""Masked objectives and the ModSync transformation, Algorithm 1."""

import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import (
    ModSyncParams,
    aggregators,
    balancing,
    effective_weights,
    export,
    mask_objectives,
    modsync,
    optimizers,
    sparsity,
    value_and_objective_grads,
    with_thresholds,
)

# --- a two-layer network by hand, NumPy float64 --------------------------------------------------

POINTS = np.random.default_rng(4).normal(size=(3, 6, 2))  # of each of three objectives
NAMES = ["data", "left", "right"]


def small_network(count):
    """Weights near their thresholds on both sides, so that masks and all pieces of S' matter."""
    rng = np.random.default_rng(3)
    weights = {
        "b1": 0.1 * rng.normal(size=4),
        "w1": 1.2 * rng.normal(size=(2, 4)),
        "w2": 1.2 * rng.normal(size=(4, 1)),
    }
    thresholds = {
        "b1": None,
        "w1": 0.2 + 0.3 * rng.normal(size=(count, 1, 4)),
        "w2": 0.2 + 0.3 * rng.normal(size=(count, 1, 1)),
    }
    return weights, thresholds


def objectives(count):
    """Mean squared outputs minus k, on points of their own."""

    def of(k):
        def objective(params):
            hidden = jnp.tanh(jnp.asarray(POINTS[k]) @ params["w1"] + params["b1"])
            return jnp.mean((hidden @ params["w2"] - k) ** 2)

        return objective

    return {NAMES[k]: of(k) for k in range(count)}


def by_hand(weights, thresholds, k, structural):
    """Loss k and its gradients by every parameter, the chain rule written out."""

    def cut(name):
        w, t = weights[name], thresholds[name]
        q = np.abs(w) - t.mean(0)
        slope = np.where(np.abs(q) <= 0.4, 2 - 4 * np.abs(q), np.where(np.abs(q) <= 1, 0.4, 0.0))
        return (q > 0) * w, (q > 0) * 1.0, slope

    (e1, m1, s1), (e2, m2, s2) = cut("w1"), cut("w2")
    x = POINTS[k]
    hidden = np.tanh(x @ e1 + weights["b1"])
    error = hidden @ e2 - k
    d_out = 2 * error / len(x)
    d_e2 = hidden.T @ d_out
    d_pre = (d_out @ e2.T) * (1 - hidden**2)
    d_e1 = x.T @ d_pre

    def to_weight(d_e, w, mask, slope):
        return d_e * mask + structural * d_e * w * slope * np.sign(w)

    def to_thresholds(d_e, w, slope, t):
        by_mean = -(d_e * w * slope).sum(0, keepdims=True)
        return np.stack([by_mean / len(t)] * len(t))

    d_weights = {
        "b1": d_pre.sum(0),
        "w1": to_weight(d_e1, weights["w1"], m1, s1),
        "w2": to_weight(d_e2, weights["w2"], m2, s2),
    }
    d_thresholds = {
        "b1": None,
        "w1": to_thresholds(d_e1, weights["w1"], s1, thresholds["w1"]),
        "w2": to_thresholds(d_e2, weights["w2"], s2, thresholds["w2"]),
    }
    return np.mean(error**2), d_weights, d_thresholds


def to_jax(tree):
    return jax.tree.map(jnp.asarray, tree)


def assert_close(got, expected, rtol=1e-12, atol=1e-14):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, expected)


@pytest.mark.parametrize("strategy", ["split", "vmap"])
@pytest.mark.parametrize("structural", [True, False])
@pytest.mark.parametrize("count", [2, 3])
def test_gradients_of_weights_and_thresholds_equal_the_chain_rule_by_hand(
    x64, count, structural, strategy
):
    weights, thresholds = small_network(count)
    q = np.concatenate([(np.abs(weights[n]) - thresholds[n].mean(0)).ravel() for n in ("w1", "w2")])
    assert set(np.digitize(q, [-0.4, 0.0, 0.4, 1.0])) >= {1, 2, 3, 4}  # all that S' can be
    masked = mask_objectives(objectives(count), structural_gradient=structural)
    params = ModSyncParams(to_jax(weights), to_jax(thresholds))
    losses, grads = jax.jit(value_and_objective_grads(masked, strategy=strategy))(params)
    for k in range(count):
        loss, d_weights, d_thresholds = by_hand(weights, thresholds, k, structural)
        np.testing.assert_allclose(losses[k], loss, rtol=1e-13)
        row = jax.tree.map(lambda g, k=k: g[k], grads)
        assert_close(row, ModSyncParams(d_weights, d_thresholds))


def test_one_function_of_several_objectives_is_masked_alike(x64):
    weights, thresholds = small_network(2)
    params = ModSyncParams(to_jax(weights), to_jax(thresholds))
    both = objectives(2)
    one = mask_objectives(lambda p: {name: f(p) for name, f in both.items()})
    got = jax.jit(value_and_objective_grads(one))(params)
    assert_close(got, jax.jit(value_and_objective_grads(mask_objectives(both)))(params))


def test_masked_objectives_of_plain_parameters_are_an_error():
    masked = mask_objectives({"a": lambda p: p["w"].sum()})
    with pytest.raises(TypeError, match=r"type dict; .*ModSyncParams.*with_thresholds"):
        masked["a"]({"w": jnp.ones((2, 2))})


def test_effective_weights_and_export_are_masked_and_biases_are_not():
    params = ModSyncParams(
        {"w": jnp.asarray([[0.2, -0.2], [-0.9, 0.9]]), "b": jnp.asarray([0.01, 0.02])},
        {"w": jnp.asarray([[[0.0, 0.1]], [[0.5, 0.1]]]), "b": None},
    )
    expected = {"w": np.float32([[0.0, -0.2], [-0.9, 0.9]]), "b": np.float32([0.01, 0.02])}
    for got in (effective_weights(params), export(params)):
        jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert export(expected) is expected
    grad = jax.grad(lambda p: export(p)["w"].sum())(params)
    assert not any(g.any() for g in jax.tree.leaves(grad))


# --- the transformation --------------------------------------------------------------------------

IDENTITY = optax.identity()


def plain(grads, params, **settings):
    """One update with SGD of rate 1 on both sides, so that updates are minus gradients."""
    tx = modsync(optax.chain(aggregators.sum(), optax.sgd(1.0)), optax.sgd(1.0), **settings)
    return jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])(grads, params)


@pytest.mark.parametrize("count", [2, 3])
def test_update_is_equation_10_for_every_parameter(x64, count):
    """Weights by the summed gradients; row k of thresholds by objective k and the regulariser."""
    weights, thresholds = small_network(count)
    params = ModSyncParams(to_jax(weights), to_jax(thresholds))
    _, grads = jax.jit(value_and_objective_grads(mask_objectives(objectives(count))))(params)
    update = plain(grads, params, sparsity_weight=0.25, reset_keep=0.0)
    each = [by_hand(weights, thresholds, k, True) for k in range(count)]
    pull = jax.jit(jax.grad(sparsity.sparsity_loss))(params.thresholds)  # held by tests of its own
    for name in weights:
        expected = -sum(d_weights[name] for _, d_weights, _ in each)
        np.testing.assert_allclose(update.weights[name], expected, rtol=1e-12, atol=1e-14)
    for name in ("w1", "w2"):
        for k in range(count):
            expected = -(each[k][2][name][k] + 0.25 * pull[name][k])
            np.testing.assert_allclose(update.thresholds[name][k], expected, rtol=1e-12)


def two_layers(count=2):
    """Two layers of 10 x 10, weights 0.01 to 1, and their stacked zero gradients."""
    w = jnp.linspace(0.01, 1.0, 100).reshape(10, 10)
    params = with_thresholds({"first": w, "second": w, "bias": jnp.ones(10)}, count)
    return params, jax.tree.map(lambda p: jnp.zeros((count, *p.shape)), params)


def test_one_shared_threshold_moves_by_the_sum_over_objectives():
    params, _ = two_layers(1)
    grads = jax.tree.map(
        lambda p: jnp.ones((3, *p.shape)) * jnp.arange(3.0).reshape(3, *[1] * p.ndim), params
    )
    update = plain(grads, params, sparsity_weight=0.5)
    # -(0 + 1 + 2), and R_s pulls by -exp(0) times its weight.
    np.testing.assert_allclose(update.thresholds["first"], np.full((1, 1, 10), -3.0 + 0.5))


def test_regularizer_may_be_any_function_of_the_thresholds():
    params, grads = two_layers()

    def linear(thresholds):
        return -3.0 * sum(t[0].sum() + 2.0 * t[1].sum() for t in jax.tree.leaves(thresholds))

    update = plain(grads, params, sparsity_weight=0.01, regularizer=linear)
    for name in ("first", "second"):
        np.testing.assert_allclose(update.thresholds[name][0], 0.03, rtol=1e-6)
        np.testing.assert_allclose(update.thresholds[name][1], 0.06, rtol=1e-6)


def test_default_threshold_optimiser_is_adam_at_1e_4_and_default_weight_the_papers():
    params, grads = two_layers()
    tx = modsync(optax.chain(aggregators.dcgd(), optax.adam(1e-3)))
    expected_tx = optax.adam(1e-4)
    state, expected_state = tx.init(params), expected_tx.init(params.thresholds)
    update_fn = jax.jit(tx.update)
    for _ in range(2):
        update, state = update_fn(grads, state, params)
        pull = jax.grad(lambda t: 1e-4 * sparsity.sparsity_loss(t))(params.thresholds)
        expected, expected_state = expected_tx.update(pull, expected_state, params.thresholds)
        assert_close(update.thresholds, expected, rtol=1e-6)
        params = optax.apply_updates(params, update)


def test_layer_at_or_below_min_keep_prunes_no_further_but_may_grow_back():
    params, grads = two_layers()
    # Mean thresholds of 0.505 leave the weights from 0.51 on: 50 of 100, and 0.5 is no rounding.
    first = jnp.full_like(params.thresholds["first"], 0.505)
    params = params._replace(thresholds=params.thresholds | {"first": first})
    grads.thresholds["first"] = grads.thresholds["first"].at[0, 0].set(-0.1).at[1, 1].set(0.1)
    grads.thresholds["second"] = grads.thresholds["second"].at[0, 0].set(-0.1)
    settings = {"sparsity_weight": 0.0}
    held = plain(grads, params, min_keep=0.5, **settings).thresholds
    free = plain(grads, params, min_keep=0.49, **settings).thresholds
    np.testing.assert_allclose(held["first"][0], 0.0)
    np.testing.assert_allclose(held["first"][1], -0.1)
    np.testing.assert_allclose(free["first"][0], 0.1)
    np.testing.assert_allclose(held["second"], free["second"])  # the other layer keeps everything
    np.testing.assert_allclose(held["second"][0], 0.1)


def test_min_keep_stops_pruning_near_itself_over_many_steps():
    params, grads = two_layers()
    tx = modsync(
        optax.chain(aggregators.sum(), optax.sgd(0.0)),
        optax.sgd(1.0),
        sparsity_weight=0.01,
        min_keep=0.5,
    )

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            update, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, update), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=300)[0][0]

    overall = float(sparsity.keep_ratio(*train(params)).overall)
    # Without the floor thresholds pass 1. A step of 0.01 cuts two weights at most: 0.5 less 0.02.
    assert 0.48 <= overall <= 0.5


def test_layer_that_would_keep_one_percent_starts_again_with_its_moments():
    params, grads = two_layers()
    tx = modsync(
        optax.chain(aggregators.dcgd(), optax.adam(1e-3)), optax.adam(0.5), sparsity_weight=0.0
    )
    state = tx.init(params)
    falling = -0.001 * jnp.eye(2)[:, :, None, None] * jnp.ones((2, 2, 1, 10))
    grads = grads._replace(thresholds={"first": falling, "second": 0.0 * falling, "bias": None})
    history = []
    update_fn = jax.jit(tx.update)
    for _ in range(2):
        update, state = update_fn(grads, state, params)
        params = optax.apply_updates(params, update)
        history.append((params, state))
    (after_one, state_one), (after_two, state_two) = history
    # Adam's first step is 0.5 and leaves half of the weights. The second would be 0.5 again, to a
    # threshold of 1.0 that at most one of the hundred weights reaches: 1%.
    np.testing.assert_allclose(after_one.thresholds["first"], 0.5, rtol=1e-4)
    np.testing.assert_array_equal(after_two.thresholds["first"], np.zeros((2, 1, 10)))
    adam_one, adam_two = (s.thresholds["first"][0] for s in (state_one, state_two))
    assert adam_one.mu.all()
    assert not adam_two.mu.any()
    assert not adam_two.nu.any()
    assert (adam_one.count, adam_two.count) == (1, 0)


def test_reset_touches_no_other_layer_and_no_weight():
    params, grads = two_layers()
    moving = -0.001 * jnp.eye(2)[:, :, None, None] * jnp.ones((2, 2, 1, 10))
    both = grads._replace(thresholds={"first": moving, "second": 1e-3 * moving, "bias": None})
    # The second layer starts so low that its steps never kill it.
    lower = params.thresholds | {"second": params.thresholds["second"] - 5.0}
    start = params._replace(thresholds=lower)

    def run(reset_keep):
        tx = modsync(
            optax.chain(aggregators.dcgd(), optax.adam(1e-3)),
            optax.adam(0.5),
            sparsity_weight=0.0,
            reset_keep=reset_keep,
        )
        params, state = start, tx.init(start)
        update_fn = jax.jit(tx.update)
        for _ in range(2):
            update, state = update_fn(both, state, params)
            params = optax.apply_updates(params, update)
        return params, state

    (reset, reset_state), (free, free_state) = run(0.01), run(0.0)
    assert not reset.thresholds["first"].any()
    np.testing.assert_array_equal(reset.thresholds["second"], free.thresholds["second"])
    adam, adam_free = reset_state.thresholds["second"][0], free_state.thresholds["second"][0]
    assert adam.nu.all()
    np.testing.assert_array_equal(adam.mu, adam_free.mu)
    np.testing.assert_array_equal(adam.nu, adam_free.nu)
    assert adam.count == adam_free.count == 2
    jax.tree.map(np.testing.assert_array_equal, reset.weights, free.weights)
    jax.tree.map(np.testing.assert_array_equal, reset_state.weights, free_state.weights)


@pytest.mark.parametrize(("share", "starts_again"), [(0.01, True), (0.02, False)])
def test_reset_happens_at_one_percent_and_not_above(share, starts_again):
    params, grads = two_layers()
    # One, or two, of 100 weights are above the threshold.
    level = 1.0 - share + 0.005
    thresholds = {name: jnp.full((2, 1, 10), level) for name in ("first", "second")}
    params = params._replace(thresholds=params.thresholds | thresholds)
    update = plain(grads, params, sparsity_weight=0.0)
    expected = -level if starts_again else 0.0
    np.testing.assert_allclose(update.thresholds["first"], expected, rtol=1e-6)


@pytest.mark.parametrize(("out", "kept"), [(100, 1), (500, 5), (700, 7), (900, 9), (1100, 11)])
def test_exactly_one_percent_is_one_percent_under_jit(out, kept):
    """As float32 quotients, not all of these shares come out at 0.01 or below."""
    w = jnp.linspace(1.0, 2.0, out)[None, :]
    level = float((w[0, -kept] + w[0, -kept - 1]) / 2)
    params = ModSyncParams({"w": w}, {"w": jnp.full((2, 1, out), level)})
    grads = jax.tree.map(lambda x: jnp.zeros((2, *x.shape)), params)
    tx = modsync(
        optax.chain(aggregators.sum(), optax.sgd(0.0)), optax.sgd(1.0), sparsity_weight=0.0
    )
    updates = jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])(grads, params)
    np.testing.assert_allclose(updates.thresholds["w"], -level, rtol=1e-6)


def test_reset_counts_what_the_same_step_leaves_of_moving_weights():
    """The layer dies by its weights' own step: the reset comes in that step."""
    params, grads = two_layers()
    thresholds = {name: jnp.full((2, 1, 10), 0.5) for name in ("first", "second")}
    params = params._replace(thresholds=params.thresholds | thresholds)
    shrinking = {"first": jnp.stack([params.weights["first"], jnp.zeros((10, 10))])}
    grads = grads._replace(weights=grads.weights | shrinking)
    update = plain(grads, params, sparsity_weight=0.0)
    np.testing.assert_allclose(update.thresholds["first"], -0.5)
    np.testing.assert_allclose(update.thresholds["second"], 0.0)


@pytest.mark.parametrize("apart", [5.0, 1e3])
@pytest.mark.parametrize("granularity", ["layer", "unit"])
def test_thresholds_forced_far_apart_come_together_and_never_freeze(apart, granularity):
    """A 512-wide layer in float32, the paper's settings, 400 steps of Adam."""
    rng = np.random.default_rng(0)
    params = with_thresholds({"w": jnp.asarray(rng.normal(size=(4, 512)), jnp.float32)}, 2)
    far = jnp.stack([jnp.full((1, 512), apart), jnp.full((1, 512), -apart)])
    params = params._replace(thresholds={"w": far})
    tx = modsync(
        optax.chain(aggregators.dcgd(), optax.adam(1e-3)),
        regularizer=functools.partial(sparsity.sparsity_loss, granularity=granularity),
    )
    fn = value_and_objective_grads(
        mask_objectives({"a": lambda p: jnp.mean(p["w"] ** 2), "b": lambda p: jnp.mean(p["w"])})
    )

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            _, grads = fn(params)
            update, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, update)
            t = params.thresholds["w"]
            return (params, state), (jnp.max(t[0] - t[1]), jnp.max(state.thresholds["w"][0].nu))

        return jax.lax.scan(step, (params, tx.init(params)), length=400)[1]

    distance, second_moment = train(params)
    assert np.isfinite(second_moment).all()
    every_hundred = np.concatenate([[2 * apart], distance[99::100]])
    # Adam moves each by 1e-4 a step: 0.02 in 100 steps for two, of which rounding at 1e3 (a unit
    # is 6e-5) and the steps of the objectives may take some.
    assert (np.diff(every_hundred) < -0.005).all()


def loss_scaled(gramian, *, losses):
    return losses


def test_extra_arguments_reach_the_optimiser_of_the_thresholds():
    params, grads = two_layers()

    def update_fn(updates, state, params=None, *, losses, **extra_args):
        return jax.tree.map(lambda u: u + losses.sum(), updates), state

    by_losses = optax.GradientTransformationExtraArgs(lambda params: (), update_fn)
    tx = modsync(aggregators.sum(), by_losses, sparsity_weight=0.0)
    update, _ = tx.update(grads, tx.init(params), params, losses=jnp.array([0.25, 0.125]))
    np.testing.assert_array_equal(update.thresholds["first"], np.full((2, 1, 10), 0.375))


def test_extra_arguments_reach_the_aggregator():
    params, grads = two_layers()
    grads = jax.tree.map(lambda g: g + 1.0, grads)
    tx = modsync(optax.chain(aggregators.from_weights(loss_scaled), optax.sgd(1.0)), optax.sgd(1.0))
    update, _ = tx.update(grads, tx.init(params), params, losses=jnp.array([2.0, 3.0]))
    np.testing.assert_allclose(update.weights["bias"], -5.0)
    with pytest.raises(ValueError, match="needs 'losses'"):
        tx.update(grads, tx.init(params), params)


@pytest.mark.parametrize("name", ["sparsity_weight", "min_keep", "reset_keep"])
@pytest.mark.parametrize("value", [-0.1, math.nan, 1.5])
def test_hyperparameter_out_of_range_is_an_error_when_built(name, value):
    if name == "sparsity_weight" and value > 0:
        assert modsync(IDENTITY, sparsity_weight=value)
        return
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be between 0 and"):
        modsync(IDENTITY, **{name: value})


def test_hyperparameters_may_be_traced_and_mapped_over():
    params, grads = two_layers()
    grads = jax.tree.map(lambda g: g - 0.25, grads)
    first = jnp.full_like(params.thresholds["first"], 0.605)
    params = params._replace(thresholds=params.thresholds | {"first": first})

    def update(sparsity_weight, min_keep, reset_keep):
        settings = {
            "sparsity_weight": sparsity_weight,
            "min_keep": min_keep,
            "reset_keep": reset_keep,
        }
        return plain(grads, params, **settings).thresholds["first"]

    settings = [(0.0, 0.0, 0.0), (0.1, 0.0, 0.01), (0.1, 0.5, 0.01), (0.0, 0.0, 0.9)]
    columns = [jnp.asarray(column) for column in zip(*settings, strict=True)]
    expected = np.stack([update(*row) for row in settings])
    assert len(np.unique(expected[:, 0, 0, 0])) == 4
    for mapped in (jax.vmap(update), jax.jit(jax.vmap(update))):
        np.testing.assert_allclose(mapped(*columns), expected, rtol=1e-6)


def resets(thresholds_tx, steps=60):
    """Thresholds of one layer over steps, in which it dies again and again, and when it does."""
    params = with_thresholds({"w": jnp.linspace(0.01, 1.0, 100).reshape(10, 10)}, 2)
    tx = modsync(optax.chain(aggregators.sum(), optax.sgd(0.0)), thresholds_tx, sparsity_weight=0.0)
    # The mean of the thresholds rises, the second twice as fast by plain descent.
    slope = -0.001 * jnp.array([1.0, 2.0])[:, None, None] * jnp.ones((2, 1, 10))
    grads = jax.tree.map(lambda p: jnp.zeros((2, *p.shape)), params)
    grads.thresholds["w"] = jnp.stack([slope, slope])

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params.thresholds["w"][:, 0, 0]

    return jax.lax.scan(step, (params, tx.init(params)), length=steps)[1]


THRESHOLD_OPTIMISERS = {
    "adam": lambda: optax.adam(0.1),
    "a schedule": lambda: optax.adam(optax.exponential_decay(0.1, 1, 0.95)),
    "momentum": lambda: optax.sgd(30.0, momentum=0.9),
    "injected": lambda: optax.inject_hyperparams(optax.adamw)(
        learning_rate=optax.exponential_decay(0.1, 1, 0.95)
    ),
}


@pytest.mark.parametrize("name", THRESHOLD_OPTIMISERS)
def test_steps_after_a_reset_are_those_of_a_fresh_start(name):
    """Moments, counts and schedules start again: the layer dies after the same time each time."""
    history = np.asarray(jax.jit(lambda: resets(THRESHOLD_OPTIMISERS[name]()))())
    (times,) = np.nonzero(~history.any(axis=1))
    assert len(times) >= 3
    period = times[0] + 1
    np.testing.assert_array_equal(np.diff(times), period)
    for start in times[:-1]:
        # The same operations on the same numbers: the same bits.
        np.testing.assert_array_equal(history[start + 1 : start + 1 + period], history[:period])


def test_a_reset_layer_leaves_the_state_of_the_others_under_vmap():
    """Two runs at once, of which one resets: each is what it is alone."""
    rates = jnp.array([0.1, 0.001])
    alone = [jax.jit(lambda r=r: resets(optax.adam(r)))() for r in rates]
    both = jax.jit(jax.vmap(lambda r: resets(optax.adam(r))))(rates)
    assert not alone[0].any(axis=1).all()
    assert alone[1].any(axis=1).all()
    np.testing.assert_allclose(both, alone, rtol=1e-6)  # float32


@pytest.mark.parametrize("broken", ["threshold", "gradient", "weight"])
def test_what_is_not_a_number_is_not_hidden_by_a_reset(broken):
    params, grads = two_layers()
    if broken == "threshold":
        params.thresholds["first"] = params.thresholds["first"].at[0, 0, 3].set(jnp.nan)
    elif broken == "gradient":
        grads.thresholds["first"] = grads.thresholds["first"].at[1, 1, 0, 3].set(jnp.nan)
    else:
        params.weights["first"] = params.weights["first"].at[2, 2].set(jnp.nan)
        grads.weights["first"] = grads.weights["first"].at[0, 2, 2].set(jnp.nan)
    update = plain(grads, params)
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(update))
    assert jnp.isnan(total)  # so a check of the updates sees it
    assert jnp.isfinite(update.thresholds["second"]).all()


@pytest.mark.parametrize(
    "weights_tx", [optax.adam(1e-3), optax.identity(), optax.chain(optax.clip(1.0), optax.sgd(0.1))]
)
def test_weights_without_an_aggregator_are_an_error_with_the_fix(weights_tx):
    params, grads = two_layers()
    tx = modsync(weights_tx)
    said = (
        r"no aggregator follows .* bias has shape \[2, 10\], the parameter \[10\]; put one first, "
    )
    with pytest.raises(ValueError, match=said + r"as in optax.chain\(aggregators.dcgd"):
        jax.jit(tx.update)(grads, tx.init(params), params)


def test_thresholds_for_parameters_that_have_some_are_an_error():
    params, _ = two_layers()
    with pytest.raises(TypeError, match=r"are ModSyncParams already; .*modsync_jax.export"):
        with_thresholds(params, 2)


FROZEN = {
    "multi_transform": lambda tx: optax.multi_transform(
        {"train": tx, "frozen": optax.set_to_zero()}, {"w": "train", "v": "frozen"}
    ),
    "masked": lambda tx: optax.masked(tx, {"w": True, "v": False}),
}
STACKED = {
    "aggregator": aggregators.dcgd,
    "grad_drop": aggregators.grad_drop,
    "balancing": lambda: balancing.norm_balance(2),
    "per_objective": lambda: optimizers.per_objective(optax.scale_by_adam(), 2),
    "momentum_config": lambda: optimizers.momentum_config(2, 1e-3),
    "modsync": lambda: modsync(optax.chain(aggregators.dcgd(), optax.adam(1e-3))),
}


@pytest.mark.parametrize("wrapper", FROZEN)
@pytest.mark.parametrize("name", STACKED)
def test_a_part_of_the_parameters_behind_a_mask_is_an_error_at_init(name, wrapper):
    params = {"w": jnp.ones((3, 2)), "v": jnp.ones(2)}
    tx = FROZEN[wrapper](STACKED[name]())
    if name == "modsync":
        params = with_thresholds(params, 2)
        hidden = ModSyncParams({"w": True, "v": False}, {"w": True, "v": None})
        tx = optax.masked(STACKED[name](), hidden)
    with pytest.raises(ValueError, match=r"hides some parameters .* put it after the aggregator"):
        tx.init(params)


@pytest.mark.parametrize("name", STACKED)
def test_extra_arguments_are_called_as_in_optax(name):
    """Other libraries look for the name `extra_args` to know what a transformation takes."""
    parameters = inspect.signature(STACKED[name]().update).parameters
    kinds = {p.name for p in parameters.values() if p.kind is p.VAR_KEYWORD}
    assert kinds == {"extra_args"}


def test_freezing_after_the_aggregator_works():
    """What the message advises."""
    params = {"w": jnp.ones((3, 2)), "v": jnp.ones(2)}
    grads = jax.tree.map(lambda p: jnp.ones((2, *p.shape)), params)
    tx = optax.chain(aggregators.sum(), FROZEN["multi_transform"](optax.sgd(1.0)))
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["w"], -2.0 * jnp.ones((3, 2)))
    np.testing.assert_array_equal(updates["v"], jnp.zeros(2))


def test_multi_steps_around_the_whole_chain_is_an_error_with_the_fix():
    params = {"w": jnp.ones((3, 2))}
    grads = {"w": jnp.ones((2, 3, 2))}
    tx = optax.MultiSteps(optax.chain(aggregators.dcgd(), optax.adam(1e-3)), 2)
    # With older optax (0.2.5) JAX refuses the branches of MultiSteps before we see anything.
    said = "not stacked: .*MultiSteps and the like wrap only transformations after|_do_update"
    with pytest.raises((ValueError, TypeError), match=said):
        tx.update(grads, tx.init(params), params)


def test_apply_if_finite_around_the_whole_chain_is_refused_by_jax():
    """Nothing here sees it: the branch that rejects is not run by us. But it is not silent."""
    params = {"w": jnp.ones((3, 2))}
    grads = {"w": jnp.ones((2, 3, 2))}
    tx = optax.apply_if_finite(optax.chain(aggregators.dcgd(), optax.adam(1e-3)), 2)
    with pytest.raises(TypeError, match=r"reject_update"):
        tx.update(grads, tx.init(params), params)


def test_plain_parameters_are_an_error():
    tx = modsync(IDENTITY)
    plain_params = {"w": jnp.ones((3, 2))}
    with pytest.raises(TypeError, match=r"type dict; .*ModSyncParams.*with_thresholds"):
        tx.init(plain_params)
    state = tx.init(with_thresholds(plain_params, 2))
    with pytest.raises(TypeError, match="got parameters of type dict"):
        tx.update({"w": jnp.ones((2, 3, 2))}, state, plain_params)


def test_missing_parameters_are_an_error():
    params, grads = two_layers()
    tx = modsync(IDENTITY)
    with pytest.raises(ValueError, match="params is missing"):
        tx.update(grads, tx.init(params))


def test_gradients_that_are_not_stacked_are_an_error():
    params, _ = two_layers()
    tx = modsync(IDENTITY)
    with pytest.raises(ValueError, match=r"not stacked: .*value_and_objective_grads"):
        tx.update(params, tx.init(params), params)


def test_thresholds_of_another_number_of_objectives_are_an_error():
    params, _ = two_layers(3)
    grads = jax.tree.map(lambda p: jnp.zeros((2, *p.shape)), params)
    with pytest.raises(ValueError, match="num_objectives=2"):
        plain(grads, params)


def test_select_that_matches_nothing_is_an_error():
    with pytest.raises(ValueError, match="no parameter gets thresholds"):
        with_thresholds({"w": jnp.ones((2, 2))}, 2, select=lambda path, leaf: path == "v")
