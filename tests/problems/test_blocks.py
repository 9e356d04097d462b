"""Objectives in blocks of points are the objectives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import gradients, networks, problems
from modsync_jax.problems import data
from modsync_jax.training._solution import field_of
from modsync_jax.transform import mask_objectives, with_thresholds

RNG = np.random.default_rng(0)

# An inverse problem: the speed is trained too, from measurements.
INVERSE = dataclasses.replace(
    problems.get("burgers"),
    name="inverse",
    residual=lambda u, x, nu: {"pde": u(x) * nu, "other": nu**2 - u(x)},
    unknowns={"nu": 0.3},
    conditions={"measured": data(RNG.uniform(size=(21, 2)), RNG.normal(size=(21, 1)))},
    points={"residual": 40},
)
# 16 points in a block: terms of 40, 32, 21, 17, 16 and 9 points, with and without a remainder.
COUNTS = {"residual": 40, "initial": 32, "left": 16, "right": 9, "bottom": 17}
# float64: sums of 40 terms in another order. float32: the same, 1e9 times coarser, less luck.
CASES = [
    ("each", problems.get("burgers"), jnp.float64, 1e-12),
    ("grouped", problems.get("cavity_velocity"), jnp.float64, 1e-12),
    ("grouped", INVERSE, jnp.float64, 1e-12),
    ("grouped", INVERSE, jnp.float32, 1e-5),
]


def setting(problem, dtype):
    """Masked objectives in blocks of a given size, ModSync's parameters, and points."""
    network = networks.MLP(width=8, depth=2, outputs=len(problem.outputs), param_dtype=dtype)
    variables = network.init(jax.random.key(0), jnp.zeros(2, dtype))
    unknowns = {name: jnp.asarray(v, dtype) for name, v in problem.unknowns.items()}

    def fields(params):
        u = field_of(network, problem.coordinates, params["network"])
        return u, params["unknowns"]

    def objectives(grouping, block_points, weights=None):
        return mask_objectives(problem.objectives(fields, grouping, weights, block_points))

    count = 1 + len(problem.conditions)
    params = with_thresholds({"network": variables, "unknowns": unknowns}, count)
    params = params._replace(
        thresholds=jax.tree.map(lambda t: t + jnp.asarray(0.1, dtype), params.thresholds)
    )
    counts = {name: n for name, n in COUNTS.items() if name in problem.terms}
    return objectives, params, problem.sample(jax.random.key(1), counts, dtype=dtype)


def assert_close(got, want, tolerance):
    """Relative to the largest entry of each leaf."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.max(np.abs(b)))


@pytest.mark.long
@pytest.mark.parametrize(("grouping", "problem", "dtype", "tolerance"), CASES)
def test_losses_and_gradients_do_not_depend_on_blocks(x64, grouping, problem, dtype, tolerance):
    objectives, params, batch = setting(problem, dtype)

    def losses_and_grads(block_points):
        function = gradients.value_and_objective_grads(objectives(grouping, block_points))
        return jax.jit(function)(params, batch)

    plain = losses_and_grads(None)
    assert np.all(plain[0] > 0)
    assert_close(losses_and_grads(16), plain, tolerance)
    if problem.unknowns:
        assert np.all(plain[1].weights["unknowns"]["nu"][1] != 0)


@pytest.mark.long
def test_replicas_with_weights_of_their_own_may_be_mapped(x64):
    objectives, params, batch = setting(INVERSE, jnp.float64)
    factors = jnp.array([0.5, 2.0])
    replicas = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.5 * leaf]), params)

    def mapped(block_points):
        def one(params, factor):
            chosen = objectives("grouped", block_points, {"measured": factor})
            return gradients.value_and_objective_grads(chosen)(params, batch)

        return jax.jit(jax.vmap(one))(replicas, factors)

    assert_close(mapped(16), mapped(None), 1e-12)  # float64 sums of 40 terms


@pytest.mark.long
def test_masks_are_computed_outside_the_blocks():
    objectives, params, batch = setting(problems.get("burgers"), jnp.float32)
    residual = jax.grad(objectives("grouped", 16)["residual"])
    jaxpr = jax.make_jaxpr(residual)(params, batch).jaxpr
    loops = [str(eqn) for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]
    outside = "\n".join(str(eqn) for eqn in jaxpr.eqns if eqn.primitive.name != "scan")
    assert len(loops) == 1 and " abs " not in loops[0]  # of |θ| - t
    assert " abs " in outside


def test_a_block_without_points_is_refused():
    with pytest.raises(ValueError, match="at least 1 point"):
        problems.get("burgers").objectives(lambda p: p, block_points=0)
