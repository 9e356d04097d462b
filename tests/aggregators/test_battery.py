"""One battery of properties for every aggregator; a new one is a row of `ROWS`.

References are the papers' own vector formulas on dense float64 matrices `[K, D]`, not weights of a
Gramian. Errors are relative to the largest norm, and bounded by `C * eps * cond`:

* `C = 50`: the inner products of D = 40 terms, a K x K eigenproblem and the final sum each round to
  a few eps.
* `cond` is the condition of the cosine matrix over its kept spectrum for methods that invert it
  (a perturbation of size eps of C moves C^+ by so much), and 1 for the others.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import aggregators

C = 50.0
D = 40
DTYPES = (np.float32, np.float64)
EVERY_K = tuple(range(1, 10))

Matrix = np.ndarray


# --- families of gradients ---------------------------------------------------------------------


@functools.cache
def families(count: int) -> dict[str, Matrix]:
    """Matrices `[K, D]`, float64, by name."""
    rng = np.random.default_rng(count)
    g = rng.normal(size=(count, D))
    made = {f"normal{i}": rng.normal(size=(count, D)) for i in range(3)}
    made["zero"] = np.zeros((count, D))
    made["tiny"], made["huge"] = 1e-10 * g, 1e10 * g
    if count == 1:
        return made
    sizes = np.linspace(1.0, 2.0, count)[:, None]
    signs = (-1.0) ** np.arange(count)[:, None]
    made["equal"] = np.repeat(g[:1], count, axis=0)
    made["parallel"] = sizes * g[0]
    made["opposed"] = signs * g[0]
    made["opposed, other sizes"] = sizes * signs * g[0]
    for off in (1e-3, 1e-6):
        nearly = g.copy()
        nearly[1] = -1.5 * g[0] + off * np.linalg.norm(g[0]) / np.linalg.norm(g[1]) * g[1]
        made[f"nearly opposed {off}"] = nearly
    for name, factor in {"zero": 0.0, "tiny": 1e-10, "huge": 1e10}.items():
        for row in {0, count - 1}:
            scaled = g.copy()
            scaled[row] *= factor
            made[f"row {row} {name}"] = scaled
    for row, factor in ((0, 1024.0), (count - 1, 1 / 1024.0)):  # powers of two do not round
        scaled = made["normal0"].copy()
        scaled[row] *= factor
        made[f"normal0 row {row} times {factor}"] = scaled
    if count > 2:
        made["rank 2"] = rng.normal(size=(count, 2)) @ rng.normal(size=(2, D))
        made["simplex"] = sizes * _simplex(count, rng)
    if count == 4:
        made["two opposed pairs"] = np.stack([g[0], -2.0 * g[0], 3.0 * g[1], -g[1]])
    return made


def _simplex(count: int, rng: np.random.Generator) -> Matrix:
    """K unit vectors of equal angles and zero sum: Pareto stationary, without an opposed pair."""
    corners = np.eye(count) - 1.0 / count
    rotation = np.linalg.qr(rng.normal(size=(D, count)))[0].T
    return corners @ rotation / np.linalg.norm(corners[0])


# --- the papers' formulas ----------------------------------------------------------------------


def cutoff(count: int, dtype: type) -> float:
    """The rank decision that the aggregators document: eigenvalues of C up to 8 K eps are zero.

    Pairs are solved in closed form, without one; for them, only what float64 cannot tell from zero.
    """
    return 8 * count * float(np.finfo(np.float64 if count == 2 else dtype).eps)


def units(g: Matrix) -> Matrix:
    norms = np.linalg.norm(g, axis=1, keepdims=True)
    return np.divide(g, norms, out=np.zeros_like(g), where=norms > 0)


def condition(g: Matrix, dtype: type) -> float:
    """Condition of the cosine matrix over the spectrum that is kept."""
    values = np.linalg.svd(units(g), compute_uv=False) ** 2
    kept = values[values > cutoff(len(g), dtype)]
    return kept.max() / kept.min() if kept.size else 1.0


def sum_reference(g: Matrix, dtype: type) -> list[Matrix]:
    return [g.sum(0)]


def mean_reference(g: Matrix, dtype: type) -> list[Matrix]:
    return [g.mean(0)]


def center_reference(g: Matrix, dtype: type) -> list[Matrix]:
    g_c = units(g).sum(0)
    if g_c @ g_c <= cutoff(len(g), dtype):
        return [np.zeros(D)]
    return [(g_c @ g.sum(0)) / (g_c @ g_c) * g_c]


def config_reference(g: Matrix, dtype: type) -> list[Matrix]:
    u, ones = units(g), np.ones(len(g))
    if not u.any():
        return [np.zeros(D)]
    relative = np.sqrt(cutoff(len(g), dtype)) / np.linalg.norm(u, 2)
    d = np.linalg.pinv(u, rcond=relative) @ ones
    if np.abs(u @ d).max() <= cutoff(len(g), dtype):  # no direction serves anyone: ||d|| = 0
        return [np.zeros(D)]
    d /= np.linalg.norm(d)
    return [sum(row @ d for row in g) * d]


def avg_reference(g: Matrix, dtype: type) -> list[Matrix]:
    return _two_faces(g, dtype, lambda on_b, on_r: [(on_b + on_r) / 2] * 2)


def proj_reference(g: Matrix, dtype: type) -> list[Matrix]:
    return _two_faces(g, dtype, lambda on_b, on_r: [on_b, on_r])


def _two_faces(g: Matrix, dtype: type, pick: Callable[..., list[Matrix]]) -> list[Matrix]:
    """The branches of DCGD avg and proj; more than one where rounding may choose either."""
    g_r, g_b = g
    n = np.linalg.norm(g, axis=1)
    if not n.all():
        return [g_r + g_b]
    projections = pick(g_r - (g_r @ g_b) / (g_b @ g_b) * g_b, g_b - (g_r @ g_b) / (g_r @ g_r) * g_r)
    conflict = np.array([(g_r + g_b) @ g_b / n[1], (g_r + g_b) @ g_r / n[0]])
    rounding = C * np.finfo(dtype).eps * n.max()
    admissible = [p for p, x in zip(projections, conflict, strict=True) if x < rounding]
    return admissible + ([g_r + g_b] if (conflict > -rounding).all() else [])


# --- the rows ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Row:
    """An aggregator and what its paper says of it."""

    make: Callable[[], optax.GradientTransformationExtraArgs]
    reference: Callable[[Matrix, type], list[Matrix]]
    counts: tuple[int, ...] = EVERY_K
    inverts: bool = False  # whether its error grows with the condition of the cosines
    never_conflicts: tuple[int, ...] = ()  # the K for which independent gradients never conflict
    direction_of_units: bool = False  # whether scaling one gradient leaves the direction
    cancels_opposed: bool = True  # whether opposed gradients, of any size, give zero


ROWS = {
    "sum": Row(aggregators.sum, sum_reference, counts=(1, 2, 5), cancels_opposed=False),
    "mean": Row(aggregators.mean, mean_reference, counts=(1, 2, 5), cancels_opposed=False),
    "dcgd": Row(
        aggregators.dcgd,
        center_reference,
        counts=(1, 2, 3, 4, 5, 9),
        inverts=True,
        never_conflicts=(1, 2),
        direction_of_units=True,
    ),
    "dcgd avg": Row(
        lambda: aggregators.dcgd("avg"), avg_reference, counts=(2,), never_conflicts=(2,)
    ),
    "dcgd proj": Row(
        lambda: aggregators.dcgd("proj"), proj_reference, counts=(2,), never_conflicts=(2,)
    ),
    "config": Row(
        aggregators.config,
        config_reference,
        inverts=True,
        never_conflicts=EVERY_K,
        direction_of_units=True,
    ),
}


def cases(chosen: Callable[[Row, int], bool] = lambda row, count: True) -> pytest.MarkDecorator:
    """The pairs of aggregator and K for which a property is claimed, in both precisions."""
    pairs = [(name, k) for name, row in ROWS.items() for k in row.counts if chosen(row, k)]
    triples = [(name, k, dtype) for name, k in pairs for dtype in DTYPES]
    return pytest.mark.parametrize(("name", "count", "dtype"), triples)


@functools.cache
def compiled(name: str) -> Callable[[jax.Array], jax.Array]:
    """The aggregator over a batch of matrices `[B, K, D]`."""
    tx = ROWS[name].make()
    return jax.jit(jax.vmap(lambda g: tx.update(g, tx.init(g[0]), g[0])[0]))


@functools.cache
def results(name: str, count: int, dtype: type) -> dict[str, tuple[Matrix, Matrix]]:
    """By family: the rounded input and the update, both float64."""
    rows = {family: g.astype(dtype) for family, g in families(count).items()}
    with_permuted = np.stack([*rows.values(), *(g[::-1] for g in rows.values())])
    out = np.asarray(compiled(name)(jnp.asarray(with_permuted)))
    assert out.dtype == dtype
    both = zip(out[: len(rows)], out[len(rows) :], strict=True)
    return {
        family: (g.astype(np.float64), np.stack(pair).astype(np.float64))
        for (family, g), pair in zip(rows.items(), both, strict=True)
    }


def bound(row: Row, g: Matrix, dtype: type) -> float:
    factor = condition(g, dtype) if row.inverts else 1.0
    return C * float(np.finfo(dtype).eps) * factor * np.linalg.norm(g, axis=1).max()


# --- the properties ----------------------------------------------------------------------------


@cases()
def test_equals_the_papers_vector_formula(x64, name, count, dtype):
    row = ROWS[name]
    for family, (g, (update, _)) in results(name, count, dtype).items():
        error = min(np.linalg.norm(update - r) for r in row.reference(g, dtype))
        assert error <= bound(row, g, dtype), family


@cases()
def test_is_finite_and_never_larger_than_the_gradients(x64, name, count, dtype):
    for family, (g, updates) in results(name, count, dtype).items():
        assert np.isfinite(updates).all(), family
        # Every method here projects, or averages projections: at most the sum of all norms.
        assert np.linalg.norm(updates, axis=1).max() <= 1.001 * np.linalg.norm(g, axis=1).sum(), (
            family
        )


@cases()
def test_is_invariant_under_permutation(x64, name, count, dtype):
    row = ROWS[name]
    for family, (g, (update, permuted)) in results(name, count, dtype).items():
        if len(row.reference(g, dtype)) == 1:  # else rounding chooses the branch, in either order
            assert np.linalg.norm(update - permuted) <= 2 * bound(row, g, dtype), family


@cases(lambda row, count: count in row.never_conflicts)
def test_never_conflicts_with_independent_gradients(x64, name, count, dtype):
    eps = float(np.finfo(dtype).eps)
    checked = 0
    for family, (g, (update, _)) in results(name, count, dtype).items():
        values = np.linalg.svd(units(g), compute_uv=False) ** 2
        if values.min() <= cutoff(count, dtype) and count > 2:
            continue  # dependent as far as the aggregator can tell
        norms = np.linalg.norm(g, axis=1)
        # Beside 1e-6 of the norms, the rounding of a sum of K vectors no longer than max n_k.
        slack = 1e-6 * np.linalg.norm(update) + C * eps * norms.max()
        assert np.all(g @ update >= -slack * norms), family
        checked += 1
    assert checked >= 3


@cases(lambda row, count: count == 1)
def test_one_gradient_is_returned_as_it_is(x64, name, count, dtype):
    for family, (g, (update, _)) in results(name, count, dtype).items():
        assert np.linalg.norm(update - g[0]) <= bound(ROWS[name], g, dtype), family


@cases(lambda row, count: count % 2 == 0 and row.cancels_opposed)
def test_opposed_gradients_give_zero(x64, name, count, dtype):
    g, (update, _) = results(name, count, dtype)["opposed, other sizes"]
    assert np.linalg.norm(update) <= bound(ROWS[name], g, dtype)


@cases(lambda row, count: count > 1 and row.direction_of_units)
def test_direction_does_not_depend_on_the_size_of_one_gradient(x64, name, count, dtype):
    of_family = results(name, count, dtype)
    scaled = [family for family in of_family if family.startswith("normal0 row")]
    assert len(scaled) == 2
    g, (update, _) = of_family["normal0"]
    tolerance = C * float(np.finfo(dtype).eps) * condition(g, dtype)
    for family in scaled:
        one, other = units(np.stack([update, of_family[family][1][0]]))
        assert np.linalg.norm(one - other) <= tolerance, family


# --- how they are used ---------------------------------------------------------------------------


each_name = pytest.mark.parametrize("name", ROWS)


def _tree(dtype: type = np.float32) -> tuple[dict, dict]:
    """Stacked gradients of two objectives, and parameters, with leaves of zero to three axes."""
    rng = np.random.default_rng(7)
    shapes = {"scalar": (), "bias": (5,), "kernel": (3, 5), "conv": (2, 2, 3)}
    grads = {k: jnp.asarray(rng.normal(size=(2, *s)), dtype) for k, s in shapes.items()}
    return grads, jax.tree.map(lambda g: jnp.zeros_like(g[0]), grads)


@each_name
def test_tree_of_leaves_equals_one_flat_vector(name):
    tx = ROWS[name].make()
    grads, params = _tree()
    flat = jnp.concatenate([leaf.reshape(2, -1) for leaf in jax.tree.leaves(grads)], axis=1)
    out, _ = tx.update(grads, tx.init(params), params)
    expected, _ = tx.update(flat, tx.init(flat[0]), flat[0])
    got = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(out)])
    assert jax.tree.structure(out) == jax.tree.structure(params)
    # Two orders of summation of 33 terms, in float32.
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.linalg.norm(flat, axis=1).max())


@each_name
def test_bfloat16_leaves_keep_their_type_and_lose_only_the_last_rounding(name):
    tx = ROWS[name].make()
    grads, params = _tree()
    low = jax.tree.map(lambda g: g.astype(jnp.bfloat16), grads)
    up = jax.tree.map(lambda g: g.astype(jnp.float32), low)
    out, _ = tx.update(low, tx.init(params), params)
    expected, _ = tx.update(up, tx.init(params), params)
    for got, want in zip(jax.tree.leaves(out), jax.tree.leaves(expected), strict=True):
        assert got.dtype == jnp.bfloat16
        # Half a unit in the last of bfloat16's eight bits is 2**-9, relative.
        np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2.0**-8, atol=1e-6)


@each_name
def test_jit_vmap_and_scan_agree_with_a_plain_call(name):
    tx = ROWS[name].make()
    rng = np.random.default_rng(3)
    stacks = jnp.asarray(rng.normal(size=(4, 2, 6)), jnp.float32)
    params = jnp.zeros(6)

    def update(g):
        return tx.update(g, tx.init(params), params)[0]

    plain = np.stack([update(g) for g in stacks])
    _, scanned = jax.lax.scan(
        lambda state, g: tx.update(g, state, params)[::-1], tx.init(params), stacks
    )
    for other in (jax.vmap(update)(stacks), jax.jit(jax.vmap(update))(stacks), scanned):
        np.testing.assert_allclose(other, plain, rtol=1e-5, atol=1e-5)  # other orders of rounding


@each_name
def test_gradients_that_are_not_stacked_are_an_error(name):
    tx = ROWS[name].make()
    params = {"w": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match=r"not stacked: w has shape \[3, 2\]"):
        tx.update(params, tx.init(params), params)


@each_name
def test_missing_params_are_an_error(name):
    tx = ROWS[name].make()
    with pytest.raises(ValueError, match="params is missing"):
        tx.update(jnp.ones((2, 3)), tx.init(jnp.ones(3)))
