"""What a state becomes, by hand: stopped runs, streams of random numbers, rows, the polish."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import methods, networks, problems, sparsity
from modsync_jax.problems import Problem
from modsync_jax.training import TrainConfig, _optimizers, _state, _step
from modsync_jax.training._solution import field_of
from modsync_jax.transform import ModSyncParams, export

PROBLEM = problems.get("poisson1d", frequency=1.0)
NETWORK = networks.MLP(width=4, depth=1)
SEED, STEPS = 5, 2
CONFIG = TrainConfig(
    method="modsync+dcgd", steps=STEPS, points={"residual": 8}, then="lbfgs(points=2):3",
    loss_weights={"boundary": 10.0},
    schedule="exponential", decay_rate=0.5, decay_steps=1, threshold_learning_rate=7e-3,
)  # fmt: skip


def sines(n, factor):
    """Points, and values that are no solution."""
    points = jnp.linspace(0.1, 0.9, n)[:, None]
    return points, factor * jnp.sin(points)


REFERENCES = {"test": sines(7, 5.0), "validation": sines(5, 2.0)}


def by_hand(params, points):
    """The network without masks, in NumPy's float64."""
    first, last = (params["network"]["params"][f"Dense_{k}"] for k in range(2))
    hidden = np.tanh(np.asarray(points, np.float64) @ first["kernel"] + first["bias"])
    return hidden @ last["kernel"] + last["bias"]


class Streams:
    """Notes of which numbers a key was made, in place of `jax.random.fold_in`."""

    def __init__(self):
        self.made, self.fold_in = [], jax.random.fold_in

    def __call__(self, key, data):
        new = self.fold_in(key, data)
        self.made.append((new, (*self.of(key), data if isinstance(data, int) else "step")))
        return new

    def of(self, key):
        return next((numbers for made, numbers in self.made if made is key), ())


@pytest.fixture(scope="module")
def seen():
    """A pruned network's way through all functions of a run, and what they draw and build."""
    streams, sampled, drawn, given = Streams(), [], [], {}
    sample, build = Problem.sample, methods.build

    def sampling(self, key, points=None, *rest, **named):
        sampled.append((streams.of(key), dict(points)))
        return sample(self, key, points, *rest, **named)

    def building(method, weights_tx, beside, **settings):
        given.update(settings, beside=beside)
        tx = build(method, weights_tx, beside, **settings)

        def update(grads, state, params, *, key, **extra):
            drawn.append(streams.of(key))
            return tx.update(grads, state, params, key=key, **extra)

        return optax.GradientTransformationExtraArgs(tx.init, update)

    def drawn_from(of):
        found, of[:] = {str(one) for one in of}, []
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.random, "fold_in", streams)
        patch.setattr(Problem, "sample", sampling)
        patch.setattr(methods, "build", building)
        run = _step.build(PROBLEM, NETWORK, CONFIG)
        new = run.init(SEED)
        assert {streams for streams, _ in sampled} == {()}  # for shapes, by the key of no stream
        sampled.clear()
        # The rows of a layer differ, and so do the units: a mean is not one of the entries.
        cut = jax.tree.map(
            lambda t: (
                jnp.broadcast_to(jnp.linspace(0.2, 1.0, t.shape[-1]), t.shape)
                * jnp.array([0.5, 1.5]).reshape(-1, *[1] * (t.ndim - 1))
            ),
            new.params.thresholds,
        )
        start = new._replace(params=ModSyncParams(new.params.weights, cut))
        advance = jax.jit(run.advance, static_argnums=(1, 2))
        ended = advance(start, 0, STEPS)
        trained, methodical = drawn_from(sampled), drawn_from(drawn)
        evaluate = jax.jit(run.evaluate)
        after, row = evaluate(ended, REFERENCES)
        evaluated = drawn_from(sampled)
        _, second = evaluate(after, REFERENCES)
        unreferenced = jax.jit(run.evaluate)(ended, {})
    return SimpleNamespace(**locals())


@pytest.fixture(scope="module")
def polish(seen):
    """Three iterations of the polish: the states before and after, and its points."""
    sampled = []

    def sampling(self, key, points=None, *rest, **named):
        sampled.append((seen.streams.of(key), dict(points)))
        return seen.sample(self, key, points, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.random, "fold_in", seen.streams)
        patch.setattr(Problem, "sample", sampling)
        before = jax.jit(seen.run.begin, static_argnums=1)(seen.ended, 1)
        after = jax.jit(seen.run.advance, static_argnums=(1, 2))(before, 1, 3)
    return SimpleNamespace(**locals())


def test_each_use_of_random_numbers_has_a_stream_of_its_own(seen):
    """Initialisation 0, training 1, evaluation 2, method 4; and by steps, but for the first."""
    points = {"residual": 8}
    assert seen.trained == {str(((1, "step"), points))}
    assert seen.evaluated == {str(((2, "step"), points))}
    assert seen.methodical == {str((4, "step"))}
    key = jax.random.fold_in(jax.random.key(SEED), 0)
    weights = NETWORK.init(key, jnp.zeros(1))
    jax.tree.map(np.testing.assert_array_equal, seen.new.params.weights["network"], weights)


def test_the_method_is_built_for_the_residual_and_the_thresholds_rate(seen):
    assert seen.run.objectives == ("boundary", "residual") and seen.given["reference"] == 1
    tx, own = seen.given["beside"].tx, {"w": jnp.zeros((2, 1, 3))}
    weights, moves = {"w": jnp.ones((4, 3))}, {"w": jnp.zeros((4, 3))}
    ones = jax.tree.map(jnp.ones_like, own)
    given = {"weights": weights, "moves": moves, "losses": jnp.ones(2)}
    moved, _ = tx.update(ones, tx.init(own), own, **given)
    # Adam's first step is the rate; its bias correction, 1 - 0.999 in float32, is good to 1e-5.
    np.testing.assert_allclose(moved["w"], -7e-3, rtol=1e-4)


def test_errors_are_those_of_the_network_with_its_masks(seen):
    params = export(seen.ended.params)
    assert 0 < float(seen.row["keep"]) < 1, "the test needs some, not all, weights pruned"
    for name, (points, values) in REFERENCES.items():
        error, values = by_hand(params, points) - values, np.asarray(values, np.float64)
        expected = np.linalg.norm(error) / np.linalg.norm(values)
        # float32 against float64
        np.testing.assert_allclose(seen.row[f"{name}/relative_l2"], expected, rtol=1e-5)
        np.testing.assert_allclose(
            seen.row[f"{name}/mean_absolute"], np.abs(error).mean(), rtol=1e-5
        )
    whole = by_hand(seen.ended.params.weights, REFERENCES["test"][0])
    assert np.abs(whole - by_hand(params, REFERENCES["test"][0])).max() > 1e-3


def test_residuals_are_those_of_the_network_with_its_masks(seen):
    batch, found = jax.jit(seen.run.residuals, static_argnums=1)(seen.ended, 0)
    params = export(seen.ended.params)
    field = field_of(NETWORK, ("x",), params["network"])
    expected = jax.jit(lambda batch: PROBLEM.pointwise(field, {}, batch))(batch)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4), found, expected)  # float32
    ends = np.abs(by_hand(params, [[0.0]]) - 0.0)  # the condition on the left, u = 0
    np.testing.assert_allclose(np.abs(*found["left"].values()), ends[:, 0], atol=1e-6)  # float32


def test_the_best_is_chosen_by_validation_and_only_if_it_is_better(seen):
    assert seen.after.best_score == seen.row["validation/relative_l2"]
    assert seen.after.best_score != seen.row["test/relative_l2"]
    assert seen.after.best_step == STEPS
    jax.tree.map(np.testing.assert_array_equal, seen.after.best_params, seen.ended.params)
    worse = seen.ended._replace(best_score=0.5 * seen.after.best_score)
    kept, _ = seen.evaluate(worse, REFERENCES)
    assert kept.best_score == worse.best_score and kept.best_step == 0
    stopped = seen.ended._replace(healthy=jnp.array(False))
    kept, _ = seen.evaluate(stopped, REFERENCES)
    assert kept.best_step == 0 and kept.best_score == jnp.inf


def test_without_a_reference_the_score_has_no_weights(seen):
    state, row = seen.unreferenced
    assert state.best_score == row["score"]
    counts = {name: 4 * n for name, n in {**PROBLEM.points, **CONFIG.points}.items()}
    batch = PROBLEM.sample(jax.random.fold_in(jax.random.key(SEED), 5), counts, CONFIG.sampler_name)
    field = field_of(NETWORK, PROBLEM.coordinates, export(seen.ended.params)["network"])
    squares = jax.tree.map(lambda r: np.mean(np.square(r)), PROBLEM.pointwise(field, {}, batch))
    np.testing.assert_allclose(row["score"], sum(jax.tree.leaves(squares)), rtol=1e-5)  # float32
    terms = [value for name, value in row.items() if name.startswith("term/")]
    np.testing.assert_allclose(row["score"], sum(terms), rtol=1e-6)  # on the points held out
    weighted = row["loss/boundary"] + row["loss/residual"]
    np.testing.assert_allclose(row["loss"], weighted, rtol=1e-6)
    assert abs(row["loss"] - sum(terms)) > 1e-3


def test_a_row_holds_the_rate_and_the_mean_thresholds(seen):
    np.testing.assert_allclose(seen.row["learning_rate"], 1e-3 * 0.5**STEPS, rtol=1e-6)
    for layer in ("Dense_0", "Dense_1"):
        leaf = seen.ended.params.thresholds["network"]["params"][layer]["kernel"]
        for k, name in enumerate(seen.run.objectives):
            expected = np.asarray(leaf[k]).mean()
            found = seen.row[f"threshold/{name}/{layer}/kernel"]
            np.testing.assert_allclose(found, expected, rtol=1e-6)  # float32 sums


def test_cosines_are_counted_from_row_to_row(seen):
    sums, name = seen.ended.sums, "boundary~residual"
    assert sums.batches == STEPS == seen.row["batches"] and sums.sampled == 1
    mean = sums.first[0] + sums.total[0] / STEPS
    np.testing.assert_allclose(seen.row[f"cosine/{name}"], mean, rtol=1e-6)
    np.testing.assert_allclose(seen.row[f"opposed/{name}"], sums.opposed[0] / STEPS, rtol=1e-6)
    assert seen.after.sums.batches == seen.after.sums.sampled == 0
    assert not seen.after.sums.total.any() and not any(seen.after.sums.measured.values())
    assert seen.second["batches"] == 1  # nothing was trained: the row's own batch


def test_a_gradient_of_zero_is_in_conflict_with_none():
    """Here of a network of zeros, which solves the equation."""
    config = TrainConfig(method="sum", points={"residual": 8})
    problem = problems.get("poisson1d", frequency=0.0)  # solved by 0
    run = _step.build(problem, NETWORK, config)
    state = run.init(0)
    state = run.advance(state._replace(params=jax.tree.map(jnp.zeros_like, state.params)), 0, 1)
    assert state.sums.batches == 1
    assert state.sums.latest[0] == 0 == state.sums.opposed[0]


def test_a_stopped_run_stays_as_it_is(seen):
    stopped = seen.start._replace(healthy=jnp.array(False))
    after = seen.advance(stopped, 0, STEPS)
    unchanged = after._replace(losses=stopped.losses)
    jax.tree.map(np.testing.assert_array_equal, unchanged, stopped)


@pytest.mark.parametrize(
    ("losses", "update", "sound", "taken"),
    [
        ([1.0, 2.0], 3.0, True, True),
        ([1.0, np.inf], 3.0, True, False),
        ([np.nan, 2.0], 3.0, True, False),
        ([1.0, 2.0], np.nan, True, False),
        ([1.0, 2.0], 3.0, False, False),
    ],
)
def test_a_step_is_taken_when_all_is_finite(seen, losses, update, sound, taken):
    weights = {"a": jnp.ones(2), "b": jnp.ones(1)}
    state = seen.new._replace(params=weights, opt_state=jnp.array(1.0))
    updates = {"a": jnp.zeros(2), "b": jnp.full(1, update)}
    after = _state.accept(state, jnp.array(losses), updates, jnp.array(2.0), jnp.array(sound))
    assert (after.step, after.opt_state) == ((1, 2.0) if taken else (0, 1.0))
    assert after.params["b"] == (1.0 + update if taken else 1.0) and after.healthy == taken
    np.testing.assert_array_equal(after.losses, losses)  # those that broke say what did


@pytest.mark.parametrize("granularity", ["layer", "unit"])
def test_settings_of_modsync_reach_it(granularity):
    """By a step of size 1 from gradients of zero, which follows the regulariser alone."""
    settings = {"granularity": granularity, "beta": 0.7, "sparsity_weight": 3e-3}
    config = TrainConfig(
        "modsync+sum", threshold_optimizer="sgd", threshold_learning_rate=1.0,
        sparsity_pull="constant", **settings,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(0))
    weights = {"a": jax.random.normal(keys[0], (9, 3))}
    own = {"a": jax.random.uniform(keys[1], (2, 1, 3), maxval=0.1)}

    def shifts(config):
        tx = _optimizers.indexed(config).tx
        nothing, moves = jax.tree.map(jnp.zeros_like, (own, weights))
        return tx.update(nothing, tx.init(own), own, weights=weights, moves=moves)[0]["a"]

    def pull(beta, granularity):
        loss = partial(sparsity.sparsity_loss, beta=beta, granularity=granularity)
        return jax.grad(loss)(own)["a"]

    expected = -3e-3 * pull(0.7, granularity)
    np.testing.assert_allclose(shifts(config), expected, rtol=1e-6)
    for beta, other in (0.3, granularity), (0.7, "unit" if granularity == "layer" else "layer"):
        assert not np.allclose(expected, -3e-3 * pull(beta, other), rtol=1e-3)
    held = shifts(config.with_numbers({"min_keep": 1.0}))
    np.testing.assert_allclose(held, np.minimum(expected, 0.0), rtol=1e-6)
    assert (expected > 0).any()


@pytest.mark.parametrize("layers", ["all", "inner"])
def test_thresholds_are_of_the_layers_that_are_named(layers):
    kind = _optimizers.indexed(TrainConfig("modsync+sum", width=4, masked_layers=layers))
    weights = {"first": jnp.ones((2, 4)), "hidden": jnp.ones((4, 4)), "last": jnp.ones((4, 1))}
    weights = {name: {"kernel": kernel, "bias": jnp.ones(4)} for name, kernel in weights.items()}
    own = jax.tree.leaves_with_path(kind.start(weights, 2, jax.random.key(0)))
    expected = ["first", "hidden", "last"] if layers == "all" else ["hidden"]
    assert [path[0].key for path, _ in own] == expected


@pytest.mark.parametrize(("share", "starts_again"), [(0.25, True), (0.2, False)])
def test_thresholds_start_again_at_the_share_that_is_set(share, starts_again):
    constant = {"threshold_optimizer": "sgd", "sparsity_pull": "constant"}
    config = TrainConfig("modsync+sum", reset_keep=share, **constant)
    weights = {"a": jnp.array([[1.0, 1.0, 1.0, 3.0]])}  # a quarter is above the thresholds
    own = {"a": jnp.full((2, 1, 4), 2.0)}
    tx = _optimizers.indexed(config).tx
    slopes, moves = jax.tree.map(jnp.zeros_like, (own, weights))
    shifts, _ = tx.update(slopes, tx.init(own), own, weights=weights, moves=moves)
    assert (optax.apply_updates(own, shifts)["a"] == 0).all() == starts_again


def test_the_pull_on_thresholds_can_fall_with_the_losses():
    config = TrainConfig(
        "modsync+sum", threshold_optimizer="sgd", threshold_learning_rate=1.0, sparsity_weight=0.5,
        sparsity_pull="losses",
    )  # fmt: skip
    weights = {"a": jnp.full((4, 3), 100.0)}  # far above the thresholds
    own = {"a": jnp.array([[[0.1, 0.2, 0.3]], [[0.3, 0.2, 0.1]]])}
    tx = _optimizers.indexed(config).tx
    slopes, moves = jax.tree.map(jnp.zeros_like, (own, weights))
    slopes["a"] += 0.25  # of the losses themselves, which the factor leaves as they are
    state, given = tx.init(own), {"weights": weights, "moves": moves}
    rise = jax.grad(partial(sparsity.sparsity_loss, beta=0.3))(own)["a"]
    for losses in ([0.5, 1.5], [1e-6, 3e-6]):
        shifts, _ = tx.update(slopes, state, own, losses=jnp.array(losses), **given)
        np.testing.assert_allclose(shifts["a"], -0.25 - 0.5 * sum(losses) * rise, rtol=1e-6)
    with pytest.raises(ValueError, match=r"need update\(..., losses=losses\)"):
        tx.update(slopes, state, own, **given)


@pytest.mark.parametrize("schedule", ["constant", "exponential", "cosine"])
def test_thresholds_can_follow_the_schedule_of_the_weights(schedule):
    settings = {"schedule": schedule, "decay_rate": 0.5, "decay_steps": 3, "steps": 12}
    config = TrainConfig(
        "modsync+sum", threshold_optimizer="sgd", threshold_learning_rate=0.01, warmup_steps=2,
        threshold_schedule="weights", sparsity_pull="constant", **settings,
    )  # fmt: skip
    rate = _optimizers.learning_rate(config, config.phases[0], first=True)
    weights, own = {"a": jnp.ones((4, 3))}, {"a": jnp.zeros((2, 1, 3))}
    tx = _optimizers.indexed(config).tx
    slopes, moves = {"a": jnp.full((2, 1, 3), -1.0)}, {"a": jnp.zeros((4, 3))}
    rise = 1e-4  # of the regulariser at thresholds of zero, beside the slope of 1

    @jax.jit
    def step(state, _):
        shifts, state = tx.update(slopes, state, own, weights=weights, moves=moves)
        return state, shifts["a"][0, 0, 0]

    _, shifts = jax.lax.scan(step, tx.init(own), jnp.arange(12))
    expected = [10 * rate(k) * (1 + rise) for k in range(12)]  # 0.01 over 1e-3
    np.testing.assert_allclose(shifts, np.array(expected), rtol=1e-4, atol=1e-9)


def test_inputs_are_standardised_by_mean_and_deviation_of_the_box():
    problem = problems.get("burgers")  # t in [0, 1], x in [-1, 1]; uniform on both
    network = _step.network_of(problem, TrainConfig(standardize="yes"))
    np.testing.assert_allclose(network.shift, [0.5, 0.0])
    np.testing.assert_allclose(network.scale, np.array([1.0, 2.0]) / np.sqrt(12), rtol=1e-6)
    network = _step.network_of(problem, TrainConfig(standardize="no"))
    assert network.shift == () == network.scale


def test_thresholds_can_be_one_for_all_objectives():
    for shared, rows in ((False, 2), (True, 1)):
        config = TrainConfig(method="modsync+dcgd", shared_threshold=shared)
        state = jax.eval_shape(_step.build(PROBLEM, NETWORK, config).init, 0)
        assert {leaf.shape[0] for leaf in jax.tree.leaves(state.params.thresholds)} == {rows}


def test_a_polish_has_points_of_its_own_that_stay(polish):
    """Stream 3, whatever the step."""
    twice = {"residual": 16, "left": 2, "right": 2}
    assert set(map(str, polish.sampled)) == {str(((3,), twice))}


def test_a_polish_moves_what_is_kept_and_leaves_what_is_pruned(seen, polish):
    before, after = polish.before.params, polish.after.params
    assert not any(leaf.any() for leaf in jax.tree.leaves([before.thresholds, after.thresholds]))
    jax.tree.map(np.testing.assert_array_equal, before.weights, export(seen.ended.params))
    pruned = 0
    for one, other in zip(*map(jax.tree.leaves, (before.weights, after.weights)), strict=True):
        np.testing.assert_array_equal(np.asarray(other)[np.asarray(one) == 0], 0)
        pruned += np.sum(np.asarray(one) == 0)
        assert np.all(np.asarray(other)[np.asarray(one) != 0] != np.asarray(one)[one != 0])
    assert pruned >= 2, "the test needs pruned weights"
    assert polish.after.step == STEPS + 3


def test_the_losses_after_a_polish_are_those_of_its_points(seen, polish):
    key = jax.random.fold_in(jax.random.key(SEED), 3)
    batch = PROBLEM.sample(key, {"residual": 16, "left": 2, "right": 2})
    plain = PROBLEM.objectives(
        lambda p: (field_of(NETWORK, ("x",), p["network"]), {}), "grouped", CONFIG.loss_weights
    )
    for name, loss in zip(seen.run.objectives, polish.after.losses, strict=True):
        expected = jax.jit(plain[name])(polish.after.params.weights, batch)
        # two programs of float32 sums, of losses that the polish has made small
        np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-6)
