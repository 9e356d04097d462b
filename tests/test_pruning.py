"""Masks that no loss learns: by magnitude, and at random."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import aggregators, loss_indexed, pruning, value_and_objective_grads
from tests.two_layers import loss, network

NAMES = ("data", "left")


OBJECTIVES = {name: partial(loss, k) for k, name in enumerate(NAMES)}


def trained(kind, steps, rate=0.05, **extra):
    """Parameters before and after each of some steps of gradient descent."""
    tx = loss_indexed.transformation(optax.chain(aggregators.sum(), optax.sgd(rate)), kind)
    losses_and_grads = value_and_objective_grads(loss_indexed.objectives(OBJECTIVES, kind))

    @jax.jit
    def step(params, state, number):
        _, grads = losses_and_grads(params)
        given = {name: value(number) for name, value in extra.items()}
        updates, state = tx.update(grads, state, params, **given)
        return optax.apply_updates(params, updates), state

    params = loss_indexed.begin(network(9, 3), kind, 2, jax.random.key(3))
    state, seen = tx.init(params), [params]
    for number in range(steps):
        params, state = step(params, state, number)
        seen.append(params)
    return seen


@pytest.mark.parametrize(
    "keep", [0.25, *(pytest.param(keep, marks=pytest.mark.long) for keep in (0.0, 0.8, 1.0))]
)
def test_the_largest_weights_are_kept_along_the_cubic(keep, x64):
    kind = pruning.by_magnitude(keep, steps=12, every=4)
    seen = trained(kind, 20)
    for number, params in enumerate(seen):
        t = min(number // 4 * 4 / 12, 1)
        share = keep + (1 - keep) * (1 - t) ** 3
        kept = kind.kept(*params)
        assert kept["bias"] is None
        if number % 4:  # the threshold is as old as the last multiple of 4
            continue
        for name in ("in", "out"):
            sizes, mask = np.abs(params.weights[name]), np.asarray(kept[name])
            assert abs(mask.sum() - share * sizes.size) <= 0.5 + 1e-6  # rounded
            assert not mask.any() or mask.all() or sizes[mask == 1].min() > sizes[mask == 0].max()
    described = kind.describe(*seen[-1], NAMES)
    np.testing.assert_allclose(described["keep/out"], np.round(27 * keep) / 27, rtol=1e-6)
    assert set(described) >= {"keep", "keep/in", "threshold/all/in"}


def test_weights_that_magnitude_cuts_do_not_move(x64):
    kind = pruning.by_magnitude(0.5, steps=1, every=1)
    before, after = trained(kind, 2)[1:]
    cut = np.asarray(kind.kept(*before)["out"]) == 0
    moved = np.asarray(after.weights["out"] != before.weights["out"])
    assert cut.any() and not moved[cut].any() and moved[~cut].all()
    plain = kind.export(before)
    np.testing.assert_array_equal(np.asarray(plain["out"]) == 0, cut)
    for k, name in enumerate(NAMES):
        seen = loss_indexed.objectives(OBJECTIVES, kind)[name](before)
        np.testing.assert_allclose(seen, loss(k, plain), rtol=1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_each_step_draws_new_masks_of_the_rate(rate, x64):
    kind = pruning.at_random(rate)
    wide = {"w": jnp.ones((400, 500)), "b": jnp.ones(500)}
    own = kind.start(wide, 2, jax.random.key(0))
    assert own["b"] is None and own["w"].shape == (1, 400, 500)
    values = np.unique(own["w"])
    np.testing.assert_allclose(values, [1.0] if rate == 0 else [0.0, 1 / 0.7], rtol=1e-12)
    # 200,000 draws: the standard error of their mean is 0.15% at most
    assert np.mean(own["w"]) == pytest.approx(1.0, rel=0.01)
    seen = [np.asarray(params.own["out"]) for params in trained(kind, 4)]
    if rate:
        assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(seen))


def test_objectives_see_the_masks_and_the_finished_network_has_none(x64):
    kind = pruning.at_random(0.4)
    before, after = trained(kind, 1, rate=0.05)
    masked = {
        n: w if before.own[n] is None else w * before.own[n][0] for n, w in before.weights.items()
    }
    for k, name in enumerate(NAMES):
        seen = loss_indexed.objectives(OBJECTIVES, kind)[name](before)
        np.testing.assert_allclose(seen, loss(k, masked), rtol=1e-12)
    slopes = jax.grad(lambda w: loss(0, w) + loss(1, w))(masked)
    for name in ("in", "out"):
        step = -0.05 * slopes[name] * before.own[name][0]
        np.testing.assert_allclose(after.weights[name] - before.weights[name], step, atol=1e-12)
    jax.tree.map(np.testing.assert_array_equal, kind.export(before), before.weights)


def test_a_given_key_draws_masks_that_no_random_aggregator_draws():
    """A run gives one key to all parts; grad_drop draws uniform numbers of the same shapes."""
    kind = pruning.at_random(0.5)
    given = jax.random.key(7)
    first, second = (
        trained(kind, 1, key=lambda _: given)[1].own["out"],
        trained(kind, 1, key=lambda _: given)[1].own["out"],
    )
    np.testing.assert_array_equal(first, second)
    keys = jax.random.split(given, 2)
    same = [np.array_equal(jax.random.uniform(k, (1, 9, 3)) < 0.5, first > 0) for k in keys]
    assert not any(same)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pruning.by_magnitude(1.5), "keep is 1.5; it must be between 0 and 1"),
        (lambda: pruning.by_magnitude(steps=0), "steps is 0; it must be between 1 and inf"),
        (lambda: pruning.at_random(-0.1), "rate is -0.1; it must be between 0 and 1"),
        (lambda: pruning.at_random(1.0), "rate is 1.0; it must be below 1"),
    ],
)
def test_wrong_hyperparameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()
