"""Low-rank adapters of single losses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import adapters, aggregators, loss_indexed, methods, value_and_objective_grads
from modsync_jax.transform import thresholds
from tests.two_layers import loss, network

NAMES = ("data", "left", "right")


OBJECTIVES = {name: partial(loss, k) for k, name in enumerate(NAMES)}


def all_losses(weights):
    return {name: objective(weights) for name, objective in OBJECTIVES.items()}


def started(kind, seed=1):
    """Parameters whose factors are all away from zero."""
    params = loss_indexed.begin(network(6, 1), kind, len(NAMES), jax.random.key(seed))
    weights, own = kind.split(params)
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape), own)
    return kind.join(weights, moved)


def by_hand(weights, own, factors=None):
    """`W + Σ_k A_k B_k` in NumPy; row k of the factors may come from elsewhere."""
    found = dict(weights)
    for name in ("in", "out"):
        pair = own[name]
        for k in range(len(NAMES)):
            row = {n: x[k] for n, x in pair.items()}
            if factors is not None and k == factors[0]:
                row = factors[1][name]
            found[name] = found[name] + row["a"] @ row["b"]
    return found


def test_the_first_network_is_that_of_the_weights(x64):
    kind = adapters.low_rank(rank=3)
    params = loss_indexed.begin(network(6, 1), kind, 4, jax.random.key(5))
    assert params.own["bias"] is None
    assert params.own["in"]["a"].shape == (4, 2, 3) and params.own["in"]["b"].shape == (4, 3, 6)
    assert params.own["out"]["a"].shape == (4, 6, 3) and params.own["out"]["b"].shape == (4, 3, 1)
    jax.tree.map(np.testing.assert_array_equal, kind.export(params), network(6, 1))
    other = loss_indexed.begin(network(6, 1), kind, 4, jax.random.key(6))
    assert not np.array_equal(other.own["in"]["a"], params.own["in"]["a"])
    drawn = adapters.low_rank(rank=50).start({"w": jnp.zeros((400, 3))}, 5, jax.random.key(0))
    # 100,000 numbers: the deviation's standard error is 0.2%
    assert jnp.std(drawn["w"]["a"]) * 20 == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("form", [OBJECTIVES, all_losses])
def test_each_objective_moves_its_own_factors_alone(form, x64):
    kind = adapters.low_rank(rank=2, optimizer=optax.sgd(0.1))
    params = started(kind)
    losses, grads = value_and_objective_grads(loss_indexed.objectives(form, kind))(params)
    tx = loss_indexed.transformation(optax.chain(aggregators.sum(), optax.sgd(0.5)), kind)
    updates, _ = tx.update(grads, tx.init(params), params)
    shared = jax.grad(lambda w: sum(loss(k, by_hand(w, params.own)) for k in range(3)))
    for name, slope in shared(params.weights).items():
        np.testing.assert_allclose(updates.weights[name], -0.5 * slope, rtol=1e-11)
    for k in range(3):
        row = {name: {n: x[k] for n, x in params.own[name].items()} for name in ("in", "out")}
        np.testing.assert_allclose(losses[k], loss(k, by_hand(params.weights, params.own)))
        slopes = jax.grad(lambda row, k=k: loss(k, by_hand(params.weights, params.own, (k, row))))(
            row
        )
        for name in row:
            for factor, slope in slopes[name].items():
                step = updates.own[name][factor][k]
                np.testing.assert_allclose(step, -0.1 * slope, rtol=1e-10)


def test_factors_fold_into_plain_weights(x64):
    kind = adapters.low_rank(rank=2)
    params = started(kind)
    plain = kind.export(params)
    for name, expected in by_hand(params.weights, params.own).items():
        np.testing.assert_allclose(plain[name], expected, rtol=1e-12)
    losses, _ = value_and_objective_grads(loss_indexed.objectives(OBJECTIVES, kind))(params)
    np.testing.assert_allclose(losses, [OBJECTIVES[name](plain) for name in NAMES], rtol=1e-12)
    settled = kind.settled(params)
    jax.tree.map(np.testing.assert_array_equal, kind.export(settled), plain)


def test_a_row_of_metrics_has_the_share_of_each_objective(x64):
    kind = adapters.low_rank(rank=2)
    params = started(kind)
    row = kind.describe(*params, NAMES)
    assert set(row) == {f"adapter/{name}/{leaf}" for name in NAMES for leaf in ("in", "out")}
    a, b = (np.asarray(params.own["in"][factor]) for factor in "ab")
    share = np.linalg.norm(a[1] @ b[1]) / np.linalg.norm(params.weights["in"])
    np.testing.assert_allclose(row["adapter/left/in"], share, rtol=1e-12)


@pytest.mark.long
def test_thresholds_never_cover_adapters(x64):
    """Masks cut the shared weights; the adapters of a layer that is cut whole still move."""
    kind = loss_indexed.together(
        thresholds=thresholds(optax.sgd(0.0)),
        adapters=adapters.low_rank(2, optimizer=optax.sgd(1.0)),
    )
    params = loss_indexed.begin(network(6, 1), kind, len(NAMES), jax.random.key(0))
    assert jax.tree.structure(params.own["thresholds"]) == jax.tree.structure(
        {"bias": None, "in": 0, "out": 0}
    )
    high = jax.tree.map(lambda t: t + 100.0, params.own["thresholds"])
    params = params._replace(own=params.own | {"thresholds": high})
    assert not any(kind.export(params)[name].any() for name in ("in", "out"))
    moved = jax.tree.map(lambda x: x + 0.1, params.own["adapters"])
    params = params._replace(own=params.own | {"adapters": moved})
    _, grads = value_and_objective_grads(loss_indexed.objectives(OBJECTIVES, kind))(params)
    tx = loss_indexed.transformation(optax.chain(aggregators.sum(), optax.sgd(1.0)), kind)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert all(leaf.any() for leaf in jax.tree.leaves(updates.own["adapters"]))


@pytest.mark.parametrize(
    "name", ["adapters", "adapters(rank=2)+lra", "modsync+adapters+dcgd", "adapters+norm+config"]
)
def test_methods_with_adapters_lower_the_losses(name):
    kind = methods.indexed(name, optax.adam(1e-3), optax.adam(1e-2))
    tx = methods.build(name, optax.adam(1e-2), kind, num_objectives=3, reference=2)
    losses_and_grads = value_and_objective_grads(loss_indexed.objectives(OBJECTIVES, kind))

    @jax.jit
    def step(params, state):
        losses, grads = losses_and_grads(params)
        updates, state = tx.update(grads, state, params, losses=losses)
        return optax.apply_updates(params, updates), state, losses.sum()

    weights = jax.tree.map(jnp.float32, network(6, 1))
    params = loss_indexed.begin(weights, kind, 3, jax.random.key(0))
    state, seen = tx.init(params), []
    for _ in range(100):
        params, state, total = step(params, state)
        seen.append(float(total))
    assert seen[-1] < 0.8 * seen[0]


def test_bad_arguments_are_errors():
    with pytest.raises(ValueError, match="rank"):
        adapters.low_rank(0)
    with pytest.raises(ValueError, match=r"no parameter gets adapters.*: bias, in, out"):
        loss_indexed.begin(network(6, 1), adapters.low_rank(select=lambda *_: False), 2)
    with pytest.raises(ValueError, match=r"bias has 1 axes.*select"):
        loss_indexed.begin(network(6, 1), adapters.low_rank(select=lambda *_: True), 2)
    with pytest.raises(ValueError, match=r"adapters\+modsync\+sum.*\[modsync\+\]\[adapters\+\]"):
        methods.parse("adapters+modsync+sum")
    with pytest.raises(ValueError, match=r"hyperparameter of adapters 'rang'.*rank"):
        methods.parse("adapters(rang=3)+sum")
