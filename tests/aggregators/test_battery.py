"""One battery of properties for every aggregator; a new one is a row of `ROWS`.

References are the papers' own vector formulas on dense float64 matrices `[K, D]`, not weights of a
Gramian; SciPy solves the convex problems. Errors are relative to the largest norm, or to what a row
names, and bounded by `C * eps * cond`:

* `C = 50`: the inner products of D = 40 terms, a K x K eigenproblem and the final sum each round to
  a few eps.
* `cond` is the condition of the problem, 1 if a row names none: how far a perturbation of size eps
  of the cosine matrix moves the result.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from modsync_jax import aggregators, gradients

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
        powers = 2.0 ** (np.arange(count)[:, None] % 3)  # do not round: opposed in float32 too
        made["huge, opposed, one tiny"] = 1e10 * powers * signs * g[0]
        made["huge, opposed, one tiny"][-1] = 1e-10 * g[1]
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
    return _kept_condition(units(g), cutoff(len(g), dtype))


def raw_condition(g: Matrix, dtype: type) -> float:
    """Condition of the Gramian over the spectrum that is kept."""
    n = np.linalg.norm(g, axis=1).max()
    return _kept_condition(g / n, cutoff(len(g), dtype), relative=True) if n else 1.0


def _kept_condition(rows: Matrix, zero: float, relative: bool = False) -> float:
    values = np.linalg.svd(rows, compute_uv=False) ** 2
    kept = values[values > zero * (values[0] if relative else 1.0)]
    return kept.max() / kept.min() if kept.size else 1.0


def face_condition(g: Matrix, dtype: type) -> float:
    """The worst condition of the cosines of any subset of the gradients.

    Dependent ones are left out: their eigenvalues are zero but for the rounding of the gradients to
    `dtype`. Those that only the aggregator takes for dependent count; nothing is claimed of them.
    """
    return _face_condition(g.tobytes(), len(g), dtype)


@functools.cache
def _face_condition(data: bytes, count: int, dtype: type) -> float:
    u = units(np.frombuffer(data).reshape(count, D))
    c = u @ u.T
    zero = cutoff(count, np.float64) if dtype == np.float64 else 1e-14 * count
    smallest = [1.0]
    for size in range(2, count + 1):
        faces = np.array(list(itertools.combinations(range(count), size)))
        values = np.linalg.eigvalsh(c[faces[:, :, None], faces[:, None, :]])[:, 0]
        smallest.append(values[values > zero].min(initial=1.0))
    return count / min(smallest)


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


def mgda_reference(g: Matrix, dtype: type) -> list[Matrix]:
    return [shortest(g)]


def chebyshev_reference(g: Matrix, dtype: type) -> list[Matrix]:
    rows = units(g)[np.linalg.norm(g, axis=1) > 0]
    d = shortest(rows) if len(rows) else np.zeros(D)
    if d @ d <= cutoff(len(g), dtype):
        return [np.zeros(D)]
    return [(g @ d).sum() / (d @ d) * d]


def shortest(g: Matrix) -> Matrix:
    """The point of the rows' convex hull that is nearest to the origin.

    Non-negative least squares of `sum_k x_k g_k = 0` and `sum_k x_k = 1`, up to length, in units of
    the shortest row.
    """
    n = np.linalg.norm(g, axis=1)
    if not n.all():
        return np.zeros(D)
    share = n.min() / n
    x, _ = scipy.optimize.nnls(np.vstack([units(g).T, share]), np.eye(D + 1)[D])
    return n.min() * x @ units(g) / (share @ x)


def upgrad_reference(g: Matrix, dtype: type) -> list[Matrix]:
    return [np.mean([on_dual_cone(row, g) for row in g], axis=0)]


def dual_proj_reference(g: Matrix, dtype: type) -> list[Matrix]:
    return [on_dual_cone(g.mean(0), g)]


def on_dual_cone(v: Matrix, g: Matrix) -> Matrix:
    """The vector nearest to v that conflicts with no row: v less its part in the polar cone."""
    size = np.linalg.norm(v) or 1.0
    x, _ = scipy.optimize.nnls(units(g).T, -v / size)
    return v + size * x @ units(g)


def cagrad_reference(g: Matrix, dtype: type, c: float = 0.5) -> list[Matrix]:
    """The highest value that `min_k <g_k, g_0 + x>` takes for an x of length `c ||g_0||`.

    The shortest x for a value is a least-distance problem, which non-negative least squares solves
    (Lawson and Hanson, chapter 23).
    """
    n = np.linalg.norm(g, axis=1)
    mean = g.mean(0)
    radius = c * np.linalg.norm(mean)
    if radius <= C * np.finfo(dtype).eps * n.max():
        return [mean]
    u = units(g)
    share = np.where(n > 0, n[n > 0].min() / np.where(n > 0, n, 1.0), 1.0)

    def step(value: float) -> Matrix | None:
        # Below -10 it is met by all x that are not much too long, and a number that scales badly.
        wanted = np.maximum(value * share - u @ mean / radius, -10.0)
        if wanted.max() <= 0:
            return np.zeros(D)
        wanted, scale = wanted / np.abs(wanted).max(), np.abs(wanted).max()
        rows = np.vstack([u.T, wanted])
        x, _ = scipy.optimize.nnls(rows, np.eye(D + 1)[D])
        rest = rows @ x - np.eye(D + 1)[D]
        return -scale * rest[:D] / rest[D] if rest[D] < -1e-14 else None

    def excess(value: float) -> float:
        x = step(value)
        return 1.0 if x is None else np.linalg.norm(x) - 1.0

    hull = shortest(u[n > 0])
    stationary = hull @ hull <= cutoff(len(g), dtype) or not n.all()
    if stationary and excess(0.0) <= 0:
        return [mean]  # g_w = 0
    low = (u @ mean / radius / share).min()
    high = next(low + t for t in np.geomspace(1e-12, 1e30, 43) if excess(low + t) > 0)
    value = scipy.optimize.brentq(excess, low, high, xtol=1e-300, rtol=1e-15, maxiter=1000)
    return [mean + radius * step(value)]


def nash_reference(g: Matrix, dtype: type) -> list[Matrix]:
    """Minimises `½ |sum_k w_k g_k|^2 - sum_k log w_k` over the logarithms of `w n`."""
    u = units(g)[np.linalg.norm(g, axis=1) > 0]
    hull = shortest(u) if len(u) else np.zeros(D)
    if hull @ hull <= cutoff(len(g), dtype):
        return [np.zeros(D)]

    def value(logs: Matrix) -> float:
        return 0.5 * ((np.exp(logs) @ u) ** 2).sum() - logs.sum()

    def slope(logs: Matrix) -> Matrix:
        return np.exp(logs) * (u @ (np.exp(logs) @ u)) - 1.0

    def bend(logs: Matrix) -> Matrix:
        scaled = np.exp(logs)[:, None] * u
        return scaled @ scaled.T + np.diag(slope(logs) + 1.0)

    options = {"gtol": 1e-6, "maxiter": 1000}
    found = scipy.optimize.minimize(
        value, np.zeros(len(u)), jac=slope, hess=bend, method="trust-exact", options=options
    ).x
    for _ in range(3):  # the last digits, which the values can't tell
        found = found - np.linalg.solve(bend(found), slope(found))
    return [np.exp(found) @ u]


def imtl_g_reference(g: Matrix, dtype: type) -> list[Matrix]:
    v = impartial(g, dtype)
    if abs(v.sum()) <= cutoff(len(g), dtype) * np.abs(v).sum():
        return [np.zeros(D)]
    return [v @ g / v.sum()]


def impartial(g: Matrix, dtype: type) -> Matrix:
    """Weights, up to a factor, of the direction with equal cosines."""
    u, n = units(g), np.linalg.norm(g, axis=1)
    relative = np.sqrt(cutoff(len(g), dtype)) / (np.linalg.norm(u, 2) or 1.0)
    inverse = np.linalg.pinv(u, rcond=relative)
    d = inverse @ np.ones(len(g))
    if np.abs(u @ d).max() <= cutoff(len(g), dtype):
        return np.zeros(len(g))
    return np.divide(inverse.T @ d, n, out=np.zeros(len(g)), where=n > 0)


def impartial_size(g: Matrix) -> float:
    """IMTL-G divides by the sum of weights of either sign: what rounding that amplifies."""
    v = np.abs(impartial(g, np.float64))
    total = abs(impartial(g, np.float64).sum())
    if total <= cutoff(len(g), np.float32) * v.sum():
        return np.inf if v.any() else 0.0
    lengths = np.linalg.norm(g, axis=1)
    return (v @ lengths) * v.sum() / total**2


def aligned_reference(g: Matrix, dtype: type, scale: str = "min") -> list[Matrix]:
    """The mean row of σ U Vᵀ, with the singular value decomposition U Σ Vᵀ of the gradients."""
    left, values, right = np.linalg.svd(g, full_matrices=False)
    kept = values**2 > cutoff(len(g), dtype) * values[0] ** 2
    squares = values[kept] ** 2  # falling
    if not kept.any():
        return [np.zeros(D)]
    median = squares[len(squares) // 2]  # the lower one
    sigma = np.sqrt({"min": squares[-1], "median": median, "rmse": squares.mean()}[scale])
    return [sigma * left.mean(0)[kept] @ right[kept]]


def pcgrad_reference(g: Matrix, dtype: type) -> list[Matrix]:
    """Algorithm 1 of the paper, in the order of the objectives."""
    return [surgery(g, [[j for j in range(len(g)) if j != i] for i in range(len(g))])]


def pcgrad_references(g: Matrix, dtype: type) -> list[Matrix]:
    """The same for all orders."""
    others = [[j for j in range(len(g)) if j != i] for i in range(len(g))]
    orders = itertools.product(*(itertools.permutations(row) for row in others))
    return [surgery(g, order) for order in orders]


def surgery(g: Matrix, order: Sequence[Sequence[int]]) -> Matrix:
    total = np.zeros(D)
    for i, others in enumerate(order):
        row = g[i].copy()
        for j in others:
            if row @ g[j] < 0:
                row -= (row @ g[j]) / (g[j] @ g[j]) * g[j]
        total += row
    return total


# --- the rows ----------------------------------------------------------------------------------


def largest(g: Matrix) -> float:
    return np.linalg.norm(g, axis=1).max()


@dataclasses.dataclass(frozen=True)
class Row:
    """An aggregator and what its paper says of it."""

    make: Callable[[], optax.GradientTransformationExtraArgs]
    weights: Callable[[jax.Array], jax.Array]
    reference: Callable[[Matrix, type], list[Matrix]]
    counts: tuple[int, ...] = EVERY_K
    condition: Callable[[Matrix, type], float] = lambda g, dtype: 1.0
    size: Callable[[Matrix], float] = largest  # what errors are relative to
    alone: Callable[[Matrix], Matrix] = lambda g: g  # what it makes of one gradient
    bounded: bool = True  # whether the update is no longer than all gradients together
    permutable: bool = True  # whether the order of the objectives does not matter
    never_conflicts: tuple[int, ...] = ()  # the K for which independent gradients never conflict
    direction_of_units: bool = False  # whether scaling one gradient leaves the direction
    cancels_opposed: bool = True  # whether opposed gradients, of any size, give zero


KEY = jax.random.key(3)
ROWS = {
    "sum": Row(
        aggregators.sum,
        aggregators.sum_weights,
        sum_reference,
        counts=(1, 2, 5),
        cancels_opposed=False,
    ),
    "mean": Row(
        aggregators.mean,
        aggregators.mean_weights,
        mean_reference,
        counts=(1, 2, 5),
        cancels_opposed=False,
    ),
    "dcgd": Row(
        aggregators.dcgd,
        aggregators.dcgd_weights,
        center_reference,
        counts=(1, 2, 3, 4, 5, 9),
        condition=condition,
        never_conflicts=(1, 2),
        direction_of_units=True,
    ),
    "dcgd avg": Row(
        lambda: aggregators.dcgd("avg"),
        lambda gramian: aggregators.dcgd_weights(gramian, "avg"),
        avg_reference,
        counts=(2,),
        never_conflicts=(2,),
    ),
    "dcgd proj": Row(
        lambda: aggregators.dcgd("proj"),
        lambda gramian: aggregators.dcgd_weights(gramian, "proj"),
        proj_reference,
        counts=(2,),
        never_conflicts=(2,),
    ),
    "config": Row(
        aggregators.config,
        aggregators.config_weights,
        config_reference,
        condition=condition,
        never_conflicts=EVERY_K,
        direction_of_units=True,
    ),
    "mgda": Row(
        aggregators.mgda,
        aggregators.mgda_weights,
        mgda_reference,
        size=lambda g: np.linalg.norm(g, axis=1).min(),
        never_conflicts=EVERY_K,
    ),
    "chebyshev": Row(
        aggregators.chebyshev_center,
        aggregators.chebyshev_center_weights,
        chebyshev_reference,
        condition=face_condition,
        never_conflicts=EVERY_K,
        direction_of_units=True,
    ),
    "upgrad": Row(
        aggregators.upgrad,
        aggregators.upgrad_weights,
        upgrad_reference,
        condition=face_condition,
        never_conflicts=EVERY_K,
    ),
    "dual-proj": Row(
        aggregators.dual_proj,
        aggregators.dual_proj_weights,
        dual_proj_reference,
        condition=face_condition,
        never_conflicts=EVERY_K,
    ),
    "cagrad": Row(
        aggregators.cagrad,
        aggregators.cagrad_weights,
        cagrad_reference,
        condition=face_condition,
        alone=lambda g: 1.5 * g,
        bounded=False,
        cancels_opposed=False,
    ),
    "nash-mtl": Row(
        aggregators.nash_mtl,
        aggregators.nash_mtl_weights,
        nash_reference,
        condition=face_condition,
        size=lambda g: np.sqrt(len(g)),
        alone=lambda g: units(g[None])[0],
        bounded=False,
        never_conflicts=EVERY_K,
        direction_of_units=True,
    ),
    "imtl-g": Row(
        aggregators.imtl_g,
        aggregators.imtl_g_weights,
        imtl_g_reference,
        condition=condition,
        size=impartial_size,
        bounded=False,
    ),
    "aligned-mtl": Row(
        aggregators.aligned_mtl,
        aggregators.aligned_mtl_weights,
        aligned_reference,
        condition=raw_condition,
        cancels_opposed=False,
    ),
    "pcgrad": Row(
        aggregators.pcgrad,
        lambda gramian: aggregators.pcgrad_weights(gramian, key=KEY),
        pcgrad_references,
        counts=(1, 2, 3),
        never_conflicts=(1, 2),
    ),
    "pcgrad fixed": Row(
        lambda: aggregators.pcgrad("fixed"),
        lambda gramian: aggregators.pcgrad_weights(gramian, key=None),
        pcgrad_reference,
        permutable=False,
        never_conflicts=(1, 2),
    ),
}


def cases(chosen: Callable[[Row, int], bool] = lambda row, count: True) -> pytest.MarkDecorator:
    """The pairs of aggregator and K for which a property is claimed, in both precisions."""
    pairs = [(name, k) for name, row in ROWS.items() for k in row.counts if chosen(row, k)]
    # Every K in float64; what float32 does is seen at a few.
    triples = [
        (name, k, dtype)
        for name, k in pairs
        for dtype in DTYPES
        if dtype == np.float64 or k in (1, 2, 3, 9)
    ]
    return pytest.mark.parametrize(("name", "count", "dtype"), triples)


@functools.cache
def gramians(count: int, dtype: type) -> tuple[dict[str, Matrix], jax.Array, jax.Array]:
    """The families rounded to `dtype`, those and their reversals in one array, and Gramians."""
    rows = {family: g.astype(dtype) for family, g in families(count).items()}
    stack = jnp.asarray(np.stack([*rows.values(), *(g[::-1] for g in rows.values())]))
    return rows, stack, jax.jit(jax.vmap(gradients.gramian))(stack)


@functools.cache
def results(name: str, count: int, dtype: type) -> dict[str, tuple[Matrix, Matrix]]:
    """By family: the rounded input and the updates, plain and permuted, all float64."""
    rows, stack, matrices = gramians(count, dtype)
    weights = jax.jit(jax.vmap(ROWS[name].weights))(matrices)
    out = np.asarray(jax.vmap(gradients.weighted_sum)(weights, stack))
    assert out.dtype == dtype
    both = zip(out[: len(rows)], out[len(rows) :], strict=True)
    return {
        family: (g.astype(np.float64), np.stack(pair).astype(np.float64))
        for (family, g), pair in zip(rows.items(), both, strict=True)
    }


def bound(row: Row, g: Matrix, dtype: type) -> float:
    return C * float(np.finfo(dtype).eps) * row.condition(g, dtype) * row.size(g)


# --- the properties ----------------------------------------------------------------------------


@cases()
def test_equals_the_papers_vector_formula(x64, name, count, dtype):
    row = ROWS[name]
    for family, (g, (update, _)) in results(name, count, dtype).items():
        error = min(np.linalg.norm(update - r) for r in row.reference(g, dtype))
        assert error <= bound(row, g, dtype), family


@cases()
def test_is_finite(x64, name, count, dtype):
    for family, (_, updates) in results(name, count, dtype).items():
        assert np.isfinite(updates).all(), family


@cases(lambda row, count: row.bounded)
def test_is_never_larger_than_the_gradients(x64, name, count, dtype):
    for family, (g, updates) in results(name, count, dtype).items():
        # These project, or average projections: at most the sum of all norms.
        assert np.linalg.norm(updates, axis=1).max() <= 1.001 * np.linalg.norm(g, axis=1).sum(), (
            family
        )


@cases(lambda row, count: row.permutable)
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
def test_one_gradient_is_returned_as_it_is_or_as_its_row_says(x64, name, count, dtype):
    row = ROWS[name]
    for family, (g, (update, _)) in results(name, count, dtype).items():
        assert np.linalg.norm(update - row.alone(g[0])) <= bound(row, g, dtype), family


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


MAKE = {name: row.make for name, row in ROWS.items()} | {"grad-drop": aggregators.grad_drop}
each_name = pytest.mark.parametrize("name", MAKE)


def _tree(dtype: type = np.float32) -> tuple[dict, dict]:
    """Stacked gradients of two objectives, and parameters, with leaves of zero to three axes."""
    rng = np.random.default_rng(7)
    shapes = {"scalar": (), "bias": (5,), "kernel": (3, 5), "conv": (2, 2, 3)}
    grads = {k: jnp.asarray(rng.normal(size=(2, *s)), dtype) for k, s in shapes.items()}
    return grads, jax.tree.map(lambda g: jnp.zeros_like(g[0]), grads)


@pytest.mark.parametrize("name", ROWS)
def test_transformation_applies_the_weights(name):
    tx, weights = ROWS[name].make(), ROWS[name].weights
    for count in set(ROWS[name].counts) & {2, 3}:
        g = jnp.asarray(families(count)["normal1"], jnp.float32)
        update, _ = tx.update(g, tx.init(g[0]), g[0], key=KEY)
        expected = weights(g @ g.T) @ g
        # Two orders of summation of 40 terms, in float32.
        np.testing.assert_allclose(update, expected, atol=1e-5 * np.linalg.norm(g, axis=1).max())


@pytest.mark.parametrize("name", ROWS)
def test_tree_of_leaves_equals_one_flat_vector(name):
    tx = MAKE[name]()
    grads, params = _tree()
    flat = jnp.concatenate([leaf.reshape(2, -1) for leaf in jax.tree.leaves(grads)], axis=1)
    out, _ = tx.update(grads, tx.init(params), params, key=KEY)
    expected, _ = tx.update(flat, tx.init(flat[0]), flat[0], key=KEY)
    got = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(out)])
    assert jax.tree.structure(out) == jax.tree.structure(params)
    # Two orders of summation of 33 terms, in float32.
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.linalg.norm(flat, axis=1).max())


@each_name
def test_bfloat16_leaves_keep_their_type_and_lose_only_the_last_rounding(name):
    tx = MAKE[name]()
    grads, params = _tree()
    low = jax.tree.map(lambda g: g.astype(jnp.bfloat16), grads)
    up = jax.tree.map(lambda g: g.astype(jnp.float32), low)
    out, _ = tx.update(low, tx.init(params), params, key=KEY)
    expected, _ = tx.update(up, tx.init(params), params, key=KEY)
    for got, want in zip(jax.tree.leaves(out), jax.tree.leaves(expected), strict=True):
        assert got.dtype == jnp.bfloat16
        # Half a unit in the last of bfloat16's eight bits is 2**-9, relative.
        np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2.0**-8, atol=1e-6)


@pytest.mark.long
@each_name
def test_jit_vmap_and_scan_agree_with_a_plain_call(name):
    tx = MAKE[name]()
    rng = np.random.default_rng(3)
    stacks = jnp.asarray(rng.normal(size=(4, 2, 6)), jnp.float32)
    params = jnp.zeros(6)

    def update(g):
        return tx.update(g, tx.init(params), params, key=KEY)[0]

    plain = np.stack([update(g) for g in stacks])
    _, scanned = jax.lax.scan(
        lambda state, g: tx.update(g, state, params, key=KEY)[::-1], tx.init(params), stacks
    )
    for other in (jax.vmap(update)(stacks), jax.jit(jax.vmap(update))(stacks), scanned):
        np.testing.assert_allclose(other, plain, rtol=1e-5, atol=1e-5)  # other orders of rounding


@each_name
def test_gradients_that_are_not_stacked_are_an_error(name):
    tx = MAKE[name]()
    params = {"w": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match=r"not stacked: w has shape \[3, 2\]"):
        tx.update(params, tx.init(params), params, key=KEY)


@each_name
def test_missing_params_are_an_error(name):
    tx = MAKE[name]()
    with pytest.raises(ValueError, match="params is missing"):
        tx.update(jnp.ones((2, 3)), tx.init(jnp.ones(3)))
