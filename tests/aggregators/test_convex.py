"""What is said of the convex methods beyond the battery: gaps, identities, options, limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import aggregators
from modsync_jax.aggregators import _faces

# Gaps are relative to the optimum of gradients of norms up to 1; they are differences of values
# that round to a few eps each, more where little is left of them (near-stationary rows below).
GAPS = {np.float64: 1e-8, np.float32: 1e-3}


def problems(count, dtype):
    """Gradients `[40, K, 12]` of norms up to 1, independent to nearly stationary; Gramians."""
    g = np.random.default_rng(count).normal(size=(40, count, 12))
    g -= np.linspace(0.0, 0.95, 40)[:, None, None] * g.mean(1, keepdims=True)  # 0.95: hull near 0
    g *= np.linspace(0.3, 1.0, count)[:, None] / np.linalg.norm(g, axis=2, keepdims=True)
    g = g.astype(dtype)
    exact = g.astype(np.float64)
    return exact, exact @ exact.transpose(0, 2, 1), jnp.asarray(g @ g.transpose(0, 2, 1))


def solve(weights, matrices):
    return np.asarray(jax.jit(jax.vmap(weights))(matrices), np.float64)


each = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every_count = pytest.mark.parametrize("count", [2, 5, 9])


@each
def test_faces_are_all_subsets_with_their_inverses(x64, dtype):
    q = problems(5, dtype)[2][3]
    q = q / jnp.sqrt(jnp.outer(jnp.diagonal(q), jnp.diagonal(q)))
    members, inverse, regular = map(np.asarray, _faces.faces(q))
    assert len({tuple(row) for row in members}) == 32
    assert regular.all()
    for inside, found in zip(members, inverse, strict=True):
        expected = np.zeros((5, 5))
        exact = np.asarray(q, np.float64)[np.ix_(inside, inside)]
        expected[np.ix_(inside, inside)] = np.linalg.inv(exact)
        # Rounding to eps, times the condition, which is below 50.
        np.testing.assert_allclose(found, expected, atol=500 * np.finfo(dtype).eps)


@each
def test_faces_of_gradients_dependent_up_to_the_cut_off_are_not_regular(x64, dtype):
    zero = 8 * 3 * float(np.finfo(dtype).eps)
    for share, regular in ((0.0, False), (0.3, False), (4.0, True)):
        c = np.eye(3)
        c[0, 1] = c[1, 0] = -1 + share * zero / 2  # leaves share * zero of u_1 beside u_0
        found = _faces.faces(jnp.asarray(c, dtype))
        both = np.asarray(found.members)[:, :2].all(1)
        np.testing.assert_array_equal(found.regular, ~both | regular)


def test_a_weight_that_rounding_made_negative_is_zero():
    q = jnp.eye(1)
    x, failure = _faces.optimal(_faces.faces(q), q, jnp.zeros(1), jnp.array([[-1.0], [-1e-9]]))
    np.testing.assert_array_equal(x, [0.0])
    assert failure < 1e-8


def test_weights_of_mgda_are_never_negative_where_a_face_ends(x64):
    """g_0 is the shortest of all combinations of (1, 0) and (1, h), and only just."""
    rng = np.random.default_rng(0)
    rotations = np.linalg.qr(rng.normal(size=(300, 2, 2)))[0]
    g = np.stack([np.ones((300, 2)), np.c_[np.zeros(300), rng.uniform(0.1, 2, 300)]], 2) @ rotations
    w = solve(aggregators.mgda_weights, jnp.asarray(g @ g.transpose(0, 2, 1)))
    assert (w >= 0).all()
    np.testing.assert_allclose(w[:, 0], 1.0, rtol=1e-13)  # eps over h^2 = 0.01


@pytest.mark.long
@each
@every_count
def test_duality_gap_of_mgda(x64, count, dtype):
    """For w in the simplex, min_k <g_k, g> is a lower bound of the squared length."""
    _, exact, rounded = problems(count, dtype)
    w = solve(aggregators.mgda_weights, rounded)
    eps = np.finfo(dtype).eps
    assert (w >= 0).all()
    np.testing.assert_allclose(w.sum(1), 1.0, rtol=8 * count * eps)
    value = np.einsum("bi,bij,bj->b", w, exact, w)
    gap = value - np.einsum("bij,bj->bi", exact, w).min(1)
    assert (gap <= GAPS[dtype] * value + 8 * count * eps).all()
    assert value.max() > 0.01  # not all near the origin


@each
@every_count
def test_duality_gap_of_dual_proj(x64, count, dtype):
    """For v >= 1/K and G v >= 0, 2/K 1ᵀ G v - vᵀ G v is a lower bound of vᵀ G v."""
    _, exact, rounded = problems(count, dtype)
    v = solve(aggregators.dual_proj_weights, rounded)
    eps = np.finfo(dtype).eps
    assert (v >= 1 / count - 4 * eps).all()
    inner = np.einsum("bij,bj->bi", exact, v)
    assert (inner >= -8 * count * eps * v.max(1, keepdims=True)).all()
    value = (v * inner).sum(1)
    gap = 2 * value - 2 / count * inner.sum(1)
    assert (gap <= GAPS[dtype] * value + 8 * count * eps * v.max(1) ** 2).all()
    assert (v > 1 / count + 0.01).any()  # the constraints were felt


@pytest.mark.long
@each
@every_count
@pytest.mark.parametrize("c", [0.1, 0.5, 2.0])
def test_duality_gap_of_cagrad(x64, count, dtype, c):
    """min_k <g_k, d> of any d in the ball is at most <g_w, g_0> + c |g_0| |g_w| of any w."""
    g, _, rounded = problems(count, dtype)
    weights = solve(functools.partial(aggregators.cagrad_weights, c=c), rounded)
    d, mean = np.einsum("bk,bkd->bd", weights, g), g.mean(1)
    radius = c * np.linalg.norm(mean, axis=1)
    step = np.linalg.norm(d - mean, axis=1)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(step, radius, rtol=100 * count * eps)  # |g_0| down to 0.05
    hull = weights - 1 / count
    assert (hull >= -8 * eps).all()
    hull = hull / hull.sum(1, keepdims=True)
    g_w = np.einsum("bk,bkd->bd", hull, g)
    upper = (g_w * mean).sum(1) + radius * np.linalg.norm(g_w, axis=1)
    lower = np.einsum("bkd,bd->bk", g, d).min(1)
    assert (upper - lower <= GAPS[dtype] * np.abs(upper) + 16 * count * eps).all()


@pytest.mark.long
def test_cagrad_without_radius_is_the_mean_and_rescaling_divides(x64):
    _, _, rounded = problems(4, np.float64)
    zero = solve(functools.partial(aggregators.cagrad_weights, c=0.0), rounded)
    np.testing.assert_allclose(zero, 0.25, atol=1e-12)  # rounding of the cosines, eps 2e-16
    plain = solve(functools.partial(aggregators.cagrad_weights, c=0.7), rounded)
    scaled = solve(functools.partial(aggregators.cagrad_weights, c=0.7, rescale=True), rounded)
    np.testing.assert_allclose(scaled, plain / 1.7, rtol=1e-14)
    tx = aggregators.cagrad(0.7, rescale=True)
    g = jnp.eye(2)
    np.testing.assert_allclose(
        tx.update(g, tx.init(g[0]), g[0])[0], 0.5 * np.ones(2), rtol=1e-6
    )  # g_0 = (½, ½), and g_w along it


def test_cagrad_takes_a_traced_radius_and_refuses_a_negative_one():
    g = jnp.array([[1.0, 0.0], [-0.5, 1.0]])

    def update(c):
        tx = aggregators.cagrad(c)
        return tx.update(g, tx.init(g[0]), g[0])[0]

    radii = jnp.array([0.0, 0.3, 0.9])
    got = jax.jit(jax.vmap(update))(radii)
    for row, c in zip(got, radii, strict=True):
        np.testing.assert_allclose(row, update(float(c)), atol=1e-6)  # float32
    with pytest.raises(ValueError, match=r"c is -0\.1; it must be between 0 and inf"):
        aggregators.cagrad(-0.1)


def test_where_nothing_in_the_ball_helps_all_cagrad_is_the_mean(x64):
    # Two opposed rows hold the origin, and no convex combination has a negative value.
    g = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0]])
    weights = aggregators.cagrad_weights(jnp.asarray(g @ g.T))
    np.testing.assert_allclose(weights @ g, [0.0, 1.0], atol=1e-12)


@pytest.mark.parametrize("make", ["mgda", "chebyshev_center", "upgrad", "dual_proj", "cagrad"])
def test_more_objectives_than_the_faces_can_hold_are_an_error(make):
    tx = getattr(aggregators, make)()
    g = jnp.ones((13, 2))
    with pytest.raises(ValueError, match="takes up to 12, not 13; sum some of them"):
        tx.update(g, tx.init(g[0]), g[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", ["upgrad", "dual_proj", "chebyshev_center", "mgda"])
def test_dependent_gradients_are_hurt_by_no_more_than_the_rank_decision(x64, make, dtype):
    """Rows nearly opposed or nearly in a plane: conflicts stay below √(8 K eps) of the norms."""
    rng = np.random.default_rng(2)
    count, cases = 4, []
    for off in np.geomspace(1e-8, 1e-1, 15):
        g = rng.normal(size=(count, 30))
        g[1] = -2.0 * g[0] + off * g[1]
        cases.append(g)
        flat = rng.normal(size=(count, 2)) @ rng.normal(size=(2, 30))
        cases.append(flat + off * rng.normal(size=(count, 30)))
    g = np.array(cases).astype(dtype)
    tx = getattr(aggregators, make)()
    update = jax.jit(jax.vmap(lambda g: tx.update(g, tx.init(g[0]), g[0])[0]))(jnp.asarray(g))
    update, g = np.asarray(update, np.float64), g.astype(np.float64)
    norms = np.linalg.norm(g, axis=2)
    inner = np.einsum("bkd,bd->bk", g, update) / norms / norms.max(1, keepdims=True)
    assert (inner >= -np.sqrt(8 * count * np.finfo(dtype).eps)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_of_nash_mtl_bargain(x64, dtype):
    """The paper's condition on the weights, G w = 1 / w, with norms over six orders."""
    rng = np.random.default_rng(4)
    g = (rng.normal(size=(20, 5, 30)) * np.logspace(-3, 3, 5)[:, None]).astype(dtype)
    w = solve(aggregators.nash_mtl_weights, jnp.asarray(g @ g.transpose(0, 2, 1)))
    g = g.astype(np.float64)
    utility = np.einsum("bkd,bjd,bj->bk", g, g, w)
    np.testing.assert_allclose(w * utility, 1.0, rtol=1000 * np.finfo(dtype).eps)  # cond(C) < 20


def test_nash_mtl_converges_where_a_full_newton_step_leaves_the_positive_weights(x64):
    """Eight orthogonal gradients and their sum."""
    g = np.vstack([np.eye(8), np.full(8, 8**-0.5)])
    first = np.linalg.solve(g @ g.T + np.eye(9), np.ones(9))
    assert first[-1] < 0  # 2 of these is what x = 1 would become
    w = aggregators.nash_mtl_weights(jnp.asarray(g @ g.T))
    assert (w > 0).all()
    np.testing.assert_allclose(w * (g @ (g.T @ w)), 1.0, rtol=1e-12)  # cond of the Hessian < 20


def test_nash_mtl_converges_next_to_stationarity(x64):
    """Three unit rows of a plane lifted by h: w = 1 / (√3 h) for all, by symmetry."""
    for h in (1e-1, 1e-3, 1e-5, 1e-6):
        g = lifted(h)
        w = aggregators.nash_mtl_weights(jnp.asarray(g @ g.T))
        # Rounding of the cosines, a few eps, over h^2.
        np.testing.assert_allclose(w * np.sqrt(3) * h, 1.0, rtol=1e-15 / h**2 + 1e-12)


def lifted(h):
    """Three unit rows of equal angles in a plane, lifted out of it by h."""
    angles = 2 * np.pi / 3 * np.arange(3)
    flat = np.sqrt(1 - h**2) * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.column_stack([flat, np.full(3, h)])


def test_chebyshev_center_of_a_hull_that_all_but_holds_the_origin_is_zero(x64):
    """Squared distances h^2 on both sides of 8 K eps = 5e-15; beyond it, the length is 3 h."""
    for h in (1e-8, 1e-6, 1e-2):
        weights = aggregators.chebyshev_center_weights(jnp.asarray(lifted(h) @ lifted(h).T))
        expected = [0, 0, 3 * h] if h > 1e-7 else [0, 0, 0]
        # Rounding of the cosines, a few eps, over h^2, of the length 3 h; and of the rows to eps.
        np.testing.assert_allclose(weights @ lifted(h), expected, atol=1e-14 / h * (h > 1e-7))


def test_imtl_g_whose_weights_sum_to_zero_is_zero(x64):
    """Two orthogonal rows and one between them, as long as makes v_0 + v_1 + v_2 vanish."""
    u = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.6, np.sqrt(0.28)]])
    a = np.linalg.solve(u @ u.T, np.ones(3))
    g = u * np.array([[1.0], [1.0], [-a[2] / (a[0] + a[1])]])
    assert abs((a / np.linalg.norm(g, axis=1)).sum()) < 1e-14
    np.testing.assert_array_equal(aggregators.imtl_g_weights(jnp.asarray(g @ g.T)), np.zeros(3))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_projections_of_imtl_g_are_equal_and_its_weights_sum_to_one(x64, count):
    """The paper's closed form, with the differences of gradients and of unit gradients (Eq. 6)."""
    g = np.random.default_rng(count).normal(size=(count, 30)) * np.logspace(-2, 2, count)[:, None]
    u = g / np.linalg.norm(g, axis=1, keepdims=True)
    rest = g[0] @ (u[0] - u[1:]).T @ np.linalg.inv((g[0] - g[1:]) @ (u[0] - u[1:]).T)
    expected = np.append(1 - rest.sum(), rest)
    weights = aggregators.imtl_g_weights(jnp.asarray(g @ g.T))
    np.testing.assert_allclose(weights, expected, rtol=1e-9)  # of the inverse, cond near 1e5
    assert np.ptp(u @ (weights @ g)) < 1e-12 * np.linalg.norm(g)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_imtl_g_and_config_share_a_line(x64, count):
    for seed in range(5):
        g = np.random.default_rng(seed).normal(size=(count, 30))
        g[-1] += g[0] - g[1]
        one, other = (
            np.asarray(w(jnp.asarray(g @ g.T))) @ g
            for w in (aggregators.imtl_g_weights, aggregators.config_weights)
        )
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        np.testing.assert_allclose(abs(cosine), 1.0, rtol=1e-12)  # cond(C) < 100


def test_config_dcgd_center_and_chebyshev_are_one_update_for_two(x64):
    for seed in range(5):
        g = np.random.default_rng(seed).normal(size=(2, 30)) * np.array([[1.0], [1e3]])
        n = np.linalg.norm(g, axis=1)
        expected = 0.5 * n.sum() * (g[0] / n[0] + g[1] / n[1])
        for name in ("config", "dcgd", "chebyshev_center"):
            w = getattr(aggregators, f"{name}_weights")(jnp.asarray(g @ g.T))
            np.testing.assert_allclose(w @ g, expected, atol=1e-13 * n.max(), err_msg=name)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_scales_of_aligned_mtl(x64, scale):
    """Rows of all gradients replaced by σ U Vᵀ have the condition number 1 and the mean below."""
    g = np.random.default_rng(9).normal(size=(4, 30)) * np.array([[1.0], [2.0], [3.0], [4.0]])
    left, values, right = np.linalg.svd(g, full_matrices=False)
    squares = np.sort(values**2)
    sigma = np.sqrt({"min": squares[0], "median": squares[1], "rmse": squares.mean()}[scale])
    tx = aggregators.aligned_mtl(scale)
    update, _ = tx.update(jnp.asarray(g), tx.init(jnp.zeros(30)), jnp.zeros(30))
    np.testing.assert_allclose(update, sigma * (left @ right).mean(0), atol=1e-12)


def test_unknown_scale_is_an_error_when_built():
    with pytest.raises(ValueError, match=r"unknown scale 'mean'.*'min', 'median' or 'rmse'"):
        aggregators.aligned_mtl("mean")
