"""Weights that put objectives on one scale before the first step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modsync_jax
from modsync_jax import networks, sampling, sweeps
from modsync_jax.calculus import partials
from modsync_jax.problems import Problem, value
from modsync_jax.problems._conditions import FaceCondition
from modsync_jax.training import ConfigError, TrainConfig, _balance, _step

TINY = {"width": 6, "depth": 1, "chunk": 2, "eval_every": 2, "checkpoint_every": 2, "steps": 4}
QUIET = {"progress": False, "report": False}


def heat(scale=1.0, slope=1.0):
    """The heat equation times a number, and a condition times another."""

    def residual(u, x):
        u_t, u_xx = partials(u, x, "t", "xx")
        return {"heat": scale * (u_t - u_xx)}

    return Problem(
        name="heat",
        domain=sampling.box(t=(0, 1), x=(0, 1)),
        residual=residual,
        conditions={
            "initial": value("t=0", lambda x: jnp.sin(jnp.pi * x[1])),
            "slope": FaceCondition(
                "x=0", lambda u, x, _: {"": slope * partials(u, x, "x")[0]}, lambda x: 0.0
            ),
        },
        points={"residual": 40, "initial": 10, "slope": 10},
    )


def found(problem, **settings):
    config = TrainConfig(**{"balance": 1.0, "width": 8, "depth": 2, **settings})
    return _balance.factors(problem, _step.network_of(problem, config), config)


@pytest.mark.long
def test_a_factor_is_the_ratio_of_traces_of_dense_kernels(monkeypatch):
    """Of one random network, with all gradients by plain reverse differentiation."""
    problem, network = heat(), networks.MLP(width=8, depth=2)
    monkeypatch.setattr(_balance, "_NETWORKS", 1)
    config = TrainConfig(balance=3.0, objectives="each")
    factors = _balance.factors(problem, network, config)

    key = jax.random.split(jax.random.key(0), 1)[0]
    params = _step.build(problem, network, config).init(jax.random.bits(key)).params["network"]
    batch = problem.sample(key, problem.points, None, jnp.float32)

    def u(params, x):
        return network.apply(params, x)[0]

    def equation(params, x):
        gradient, hessian = jax.grad(u, 1)(params, x), jax.hessian(u, 1)(params, x)
        return gradient[0] - hessian[1, 1]

    def trace(function, points):
        grads = jax.vmap(jax.grad(function), (None, 0))(params, points)
        return sum(jnp.square(g).sum() for g in jax.tree.leaves(grads)) / len(points)

    residual = trace(equation, batch["residual"])
    expected = {
        "initial": 3 * residual / trace(u, batch["initial"]),
        "slope": 3 * residual / trace(lambda p, x: jax.grad(u, 1)(p, x)[1], batch["slope"]),
    }
    assert factors.keys() == expected.keys()
    for name, factor in factors.items():  # float32 sums of 40 points
        np.testing.assert_allclose(factor, expected[name], rtol=1e-4)


@pytest.mark.long
def test_factors_follow_the_scales_of_equation_and_conditions(monkeypatch):
    monkeypatch.setattr(_balance, "_NETWORKS", 1)  # sums and means of logarithms don't commute
    plain, other = found(heat(), objectives="each"), found(heat(10.0, 0.1), objectives="each")
    assert other == pytest.approx(
        {"initial": 100 * plain["initial"], "slope": 1e4 * plain["slope"]}, rel=1e-4
    )
    together = found(heat(), balance=2.0)  # an objective's trace is the sum of those of its terms
    assert together["boundary"] == pytest.approx(2 / sum(1 / f for f in plain.values()), rel=1e-4)


@pytest.mark.long
def test_factors_are_the_same_for_all_seeds_and_methods_and_times_the_given_weights():
    settings = {"seed": 5, "method": "modsync+dcgd", "loss_weights": {"boundary": 7.0}}
    plain = found(heat())
    assert found(heat(), **settings) == plain
    config = TrainConfig(loss_weights={"boundary": 7.0})
    weighed = _balance.weighed(config, plain)
    assert weighed.loss_weights == {"boundary": 7.0 * plain["boundary"]}
    assert found(heat(), balance=0.0) == {} and _balance.weighed(config, {}) == config


def test_an_objective_without_a_scale_is_refused():
    slope = {"slope": heat(1.0, 0.0).conditions["slope"]}
    nowhere = dataclasses.replace(heat(), conditions=slope, points={"residual": 40, "slope": 10})
    with pytest.raises(ConfigError, match=r"'boundary'.*zero or not finite.*loss_weights by hand"):
        found(nowhere)


@pytest.mark.long
def test_a_balanced_run_is_that_with_its_weights_by_hand():
    balanced = modsync_jax.solve(heat(), balance=5.0, **TINY, **QUIET)
    weights = balanced.result["loss_weights"]
    assert weights == pytest.approx(found(heat(), balance=5.0, width=6, depth=1))
    by_hand = modsync_jax.solve(heat(), loss_weights=weights, **TINY, **QUIET)
    jax.tree.map(np.testing.assert_array_equal, balanced.params, by_hand.params)


@pytest.mark.slow
def test_replicas_are_balanced_by_their_own_coefficients(tmp_path):
    grid = {"coefficients.viscosity": [0.01, 1.0], "loss_weights.boundary": [1.0, 2.0]}
    settings = {"balance": 5.0, "learning_rate": 0.05, **TINY}
    rows = sweeps.sweep("burgers", ["sum"], grid, output_dir=tmp_path, progress=False, **settings)
    at = ("coefficients.viscosity", "loss_weights.boundary")
    losses = {tuple(row[name] for name in at): row["loss_final"] for row in rows}
    assert len(set(losses.values())) == 4
    for viscosity, weight in ((0.01, 2.0), (1.0, 1.0)):
        alone = modsync_jax.solve(
            "burgers",
            "sum",
            coefficients={"viscosity": viscosity},
            loss_weights={"boundary": weight},
            **settings,
            **QUIET,
        )
        expected = alone.result["loss"]["final"]
        assert losses[viscosity, weight] == pytest.approx(expected, rel=1e-4)  # float32
