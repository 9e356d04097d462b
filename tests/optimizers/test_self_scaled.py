"""Dense quasi-Newton methods against their formulas in NumPy, against SciPy, and on hard losses."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from modsync_jax import optimizers
from modsync_jax.optimizers import _self_scaled

METHODS = {
    "bfgs": optimizers.bfgs,
    "ssbfgs": optimizers.ssbfgs,
    "ssbroyden": optimizers.ssbroyden,
}


def rosenbrock(x):
    return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def least_squares(x):
    """Residuals that vanish at ones, with curvature and scales from 1 to 1e4."""
    scales = jnp.logspace(0, 2, x["a"].size)
    first = scales * (jnp.exp(x["a"]) - jnp.e)
    second = jnp.sin(x["b"] - 1.0) + (x["a"].mean() - 1.0) ** 2
    return jnp.sum(first**2) + jnp.sum(second**2)


def run(tx, loss, params, steps):
    """States and parameters after each step, the start included."""
    states, found = [tx.init(params)], [params]

    @jax.jit
    def step(params, state):
        value, grad = optax.value_and_grad_from_state(loss)(params, state=state)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(found[-1], states[-1])
        states.append(state)
        found.append(params)
    return found, states


def formula(name, inverse, s, y, n):
    """The update of H as the papers write it, dense."""
    ys, hy = y @ s, inverse @ y
    b, h = s @ np.linalg.solve(inverse, s) / ys, y @ hy / ys
    a, phi, tau = b * h - 1, 1.0, 1.0
    if name == "ssbfgs":
        tau = min(1.0, 1 / b)
    if name == "ssbroyden":
        c = np.sqrt(a / (a + 1))
        rho = min(1.0, h * (1 - c))
        theta = max((rho - 1) / a, min(1 / rho, (1 - b) / b))
        sigma = 1 + a * theta
        root = sigma ** (1 / (1 - n))
        tau = (
            min(1.0, 1 / b) * min(root, 1 / theta)
            if theta > 0
            else min(min(1.0, 1 / b) * root, sigma)
        )
        phi = (1 - theta) / sigma
    v = s / ys - hy / (y @ hy)
    inside = inverse - np.outer(hy, hy) / (y @ hy) + phi * (y @ hy) * np.outer(v, v)
    return inside / tau + np.outer(s, s) / ys


@pytest.mark.parametrize("name", METHODS)
def test_the_inverse_hessian_follows_the_formula(name, x64):
    n = 6
    found, states = run(METHODS[name](), rosenbrock, jnp.linspace(-1.0, 1.2, n), 12)
    grads = [np.asarray(jax.grad(rosenbrock)(x)) for x in found]
    checked = 0
    for k in range(12):
        s, y = np.asarray(found[k + 1] - found[k]), grads[k + 1] - grads[k]
        before = np.asarray(states[k].inverse_hessian)
        if not states[k].count:
            before = np.eye(n) * (y @ s) / (y @ y)
        expected = formula(name, before, s, y, n)
        scale = np.abs(expected).max()
        # s comes from two parameters of size 1: it has lost its digits below 1e-16 of them
        tolerance = 1e-11 * scale / min(np.linalg.norm(s), 1.0)
        np.testing.assert_allclose(states[k + 1].inverse_hessian, expected, atol=tolerance)
        np.testing.assert_allclose(states[k + 1].inverse_hessian @ y, s, atol=tolerance)
        checked += 1
    assert checked == 12


def test_bfgs_makes_the_update_of_scipy(x64):
    found, states = run(optimizers.bfgs(), rosenbrock, jnp.linspace(-1.0, 1.2, 5), 8)
    grads = [np.asarray(jax.grad(rosenbrock)(x)) for x in found]
    peer = scipy.optimize.BFGS(init_scale="auto", exception_strategy="damp_update")
    peer.initialize(5, "inv_hess")
    for k in range(8):
        peer.update(np.asarray(found[k + 1] - found[k]), grads[k + 1] - grads[k])
        np.testing.assert_allclose(states[k + 1].inverse_hessian, peer.get_matrix(), rtol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_every_step_meets_the_wolfe_conditions(name, x64):
    found, _ = run(METHODS[name](), rosenbrock, jnp.linspace(-1.0, 1.2, 6), 30)
    for before, after in itertools.pairwise(found):
        s, slope = after - before, jax.grad(rosenbrock)(before) @ (after - before)
        assert rosenbrock(after) <= rosenbrock(before) + 1e-4 * slope
        assert jax.grad(rosenbrock)(after) @ s >= 0.9 * slope


@pytest.mark.parametrize("name", METHODS)
def test_a_line_search_begins_with_the_step_that_the_one_before_found(name, x64):
    found, states = run(METHODS[name](), rosenbrock, jnp.linspace(-1.0, 1.2, 6), 30)
    for k in range(1, 30):
        direction = -states[k].inverse_hessian @ jax.grad(rosenbrock)(found[k])
        moved = found[k + 1] - found[k]
        step = (moved @ direction) / (direction @ direction)
        next_trial = step
        if states[k + 1].evaluations == 1:
            np.testing.assert_allclose(step, states[k].trial, rtol=1e-9)  # rounding of the sums
            next_trial = 1.5 * step
        np.testing.assert_allclose(states[k + 1].trial, np.clip(next_trial, 0.05, 1.0), rtol=1e-9)
    assert {int(state.evaluations) for state in states[2:]} >= {1, 2}


@pytest.mark.parametrize("name", METHODS)
def test_convergence_is_superlinear_where_the_solution_is_known(name, x64):
    start = {"a": jnp.linspace(0.2, 1.6, 5), "b": jnp.array([0.3, 1.9, 1.2])}
    found, _ = run(METHODS[name](), least_squares, start, 120)
    ones = jax.tree.map(jnp.ones_like, start)
    apart = [jax.tree.map(jnp.subtract, params, ones) for params in found]
    errors = np.array([optax.tree_utils.tree_norm(difference) for difference in apart])
    reached = np.flatnonzero(errors < 1e-12)
    assert reached.size
    ratios = errors[1 : reached[0] + 1] / errors[: reached[0]]
    # the last steps gain more than linear convergence at a rate of 1/3 would
    assert np.median(ratios[-4:]) < 0.34 and ratios[-4:].min() < 0.1


def counts_of_scipy(start):
    """Iterations and evaluations of SciPy's BFGS until the slope is below 1e-8; None if never.

    It often ends before, in a line search that roundings defeat, or in another minimum.
    """
    slope, evaluated, log = jax.jit(jax.grad(rosenbrock)), [], []

    def loss(x):
        evaluated.append(x)
        return float(rosenbrock(x))

    def note(x):
        log.append((np.abs(slope(x)).max(), len(evaluated), float(rosenbrock(x))))

    scipy.optimize.minimize(
        loss, start, jac=lambda x: np.asarray(slope(x)), method="BFGS", callback=note, tol=1e-9
    )
    reached = [k for k, (size, _, value) in enumerate(log) if size < 1e-8 and value < 1]
    return (reached[0] + 1, log[reached[0]][1]) if reached else None


@pytest.mark.long
def test_it_needs_about_as_many_iterations_as_scipy(x64):
    """In the sum over starts from which both find the same minimum: a single path is chance."""
    starts = np.random.default_rng(0).uniform(-1.0, 1.2, (5, 10))
    peers = [(start, counts) for start in starts if (counts := counts_of_scipy(start))]
    assert len(peers) >= 3
    theirs = np.sum([counts for _, counts in peers], axis=0)
    # Measured: 1.2, 1.0 and 1.2 times its iterations, with 1.1, 1.0 and 1.2 times its evaluations.
    bounds = {"bfgs": (1.4, 1.2), "ssbfgs": (1.4, 1.2), "ssbroyden": (1.4, 1.35)}
    for name, method in METHODS.items():
        ours = np.zeros(2)
        for start, (iterations, _) in peers:
            found, states = run(method(), rosenbrock, jnp.asarray(start), 2 * iterations)
            slopes = np.array([np.abs(jax.grad(rosenbrock)(x)).max() for x in found])
            first = np.flatnonzero(slopes < 1e-8)[0]
            ours += first, sum(int(state.evaluations) for state in states[: first + 1])
        assert np.all(ours < np.array(bounds[name]) * theirs), (name, ours / theirs)


def test_a_loss_that_is_not_finite_beyond_a_point_is_survived(x64):
    def loss(x):
        return jnp.sum(x - jnp.log(x))  # its minimum is at 1, and it is NaN below 0

    found, _ = run(optimizers.ssbroyden(), loss, jnp.array([1e-3, 0.5, 30.0]), 40)
    assert all(np.isfinite(x).all() for x in found)
    np.testing.assert_allclose(found[-1], 1.0, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_breaks_at_the_floor_of_rounding(dtype, x64):
    start = jnp.linspace(0.5, 1.5, 4).astype(dtype)
    found, states = run(optimizers.ssbroyden(), rosenbrock, start, 120)
    values = np.array([rosenbrock(x) for x in found])
    eps = np.finfo(dtype).eps
    assert np.isfinite(values).all() and values[-1] <= 100 * eps**2 * 400
    assert found[-1].dtype == states[-1].inverse_hessian.dtype == dtype
    # a step is taken uphill by the rounding of the loss at most
    assert (np.diff(values) <= 8 * eps * values[:-1]).all()


def test_a_new_loss_keeps_the_curvature(x64):
    tx, start = optimizers.ssbroyden(), jnp.linspace(-1.0, 1.2, 6)
    found, states = run(tx, rosenbrock, start, 15)
    state = optax.tree_utils.tree_set(states[-1], value=jnp.inf)

    def other(x):
        return rosenbrock(x) + 0.01 * jnp.sum(x**2)

    value, grad = optax.value_and_grad_from_state(other)(found[-1], state=state)
    np.testing.assert_allclose(grad, jax.grad(other)(found[-1]), rtol=1e-12)
    updates, after = tx.update(grad, state, found[-1], value=value, grad=grad, value_fn=other)
    direction = -state.inverse_hessian @ grad
    cosine = updates @ direction / jnp.linalg.norm(updates) / jnp.linalg.norm(direction)
    assert cosine == pytest.approx(1.0, abs=1e-12) and after.count == 16
    np.testing.assert_allclose(after.value, other(found[-1] + updates), rtol=1e-12)


@pytest.mark.parametrize("steps", [0, 15])
def test_a_value_that_is_not_known_is_computed_in_the_update(steps, x64):
    found, states = run(optimizers.ssbroyden(), rosenbrock, jnp.linspace(-1.0, 1.2, 6), steps)
    value, grad = jax.value_and_grad(rosenbrock)(found[-1])
    update = partial(optimizers.ssbroyden().update, grad, states[-1], found[-1])
    known = update(value=value, grad=grad, value_fn=rosenbrock)
    for stale in (jnp.ones(6), jnp.zeros(6), jnp.full(6, jnp.nan)):
        computed = update(value=jnp.inf, grad=stale, value_fn=rosenbrock)
        # the same numbers, up to the order in which compiled programs add them
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), computed, known)
    nowhere = update(value=jnp.inf, grad=grad, value_fn=lambda x: jnp.nan * rosenbrock(x))
    assert jnp.isnan(nowhere[1].value)


def test_the_scaling_of_ssbroyden_follows_its_formula(x64):
    """Over all signs and sizes of θ; s and y with these b and h exist where b h is above 1."""
    positive = 0
    for b, h in itertools.product(np.logspace(-3, 3, 13), np.logspace(-3, 3, 13)):
        if b * h <= 1 + 1e-6:
            continue
        a, n = b * h - 1, 50
        rho = min(1.0, h * (1 - np.sqrt(a / (a + 1))))
        theta = max((rho - 1) / a, min(1 / rho, (1 - b) / b))
        root, scale = (1 + a * theta) ** (1 / (1 - n)), min(1.0, 1 / b)
        tau = scale * min(root, 1 / theta) if theta > 0 else min(scale * root, 1 + a * theta)
        found = _self_scaled._broyden(jnp.asarray(b), jnp.asarray(h), n)
        # 1 - √(a / (a + 1)) loses six digits here where a is 1e6
        np.testing.assert_allclose(found, [(1 - theta) / (1 + a * theta), tau], rtol=1e-8)
        positive += theta > 0
    assert 10 < positive < 80, "the test needs both signs of θ"


def test_a_gradient_that_is_not_finite_is_not_stepped_on(x64):
    def loss(x):
        # below 0 its value is finite, but its gradient is not
        return jnp.sum((x + 0.05) ** 2 + jnp.where(x < 0, 0.0, jnp.sqrt(x)) * 1e-9)

    found, states = run(optimizers.ssbroyden(), loss, jnp.array([0.5, 0.4]), 20)
    assert all(np.isfinite(x).all() for x in found)
    assert all(np.isfinite(leaf).all() for state in states[1:] for leaf in jax.tree.leaves(state))


def test_after_a_search_without_a_step_the_next_starts_from_the_identity(x64):
    tx, x = optimizers.ssbroyden(), jnp.linspace(-1.0, 1.2, 6)
    found, states = run(tx, rosenbrock, x, 5)
    value, grad = jax.value_and_grad(rosenbrock)(found[-1])
    wrong = -states[-1].inverse_hessian @ grad  # uphill, and said to be downhill
    updates, after = tx.update(
        wrong, states[-1], found[-1], value=value, grad=wrong, value_fn=rosenbrock
    )
    assert not updates.any() and after.count == 0 < states[-1].count


def test_an_inverse_hessian_that_is_not_positive_starts_again(x64):
    tx, x = optimizers.ssbroyden(), jnp.linspace(-1.0, 1.2, 6)
    value, grad = jax.value_and_grad(rosenbrock)(x)
    state = tx.init(x)._replace(count=jnp.int32(9), inverse_hessian=-jnp.eye(6))
    fresh = tx.init(x)
    call = partial(tx.update, grad, params=x, value=value, grad=grad, value_fn=rosenbrock)
    for got, wanted in zip(jax.tree.leaves(call(state)), jax.tree.leaves(call(fresh)), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_many_can_run_at_once(x64):
    starts = jnp.stack([jnp.linspace(-1.0, 1.2, 4), jnp.linspace(0.0, 2.0, 4)])
    tx = optimizers.ssbroyden()

    def end(x):
        def step(carry, _):
            x, state = carry
            value, grad = optax.value_and_grad_from_state(rosenbrock)(x, state=state)
            updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=rosenbrock)
            return (x + updates, state), None

        return jax.lax.scan(step, (x, tx.init(x)), length=10)[0][0]

    together = jax.jit(jax.vmap(end))(starts)
    for start, found in zip(starts, together, strict=True):
        np.testing.assert_allclose(found, jax.jit(end)(start), rtol=1e-6)


def test_a_line_search_needs_an_evaluation():
    with pytest.raises(ValueError, match="max_evaluations is 0; it must be between 1 and inf"):
        optimizers.ssbroyden(max_evaluations=0)
