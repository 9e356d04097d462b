"""Gauss-Newton against dense float64 computations, and its convergence."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from modsync_jax import optimizers


def exponentials(x):
    """Residuals of a fit of two decaying exponentials; zero at the truth."""
    t = jnp.linspace(0, 3, 12)
    truth = jnp.exp(-t) + 0.5 * jnp.exp(-3 * t)
    return (
        x["size"][0] * jnp.exp(-x["rate"][0] * t)
        + x["size"][1] * jnp.exp(-x["rate"][1] * t)
        - truth
    )


START = {"rate": np.array([0.7, 2.2]), "size": np.array([1.3, 0.3])}
TRUTH = np.array([1.0, 3.0, 1.0, 0.5])


def flat(params):
    return jax.flatten_util.ravel_pytree(params)[0]


def functions(residuals):
    def jacobian(params):
        columns = jax.jacfwd(residuals)(params)
        rows = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(columns)]
        return residuals(params), jnp.concatenate(rows, axis=1)

    return {"residual_fn": residuals, "jacobian_fn": jacobian}


def run(tx, residuals, params, steps):
    found, states = [params], [tx.init(params)]
    step = jax.jit(lambda p, s: tx.update(None, s, p, **functions(residuals)))
    for _ in range(steps):
        updates, state = step(found[-1], states[-1])
        found.append(optax.apply_updates(found[-1], updates))
        states.append(state)
    return found, states


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_a_step_solves_the_damped_least_squares_problem(momentum, x64):
    """Of more residuals than parameters, and of fewer."""
    rng = np.random.default_rng(0)
    for count in (9, 3):
        matrix, shift = rng.normal(size=(count, 5)), rng.normal(size=count)
        residuals = lambda x, a=matrix, b=shift: a @ x - b  # noqa: E731
        tx = optimizers.gauss_newton(momentum=momentum)
        found, states = run(tx, residuals, jnp.asarray(rng.normal(size=5)), 3)
        lam = 1e-3 * (matrix**2).sum(0).max()
        last = np.zeros(5)
        for before, after, state in zip(found, found[1:], states[1:], strict=False):
            r = matrix @ np.asarray(before) - shift
            stacked = np.vstack([matrix, np.sqrt(lam) * np.eye(5)])
            right = np.concatenate([-r, np.sqrt(lam) * momentum * last])
            expected = np.linalg.lstsq(stacked, right, rcond=None)[0]
            np.testing.assert_allclose(after - before, expected, rtol=1e-8, atol=1e-12)
            new = matrix @ np.asarray(after) - shift
            assert state.value == pytest.approx(new @ new, rel=1e-10)
            # the model is exact: the gain is 1, and the damping falls to a third
            assert state.damping == pytest.approx(lam / 3, rel=1e-9) and state.growth == 2
            lam, last = float(state.damping), expected


def test_convergence_is_quadratic_where_residuals_vanish(x64):
    found, _ = run(optimizers.gauss_newton(), exponentials, START, 40)
    errors = np.array([np.linalg.norm(flat(params) - TRUTH) for params in found])
    assert errors[-1] < 1e-9  # the fit's condition number takes seven digits from its residuals
    fast = np.flatnonzero((errors < 1e-2) & (errors > 1e-9))
    ratios = errors[fast[1:]] / errors[fast[1:] - 1]
    assert ratios.min() < 0.05  # superlinear: the damping falls with every step


def test_it_ends_where_scipy_ends_on_residuals_that_do_not_vanish(x64):
    rng = np.random.default_rng(3)
    noise = 0.05 * rng.normal(size=12)
    residuals = lambda x: exponentials(x) + noise  # noqa: E731
    _, states = run(optimizers.gauss_newton(), residuals, START, 60)
    _, unravel = jax.flatten_util.ravel_pytree(START)
    peer = scipy.optimize.least_squares(
        lambda x: np.asarray(residuals(unravel(jnp.asarray(x)))), flat(START), method="lm",
        xtol=1e-12, ftol=1e-12,
    )  # fmt: skip
    assert states[-1].value == pytest.approx(2 * peer.cost, rel=1e-6)


def test_a_loss_never_rises_and_what_is_not_finite_is_not_taken(x64):
    def residuals(x):
        return jnp.log(x) * jnp.array([1.0, 3.0])  # NaN below 0, where full steps lead

    found, states = run(optimizers.gauss_newton(damping=0.0), residuals, jnp.array([4.0, 9.0]), 30)
    values = [float(jnp.sum(residuals(x) ** 2)) for x in found]
    assert np.isfinite(values).all() and (np.diff(values) <= 0).all()
    np.testing.assert_allclose(found[-1], 1.0, atol=1e-8)
    assert max(int(state.evaluations) for state in states) > 1, "the test needs steps that fail"


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="damping is -1; it must be between 0 and inf"):
        optimizers.gauss_newton(damping=-1)
    with pytest.raises(ValueError, match=r"momentum is 1\.5"):
        optimizers.gauss_newton(momentum=1.5)
    with pytest.raises(ValueError, match="max_evaluations is 0"):
        optimizers.gauss_newton(max_evaluations=0)
