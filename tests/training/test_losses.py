"""Residuals and Jacobians of a run, against its objectives and against JAX's own Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import modsync_jax
from modsync_jax import networks, problems
from modsync_jax.training import TrainConfig, _losses

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
@pytest.mark.parametrize("problem", ["heat", "inverse"])
def test_residuals_and_their_jacobian_belong_to_the_objectives(problem, x64):
    problem = inverse() if problem == "inverse" else problems.get(problem)
    config = TrainConfig(loss_weights={"boundary": 10.0, "residual": 0.5}, dtype="float64")
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
@pytest.mark.parametrize("settings", ["", ",cg=50,sketch=50"])
@pytest.mark.parametrize("method", ["sum", "modsync+dcgd"])
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
