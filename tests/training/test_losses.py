"""Residuals and Jacobians of a run, against its objectives and against JAX's own Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import modsync_jax
from modsync_jax import networks, problems
from modsync_jax.training import TrainConfig, _losses, _step

POINTS = np.linspace(0, 1, 5)[:, None]


def inverse():
    """An equation with an unknown, conditions on faces, and data."""
    poisson = problems.get("poisson1d")
    return problems.Problem(
        name="inverse", domain=poisson.domain, unknowns={"c": 0.7},
        residual=lambda u, x, c: {"pde": c * u(x)[0] ** 2, "other": u(x)[0] - x[0]},
        points={"residual": 7, "left": 2}, conditions={
            "left": problems.value("x=0", 1.0), "seen": problems.data(POINTS, np.sin(POINTS))
        },
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    ("problem", "objectives", "weights"),
    [
        pytest.param(
            "heat", "grouped", {"boundary": 10.0, "residual": 0.5}, marks=pytest.mark.slow
        ),
        ("inverse", "grouped", {"boundary": 10.0, "residual": 0.5}),
        ("inverse", "all", {"left": 10.0, "residual.pde": 0.5, "residual.other": 3.0}),
    ],
)
def test_residuals_and_their_jacobian_belong_to_the_objectives(problem, objectives, weights, x64):
    problem = inverse() if problem == "inverse" else problems.get(problem)
    config = TrainConfig(objectives=objectives, loss_weights=weights, dtype="float64")
    network = networks.MLP(width=3, depth=2, param_dtype=jnp.float64)
    losses = _losses.build(problem, network, config, lambda points: points)
    key = jax.random.key(0)
    variables = network.init(key, jnp.zeros(len(problem.coordinates)))
    unknowns = {name: jnp.asarray(value) for name, value in problem.unknowns.items()}
    params, batch = {"network": variables, "unknowns": unknowns}, losses.sample(key, 1, jnp.float64)
    r, jacobian = jax.jit(losses.jacobian)(params, batch)

    def summed(params):
        return sum(objective(params, batch) for objective in losses.settled(params).values())

    total = summed(params)
    np.testing.assert_allclose(r @ r, total, rtol=1e-12)
    x, unravel = ravel_pytree(params)
    expected = jax.jit(jax.jacrev(lambda x: losses.residuals(unravel(x), batch)))(x)
    assert jacobian.shape == (len(r), len(x)) and len(r) > len(x) / 10
    np.testing.assert_allclose(jacobian, expected, rtol=1e-10, atol=1e-12)
    gradient = ravel_pytree(jax.grad(summed)(params))[0]
    np.testing.assert_allclose(2 * r @ jacobian, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "objectives"),
    [
        ("sum", "all"),
        pytest.param("sum", "grouped", marks=pytest.mark.slow),
        pytest.param("modsync+adapters+dcgd", "grouped", marks=pytest.mark.slow),
        pytest.param("modsync+adapters+dcgd", "each", marks=pytest.mark.slow),
        pytest.param("sum", "each", marks=pytest.mark.slow),
    ],
)
def test_losses_of_samples_have_the_objectives_as_means_and_their_gradients(
    method, objectives, x64
):
    """For several terms of different sizes, weights of losses and of points, and own parameters."""
    problem = problems.get("burgers")
    config = TrainConfig(
        method, objectives=objectives, causal=1.0, points={"residual": 9, "left": 3, "right": 2},
        loss_weights={"residual": 0.5}, dtype="float64", threshold_learning_rate=0.1,
    )  # fmt: skip
    network = networks.MLP(width=4, depth=2, param_dtype=jnp.float64)
    losses = _losses.build(problem, network, config, lambda points: points)
    program = _step.build(problem, network, config)
    state = program.advance(program.init(0), 0, 3)  # own parameters that are not zero
    points = losses.sample(jax.random.key(1), 1, jnp.float64)
    batch = losses.counted(program.export(state.params), points, jnp.zeros((), int))
    values, grads = modsync_jax.value_and_objective_grads(losses.trained)(state.params, batch)
    seen = losses.snapshot(state.params, batch, values, grads, False, None)
    for k, name in enumerate(seen.names):
        found = seen.samples[name](seen.weights)
        assert len(found) == sum(len(jax.tree.leaves(batch[t])[0])
                                 for t in problem.objective_terms(objectives)[name])  # fmt: skip
        np.testing.assert_allclose(found.mean(), values[k], rtol=1e-12)
        gradient = jax.grad(lambda w, n=name: seen.samples[n](w).mean())(seen.weights)
        for own, stacked in zip(*map(jax.tree.leaves, (gradient, seen.grads)), strict=True):
            np.testing.assert_allclose(own, stacked[k], rtol=1e-9, atol=1e-13)


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("sum", ""),
        pytest.param("modsync+dcgd", ",cg=50,sketch=50", marks=pytest.mark.slow),
        pytest.param("modsync+dcgd", "", marks=pytest.mark.slow),
        pytest.param("sum", ",cg=50,sketch=50", marks=pytest.mark.slow),
    ],
)
def test_gauss_newton_solves_to_many_digits_in_few_iterations(method, settings, x64):
    solution = modsync_jax.solve(
        problems.get("poisson1d", frequency=3.0), method, steps=20,
        then=f"gauss-newton(points=1{settings}):60", width=12, depth=2, points={"residual": 64},
        threshold_learning_rate=1e-2, chunk=20, eval_every=20, checkpoint_every=20, progress=False,
    )  # fmt: skip
    # 1e-5 without masks and 4e-5 with them; first-order training ends near 1e-2
    assert solution.result["errors"]["relative_l2"]["selected"] < 2e-4
    if method != "sum":
        assert 0.1 < solution.result["keep"]["final"] < 1, "the test needs some weights pruned"
        assert solution.metrics[-1]["keep"] <= solution.metrics[1]["keep"]
