"""Points that know the field: where they are drawn, which stay, and how much they count."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modsync_jax
from modsync_jax import problems
from modsync_jax.problems import Weighted
from modsync_jax.training import ConfigError, TrainConfig, _losses, _points, _state, _step

TINY = {"width": 6, "depth": 1, "chunk": 2, "eval_every": 2, "checkpoint_every": 2}
COUNTS = {"residual": 32, "initial": 4, "left": 4, "right": 4}
QUIET = {"progress": False, "report": False}


def of_candidates(candidates, residuals, key, count, power, block_points):
    sizes = _points.sizes(residuals, candidates, block_points)
    return _points.adapted(key, sizes, candidates, count, power)


def test_adapted_points_follow_the_density_of_the_residual():
    """A χ² test: candidates in ten cells, whose residuals are 0, 1, ..., 9."""
    cells = 10
    candidates = (jnp.arange(20_000) % cells + 0.5)[:, None]

    def residuals(points):
        size = jnp.floor(points[:, 0])
        return {"a": 0.6 * size, "b": -0.8 * size}  # their norm is the size

    choose = partial(of_candidates, candidates, residuals, block_points=512)
    for power in (1.0, 2.0):
        chosen = choose(jax.random.key(3), count=1_000, power=power)
        counts = np.bincount(np.floor(np.asarray(chosen[:, 0])).astype(int), minlength=cells)
        raised = np.arange(cells) ** power
        density = raised / raised.mean() + 1
        expected = 1_000 * density / density.sum()
        # 9 degrees of freedom: 27.9 is passed once in a thousand keys, and this key is fixed
        assert np.sum((counts - expected) ** 2 / expected) < 27.9
        assert len(np.unique(chosen[:, 0])) == cells


def test_adapted_points_are_different_candidates_and_survive_residuals_that_are_not_numbers():
    candidates = jnp.linspace(0, 1, 64)[:, None]

    def residuals(points):
        return {"a": jnp.where(points[:, 0] < 0.5, jnp.nan, 1.0)}

    sizes = _points.sizes(residuals, candidates, 16)
    np.testing.assert_array_equal(sizes, candidates[:, 0] >= 0.5)  # 0 and 1
    choose = partial(of_candidates, candidates, key=jax.random.key(0), block_points=16)
    chosen = choose(residuals, count=64, power=1.0)
    np.testing.assert_array_equal(np.sort(chosen[:, 0]), candidates[:, 0])
    fewer = choose(residuals, count=32, power=1.0)
    assert 16 < np.sum(np.asarray(fewer) > 0.5) < 32  # three times as likely, but not certain
    zero = choose(lambda p: {"a": 0 * p[:, 0]}, count=9, power=1.0)
    assert len(np.unique(zero)) == 9 and np.max(zero) > candidates[9, 0]
    huge = choose(lambda p: {"a": jnp.where(p[:, 0] < 0.5, 1e30, 1.0)}, count=32, power=2.0)
    assert len(np.unique(huge)) == 32  # 1e60 is no float32, and counts as 0
    assert 16 < np.sum(np.asarray(huge) > 0.5) < 32


def test_causal_weights_are_those_of_a_loop_over_slices():
    generator = np.random.default_rng(0)
    times, sizes = generator.uniform(2.0, 5.0, 300), generator.uniform(0.0, 1.0, 300)
    times[0], times[1] = 2.0, 5.0
    times = np.where((times > 3.0) & (times < 3.5), 4.0, times)  # some slices are empty
    edges = np.linspace(2.0, 5.0, _points.SLICES + 1)
    expected, before = np.empty(300), 0.0
    for low, high in itertools.pairwise(edges):
        here = (times >= low) & ((times < high) | (high == 5.0))
        expected[here] = np.exp(-0.7 * before)
        before += np.mean(sizes[here] ** 2) if here.any() else 0.0
    got = _points.causal(jnp.asarray(times), jnp.asarray(sizes), 0.7)
    np.testing.assert_allclose(got, expected, rtol=1e-5)  # float32 sums
    assert np.all(_points.causal(jnp.ones(5), jnp.ones(5), 1.0) == 1.0)  # one moment


@pytest.mark.parametrize("draws", [0, 7, 100_000])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_attention_is_the_square_of_the_exponential_tilt(draws, scale, x64):
    """Against the paper's formula in NumPy, where that does not overflow: q = exp(r / ε)."""
    sizes = np.random.default_rng(0).uniform(0.0, 1.0, 200)
    epsilon = 0.8 * sizes.max() / np.log(draws + 2.0)
    tilt = np.exp(sizes / epsilon)
    expected = (tilt / tilt.max()) ** 2
    got = np.asarray(_points.attention(jnp.asarray(scale * sizes), jnp.asarray(draws), 0.8))
    np.testing.assert_allclose(got, expected / expected.mean(), rtol=1e-10)
    assert got.mean() == pytest.approx(1.0, rel=1e-12)
    assert np.all(np.diff(got[np.argsort(sizes)]) > 0)
    sharp = _points.attention(jnp.asarray(sizes), jnp.asarray(draws), 1e-3)
    assert np.all(np.isfinite(sharp)) and np.max(sharp) > 100  # 1,386 is no exponent of a float
    exact = _points.attention(jnp.zeros(4), jnp.asarray(draws), 0.8)
    np.testing.assert_allclose(exact, 1.0, rtol=1e-14)  # a quotient of equal numbers


@pytest.mark.long
def test_weights_of_points_multiply_their_squares_in_every_form_of_a_loss(x64):
    problem = problems.get("burgers")
    config = TrainConfig(dtype="float64", width=6, depth=2, points=COUNTS, block_points=8)
    network = _step.network_of(problem, config)
    losses = _losses.build(problem, network, config, lambda points: points)
    params = _state.weights_of(_step.build(problem, network, config).init(0).params)
    batch = losses.sample(jax.random.key(0), 1, jnp.float64)
    weights = jax.random.uniform(jax.random.key(1), (32,), jnp.float64)
    weighted = batch | {"residual": Weighted(batch["residual"], weights)}
    plain = problem.term("residual")(*losses.fields(params), batch["residual"])
    expected = np.mean(np.asarray(weights) * np.square(sum(plain.values())))
    assert losses.terms["residual"](params, weighted) == pytest.approx(float(expected), rel=1e-12)
    total = expected + losses.trained["boundary"](params, batch)
    residuals, rows = losses.jacobian(params, weighted)
    assert residuals @ residuals == pytest.approx(float(total), rel=1e-12)
    grads = jax.grad(
        lambda p: losses.terms["residual"](p, weighted) + losses.trained["boundary"](p, weighted)
    )
    flat = jax.flatten_util.ravel_pytree(grads(params))[0]
    np.testing.assert_allclose(2 * rows.T @ residuals, flat, rtol=1e-9, atol=1e-12)
    ones = batch | {"residual": Weighted(batch["residual"], jnp.ones(32))}
    assert losses.terms["residual"](params, ones) == losses.terms["residual"](params, batch)


@pytest.mark.long
def test_r3_keeps_the_points_whose_residual_is_above_the_mean(x64):
    problem = problems.get("burgers")
    then = "ssbroyden(points=2,r3=1,redraw=2):6"
    config = TrainConfig(steps=0, then=then, points=COUNTS, **TINY)
    network = _step.network_of(problem, config)
    program = _step.compiled(_step.build(problem, network, config))
    losses = _losses.build(problem, network, config, lambda points: points)
    state = program.advance(program.init(0), 0, 2)
    for _ in range(2):
        old = np.asarray(state.points["residual"])
        assert len(np.unique(old, axis=0)) == 64
        assert np.all(old.any(1))  # none of the zeros at first
        residual = problem.term("residual")(*losses.fields(_state.weights_of(state.params)), old)
        sizes = np.abs(np.asarray(sum(residual.values())))
        state = program.advance(state, 0, 2)
        new = np.asarray(state.points["residual"])
        stayed = np.all(new == old, axis=1)
        np.testing.assert_array_equal(stayed, sizes > sizes.mean())
        assert 0 < stayed.sum() < 64


KINDS_OF_WEIGHTS = {"causal": 100.0, "attention": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS_OF_WEIGHTS)
def test_weighted_runs_resume_with_the_same_bits_and_score_without_weights(kind, tmp_path, x64):
    settings = {"steps": 4, "then": "ssbroyden(redraw=2):4", **TINY, **QUIET}
    settings |= {"points": COUNTS, "dtype": "float64", "selection": "loss"}
    plain = modsync_jax.solve("burgers", "sum", **settings)
    settings[kind] = KINDS_OF_WEIGHTS[kind]
    whole = modsync_jax.solve("burgers", "sum", **settings)
    assert whole.metrics[0]["score"] == plain.metrics[0]["score"]
    assert whole.metrics[-1]["score"] != plain.metrics[-1]["score"]
    for more in ({"time_limit": 1e-3}, {"resume": True}):
        again = modsync_jax.solve("burgers", "sum", output_dir=tmp_path, **settings, **more)
    jax.tree.map(np.testing.assert_array_equal, whole.params, again.params)
    source = {"causal": "2203.07404", "attention": "2509.14198"}[kind]
    assert source in (tmp_path / "references.bib").read_text()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS_OF_WEIGHTS)
@pytest.mark.parametrize("first", [True, False])
def test_weights_reach_the_losses_of_each_kind_of_phase(first, kind, x64):
    """In a second phase after two draws of its own, whose number counts for `attention`."""
    problem = problems.get("burgers")
    phases = {"steps": 3, "then": "adam:4" if first else "ssbroyden(rad=0,redraw=1):4"}
    settings = {kind: KINDS_OF_WEIGHTS[kind]}
    config = TrainConfig("sum", points=COUNTS, dtype="float64", **settings, **phases, **TINY)
    network = _step.network_of(problem, config)
    program = _step.build(problem, network, config)
    start = program.begin(program.init(0), 1)._replace(step=jnp.asarray(5, jnp.int32))
    count = 1 if first else 0  # a step measures where it starts; no iteration, what was drawn
    after = jax.jit(lambda state: program.advance(state, 1, count))(start)
    points = program.residuals(start if first else after, 1)[0]["residual"]
    losses = _losses.build(problem, network, config, lambda points: points)
    residuals = problem.term("residual")(*losses.fields(_state.weights_of(start.params)), points)
    sizes = np.abs(np.asarray(sum(residuals.values())))
    if kind == "causal":
        weights = np.asarray(_points.causal(points[:, 0], jnp.asarray(sizes), 100.0))
    else:
        weights = 4.0 ** (2 * sizes / sizes.max())  # log(2 + 2) for the draws
        weights /= weights.mean()
    expected = np.mean(weights * sizes**2)
    assert after.losses[1] == pytest.approx(float(expected), rel=1e-9)
    assert abs(expected / np.mean(sizes**2) - 1) > 0.1


def test_causal_weights_need_a_time():
    with pytest.raises(
        ConfigError, match=r"causal=1 needs a coordinate named t; poisson2d has x, y"
    ):
        modsync_jax.solve("poisson2d", causal=1.0, steps=2, **TINY, **QUIET)


def test_r3_needs_draws_and_a_share():
    refused = {"r3=-1": "r3 of ssbroyden is -1.*0 or more", "r3=1,redraw=0": "draws only once"}
    for then, message in refused.items():
        with pytest.raises(ConfigError, match=message):
            TrainConfig(then=f"ssbroyden({then}):4")
    stays = _points.retained(jnp.array([0.0, 1.0, 2.0, 5.0]), 2.0)
    np.testing.assert_array_equal(stays, [False, False, False, True])  # the mean is 2
