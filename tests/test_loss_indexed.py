"""Parameters of single losses: kinds of one's own, several kinds together, and their parts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import (
    ModSyncParams,
    aggregators,
    balancing,
    loss_indexed,
    modsync,
    sparsity,
    value_and_objective_grads,
    with_thresholds,
)
from modsync_jax.loss_indexed import Kind, LossIndexed
from modsync_jax.transform import thresholds

NAMES = ("data", "left", "right")


# A kind of one's own: each objective scales the outputs of every kernel by factors of its own. They
# cost λ |s|², and no step is longer than 0.01.
def scales(own_only: bool = False, rate: float = 0.1, penalty: float = 0.5) -> Kind:
    def start(weights, count, key):
        return jax.tree.map(lambda w: jnp.zeros((count, 1, w.shape[1])), weights)

    def act(weights, own):
        return jax.tree.map(lambda w, s: w * (1 + s.sum(0)), weights, own)

    def act_for(weights, own, k):
        return jax.tree.map(lambda w, s: w * (1 + s[k]), weights, own)

    def update(grads, state, own, **extra):
        steps = jax.tree.map(lambda g, s: -rate * (g + 2 * penalty * s), grads, own)
        return jax.tree.map(lambda step: jnp.clip(step, -0.01, 0.01), steps), state

    tx = optax.GradientTransformationExtraArgs(lambda own: optax.EmptyState(), update)
    return Kind(start, act, tx, act_for=act_for if own_only else None)


def network(seed=0):
    rng = np.random.default_rng(seed)
    return {"a": jnp.asarray(rng.normal(size=(2, 5))), "b": jnp.asarray(rng.normal(size=(5, 1)))}


def loss(k, weights):
    x = jnp.asarray(np.random.default_rng(k).normal(size=(7, 2)))
    return jnp.mean((jnp.tanh(x @ weights["a"]) @ weights["b"] - k) ** 2)


OBJECTIVES = {name: partial(loss, k) for k, name in enumerate(NAMES)}


def all_losses(weights):
    return {name: objective(weights) for name, objective in OBJECTIVES.items()}


def some(kind, seed=1, scale=0.3):
    """Parameters with own ones that are not zero."""
    params = loss_indexed.begin(network(), kind, len(NAMES))
    weights, own = kind.split(params)
    leaves, tree = jax.tree.flatten(own)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [scale * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves)]  # noqa: B905
    return kind.join(weights, jax.tree.unflatten(tree, moved))


def close(got, expected, rtol=1e-12):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=1e-14), got, expected)


@pytest.mark.parametrize("own_only", [False, True])
def test_a_kind_of_ones_own_moves_by_its_own_gradient_and_penalty(own_only, x64):
    kind, params = scales(own_only), some(scales())
    losses_and_grads = value_and_objective_grads(loss_indexed.objectives(OBJECTIVES, kind))
    tx = loss_indexed.transformation(optax.chain(aggregators.sum(), optax.sgd(0.2)), kind)
    _, grads = losses_and_grads(params)
    updates, _ = tx.update(grads, tx.init(params), params)

    def seen(weights, own, k):
        if own_only:
            return {n: w * (1 + own[n][k]) for n, w in weights.items()}
        return {n: w * (1 + own[n].sum(0)) for n, w in weights.items()}

    total = jax.grad(lambda w: sum(loss(k, seen(w, params.own, k)) for k in range(3)))
    close(updates.weights, jax.tree.map(lambda g: -0.2 * g, total(params.weights)))
    for k in range(3):
        slope = jax.grad(lambda own, k=k: loss(k, seen(params.weights, own, k)))(params.own)
        for name in slope:
            step = -0.1 * (slope[name][k] + params.own[name][k])
            np.testing.assert_allclose(updates.own[name][k], np.clip(step, -0.01, 0.01), rtol=1e-12)


def test_a_kind_of_ones_own_trains_and_folds(x64):
    kind = scales()
    tx = loss_indexed.transformation(optax.chain(aggregators.dcgd(), optax.adam(1e-2)), kind)
    losses_and_grads = value_and_objective_grads(loss_indexed.objectives(OBJECTIVES, kind))

    @jax.jit
    def step(params, state):
        losses, grads = losses_and_grads(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, losses

    params = loss_indexed.begin(network(), kind, 3)
    state, seen = tx.init(params), []
    for _ in range(200):
        params, state, losses = step(params, state)
        seen.append(losses.sum())
    assert seen[-1] < 0.8 * seen[0] and jnp.abs(params.own["a"]).max() > 0.01
    plain = kind.export(params)
    together = sum(OBJECTIVES[name](plain) for name in NAMES)
    np.testing.assert_allclose(together, losses_and_grads(params)[0].sum(), rtol=1e-12)
    settled = kind.settled(params)
    close(settled.weights, plain)
    close(kind.export(settled), plain)
    assert not any(leaf.any() for leaf in jax.tree.leaves(settled.own))


@pytest.mark.parametrize("own_only", [False, True])
def test_one_function_of_all_losses_sees_what_the_mapping_sees(own_only, x64):
    kind, params = scales(own_only), some(scales())
    one = value_and_objective_grads(loss_indexed.objectives(all_losses, kind))(params)
    shuffled = {name: OBJECTIVES[name] for name in ("right", "data", "left")}
    close(value_and_objective_grads(loss_indexed.objectives(shuffled, kind))(params), one)
    close(value_and_objective_grads(loss_indexed.objectives(OBJECTIVES, kind))(params), one)


def test_one_function_must_return_a_mapping_if_objectives_see_different_weights():
    both = loss_indexed.objectives(lambda weights: (weights["a"].sum(), 0.0), scales(True))
    with pytest.raises(ValueError, match=r"returned tuple.*mapping from objective name"):
        both(some(scales()))


def test_no_kind_is_the_plain_way(x64):
    weights_tx = optax.chain(aggregators.dcgd(), optax.adam(1e-2))
    none, params = loss_indexed.NONE, network()
    assert loss_indexed.begin(params, none, 3) is params
    tx = loss_indexed.transformation(weights_tx, none)
    losses, grads = value_and_objective_grads(loss_indexed.objectives(OBJECTIVES, none))(params)
    expected_losses, expected = value_and_objective_grads(OBJECTIVES)(params)
    close((losses, grads), (expected_losses, expected))
    close(
        tx.update(grads, tx.init(params), params)[0],
        weights_tx.update(expected, weights_tx.init(params), params)[0],
    )
    close(none.export(params), params)
    close(none.settled(params), params)


# --- together ------------------------------------------------------------------------------------


def both(own_only=False, **settings):
    cut = thresholds(optax.sgd(0.1), sparsity_weight=0.2, **settings)
    return loss_indexed.together(thresholds=cut, scales=scales(own_only))


@pytest.mark.parametrize("own_only", [False, True])
def test_kinds_together_act_in_order_and_move_apart(own_only, x64):
    kind = both(own_only)
    params = some(kind)
    assert isinstance(params, LossIndexed) and set(params.own) == {"thresholds", "scales"}
    cut, scaled = params.own["thresholds"], params.own["scales"]

    def seen(weights, cut, scaled, k):
        mask = {n: sparsity.masks(weights, cut)[n] for n in weights}
        factor = {n: scaled[n][k] if own_only else scaled[n].sum(0) for n in weights}
        return {n: mask[n] * weights[n] * (1 + factor[n]) for n in weights}

    losses, grads = value_and_objective_grads(loss_indexed.objectives(OBJECTIVES, kind))(params)
    tx = loss_indexed.transformation(optax.chain(aggregators.sum(), optax.sgd(0.2)), kind)
    updates, _ = tx.update(grads, tx.init(params), params)
    pull = jax.grad(sparsity.sparsity_loss)(cut)
    for k in range(3):
        np.testing.assert_allclose(losses[k], loss(k, seen(params.weights, cut, scaled, k)))
        by_cut, by_scale = jax.grad(
            lambda cut, scaled, k=k: loss(k, seen(params.weights, cut, scaled, k)), argnums=(0, 1)
        )(cut, scaled)
        for leaf in params.weights:
            step = -0.1 * (by_cut[leaf][k] + 0.2 * pull[leaf][k])
            np.testing.assert_allclose(updates.own["thresholds"][leaf][k], step, rtol=1e-11)
            step = np.clip(-0.1 * (by_scale[leaf][k] + scaled[leaf][k]), -0.01, 0.01)
            np.testing.assert_allclose(updates.own["scales"][leaf][k], step, rtol=1e-11)


def test_kinds_together_settle_to_weights_whose_cut_ones_stay(x64):
    kind = both()
    params = some(kind)
    plain, settled = kind.export(params), kind.settled(params)
    zero = {name: np.asarray(leaf) == 0 for name, leaf in plain.items()}
    assert 0 < sum(z.sum() for z in zero.values()) < sum(z.size for z in zero.values())
    close(settled.weights, plain)
    close(kind.export(settled), plain)
    kept = kind.kept(*settled)
    jax.tree.map(lambda m, z: np.testing.assert_array_equal(m, 1.0 - z), kept, zero)


def test_a_weight_is_kept_if_all_kinds_keep_it():
    def cuts(value, leaf):
        kept = {name: None for name in "ab"} | {leaf: value}
        return Kind(
            lambda weights, count, key: (),
            lambda weights, own: weights,
            optax.identity(),
            kept=lambda weights, own: kept,
        )

    one = cuts(jnp.array([1.0, 0.0, 1.0]), "a")
    other = cuts(jnp.array([1.0, 1.0, 0.0]), "a")
    third = cuts(jnp.array([0.0]), "b")
    weights = {"a": jnp.ones(3), "b": jnp.ones(1)}
    two = loss_indexed.together(one=one, other=other)
    kept = two.kept(weights, {"one": (), "other": ()})
    np.testing.assert_array_equal(kept["a"], [1, 0, 0])
    assert kept["b"] is None
    kept = loss_indexed.together(one=one, third=third).kept(weights, {"one": (), "third": ()})
    np.testing.assert_array_equal(kept["a"], [1, 0, 1])
    np.testing.assert_array_equal(kept["b"], [0])
    assert loss_indexed.together(scales=scales()).kept is None


def test_the_columns_of_kinds_together_are_those_of_each():
    kind = both()
    params = some(kind)
    row = kind.describe(*params, NAMES)
    alone = thresholds().describe(params.weights, params.own["thresholds"], NAMES)
    assert row == alone and {"keep", "keep/a", "threshold/left/b"} <= set(row)


# --- public names --------------------------------------------------------------------------------


def test_modsync_is_the_transformation_of_its_kind(x64):
    weights_tx = optax.chain(aggregators.dcgd(), optax.adam(1e-2))
    params = with_thresholds(network(), 3)
    kind = thresholds(optax.adam(1e-3), sparsity_weight=0.1, min_keep=0.5)
    assert loss_indexed.begin(network(), kind, 3)._fields == ModSyncParams._fields
    _, grads = value_and_objective_grads(loss_indexed.objectives(OBJECTIVES, kind))(params)
    made = loss_indexed.transformation(weights_tx, kind)
    named = modsync(weights_tx, optax.adam(1e-3), sparsity_weight=0.1, min_keep=0.5)
    close(
        made.update(grads, made.init(params), params),
        named.update(grads, named.init(params), params),
    )


def test_weights_of_points_are_a_kind():
    kind = balancing.point_weights({"left": 3, "data": 2}, optax.sgd(0.5))
    pair = loss_indexed.begin({"w": jnp.ones(2)}, kind, 2)
    assert isinstance(pair, balancing.PointWeighted)
    assert {name: w.tolist() for name, w in pair.point_weights.items()} == {
        "left": [1, 1, 1],
        "data": [1, 1],
    }
    objectives = balancing.point_weighted({
        "left": lambda params: jnp.array([1.0, 2.0, 3.0]) * params["w"][0],
        "data": lambda params: jnp.array([4.0, 5.0]) * params["w"][1],
    })  # fmt: skip
    _, grads = value_and_objective_grads(loss_indexed.objectives(objectives, kind))(pair)
    tx = loss_indexed.transformation(optax.chain(aggregators.sum(), optax.sgd(1.0)), kind)
    updates, _ = tx.update(grads, tx.init(pair), pair)
    np.testing.assert_allclose(updates.point_weights["left"], np.array([1.0, 4.0, 9.0]) / 3)
    np.testing.assert_allclose(updates.point_weights["data"], np.array([16.0, 25.0]) / 2)


def test_parameters_of_another_type_are_an_error():
    kind = scales()
    tx = loss_indexed.transformation(optax.chain(aggregators.sum(), optax.sgd(1.0)), kind)
    with pytest.raises(TypeError, match=r"type dict; here belong LossIndexed.*loss_indexed\.begin"):
        tx.init(network())
    with pytest.raises(TypeError, match="here belong LossIndexed"):
        kind.export(with_thresholds(network(), 2))
    with pytest.raises(TypeError, match="are LossIndexed already"):
        loss_indexed.begin(some(kind), kind, 3)
