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
    key = jax.random.key(7)
    step = jax.jit(lambda p, s: tx.update(None, s, p, key=key, **functions(residuals)))
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


@pytest.mark.parametrize("sketch", [0, 3, 8])
@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_products_without_a_jacobian_solve_the_same_problem(momentum, sketch, x64):
    """Of more residuals than parameters, and of fewer; a sketch may have more rows than these."""
    rng = np.random.default_rng(1)
    for count in (9, 3):
        matrix, shift = rng.normal(size=(count, 5)), rng.normal(size=count)
        residuals = lambda x, a=matrix, b=shift: a @ x - b  # noqa: E731
        start = jnp.asarray(rng.normal(size=5))
        # In exact arithmetic, conjugate gradients end after as many iterations as unknowns.
        tx = optimizers.gauss_newton(momentum=momentum, cg=10, sketch=sketch)
        (before, after, second), states = run(tx, residuals, start, 2)
        r = matrix @ np.asarray(before) - shift
        slope = matrix.T @ r
        lam = 1e-3 * np.sum((matrix @ slope) ** 2) / np.sum(slope**2)
        expected = np.linalg.solve(matrix.T @ matrix + lam * np.eye(5), -slope)
        np.testing.assert_allclose(after - before, expected, rtol=1e-6, atol=1e-8)
        assert states[1].damping == pytest.approx(lam / 3, rel=1e-6)
        lam, slope = lam / 3, matrix.T @ (matrix @ np.asarray(after) - shift)
        right = lam * momentum * expected - slope
        expected = np.linalg.solve(matrix.T @ matrix + lam * np.eye(5), right)
        np.testing.assert_allclose(second - after, expected, rtol=1e-5, atol=1e-7)


def test_a_sketch_saves_iterations_of_conjugate_gradients(x64):
    """Its rank covers the large eigenvalues, six decades above the others."""
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    matrix = basis * np.concatenate([np.geomspace(1e4, 1e2, 10), np.linspace(0.1, 0.05, 30)])
    residuals = lambda x: matrix @ x - basis.sum(1)  # noqa: E731
    values = {}
    for sketch in (0, 15):
        tx = optimizers.gauss_newton(damping=1e-12, cg=12, sketch=sketch)
        _, states = run(tx, residuals, jnp.zeros(40), 1)
        values[sketch] = states[-1].value
    assert values[15] < 1e-3 * values[0]


def test_products_take_no_memory_for_a_jacobian():
    """A Jacobian of these residuals would take 400 MB."""
    points = jnp.linspace(0, 1, 10_000)

    def residuals(x):
        return jnp.sin(jnp.outer(points, x[:10])).sum(1) + x.sum()

    tx = optimizers.gauss_newton(cg=5)
    x = jnp.ones(10_000)
    step = jax.jit(lambda p, s: tx.update(None, s, p, residual_fn=residuals))
    memory = step.lower(x, tx.init(x)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 20e6


@pytest.mark.parametrize("settings", [{}, {"cg": 20}, {"cg": 20, "sketch": 2}])
def test_convergence_is_quadratic_where_residuals_vanish(settings, x64):
    found, _ = run(optimizers.gauss_newton(**settings), exponentials, START, 40)
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
    with pytest.raises(ValueError, match="cg is -1"):
        optimizers.gauss_newton(cg=-1)
    with pytest.raises(ValueError, match="sketch preconditions conjugate gradients, but cg=0"):
        optimizers.gauss_newton(sketch=3)


def test_what_an_update_needs():
    x = jnp.ones(2)
    for settings, missing in [({}, "jacobian_fn=..."), ({"cg": 5, "sketch": 2}, "a PRNG key")]:
        tx = optimizers.gauss_newton(**settings)
        with pytest.raises(ValueError, match=missing):
            tx.update(None, tx.init(x), x, residual_fn=lambda x: x)
