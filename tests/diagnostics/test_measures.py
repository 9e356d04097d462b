"""Measures against direct computations in NumPy float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from modsync_jax import diagnostics, transform, value_and_objective_grads
from modsync_jax.diagnostics import Snapshot

NAMES = ("data", "left", "residual")
COUNTS = {"data": 7, "left": 5, "residual": 11}
POINTS = {
    n: np.random.default_rng(i).normal(size=(c, 2)) for i, (n, c) in enumerate(COUNTS.items())
}


def network():
    rng = np.random.default_rng(7)
    return {
        "b": jnp.asarray(0.1 * rng.normal(size=5)),
        "v": jnp.asarray(rng.normal(size=(2, 5))),
        "w": jnp.asarray(rng.normal(size=(5, 1))),
    }


def of_samples(weights, points):
    """Losses of single samples, [N]."""
    x = jnp.asarray(points)
    return jnp.square(
        (jnp.tanh(x @ weights["v"] + weights["b"]) @ weights["w"])[:, 0] - x[:, 0] ** 2
    )


def objectives():
    return {n: lambda w, n=n: of_samples(w, POINTS[n]).mean() for n in NAMES}


def snapshot(metric=None):
    weights = network()
    losses, grads = value_and_objective_grads(objectives())(weights)
    samples = {n: lambda w, n=n: of_samples(w, POINTS[n]) for n in NAMES}
    return Snapshot(weights, losses, grads, NAMES, samples, metric)


def rows(grads):
    """The gradients as vectors, [K, n]."""
    return np.concatenate(
        [np.asarray(g).reshape(len(NAMES), -1) for g in jax.tree.leaves(grads)], 1
    )


def flat(tree):
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_cosines_norms_and_alignment_are_those_of_the_vectors(x64):
    seen = snapshot()
    g = rows(seen.grads)
    found = diagnostics.cosines(seen)
    assert set(found) == {f"cosine/{a}~{b}" for a, b in itertools.combinations(NAMES, 2)}
    for (j, a), (k, b) in itertools.combinations(enumerate(NAMES), 2):
        np.testing.assert_allclose(found[f"cosine/{a}~{b}"], cosine(g[j], g[k]), rtol=1e-12)
    norms = np.linalg.norm(g, axis=1)
    np.testing.assert_allclose(
        diagnostics.norm_ratio(seen)["norm_ratio"], norms.max() / norms.min(), rtol=1e-12
    )
    units = g / norms[:, None]
    expected = 2 * np.linalg.norm(units.mean(0)) ** 2 - 1
    np.testing.assert_allclose(diagnostics.alignment(seen)["alignment"], expected, rtol=1e-12)


def test_the_alignment_of_two_gradients_is_their_cosine(x64):
    grads = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(2, 9)))}
    seen = Snapshot({"w": jnp.zeros(9)}, jnp.ones(2), grads, ("a", "b"))
    both = diagnostics.alignment(seen)["alignment"], diagnostics.cosines(seen)["cosine/a~b"]
    np.testing.assert_allclose(*both, rtol=1e-12)


def test_the_distance_from_stationarity_is_that_of_the_hull(x64):
    seen = snapshot()
    g = rows(seen.grads)
    found = scipy.optimize.minimize(
        lambda w: np.sum((w @ g) ** 2),
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14},
    )
    row = diagnostics.stationarity(seen)
    np.testing.assert_allclose(row["stationarity"], np.sqrt(found.fun), rtol=1e-5)  # of SLSQP
    largest = np.linalg.norm(g, axis=1).max()
    np.testing.assert_allclose(row["stationarity/relative"], row["stationarity"] / largest)
    opposed = {"w": jnp.array([[1.0, 0.0], [-2.0, 0.0]])}
    at_front = Snapshot({"w": jnp.zeros(2)}, jnp.ones(2), opposed, ("a", "b"))
    assert diagnostics.stationarity(at_front)["stationarity"] == pytest.approx(0, abs=1e-12)


def test_zero_gradients_have_no_direction(x64):
    grads = {"w": jnp.array([[0.0, 0.0], [3.0, 4.0]])}
    seen = Snapshot({"w": jnp.zeros(2)}, jnp.ones(2), grads, ("a", "b"))
    assert diagnostics.cosines(seen)["cosine/a~b"] == 0
    assert np.isinf(diagnostics.norm_ratio(seen)["norm_ratio"])
    nothing = seen._replace(grads={"w": jnp.zeros((2, 2))})
    assert diagnostics.stationarity(nothing)["stationarity/relative"] == 0


def test_layers_are_measured_apart(x64):
    seen = snapshot()
    row = diagnostics.by_layer(diagnostics.cosines)(seen)
    pairs = list(itertools.combinations(enumerate(NAMES), 2))
    assert len(row) == 3 * len(pairs)
    for leaf in "bvw":
        g = np.asarray(seen.grads[leaf]).reshape(3, -1)
        for (j, a), (k, b) in pairs:
            expected = cosine(g[j], g[k])
            np.testing.assert_allclose(row[f"layer_cosine/{a}~{b}/{leaf}"], expected, rtol=1e-12)


def test_a_metric_changes_the_products(x64):
    scales = jax.tree.map(
        lambda w: jnp.asarray(np.random.default_rng(w.size).uniform(0.1, 5.0, w.shape)), network()
    )
    seen = snapshot(lambda stack: jax.tree.map(lambda g, s: g * s, stack, scales))
    g, p = rows(seen.grads), flat(scales)
    row = diagnostics.in_metric(diagnostics.cosines)(seen)
    for (j, a), (k, b) in itertools.combinations(enumerate(NAMES), 2):
        product = g[j] * p @ g[k] / np.sqrt((g[j] * p @ g[j]) * (g[k] * p @ g[k]))
        np.testing.assert_allclose(row[f"metric_cosine/{a}~{b}"], product, rtol=1e-12)
    without = diagnostics.in_metric(diagnostics.cosines)(snapshot())
    assert set(without) == set(row) and all(np.isnan(value) for value in without.values())


@pytest.mark.long
def test_interactions_are_products_of_gradients_of_single_samples(x64):
    seen = snapshot()
    g = rows(seen.grads)
    every = []
    for name in NAMES:
        each = [
            flat(jax.grad(lambda w, p=p: of_samples(w, p[None])[0])(seen.weights))
            for p in POINTS[name]
        ]
        for k, other in enumerate(NAMES):
            if other == name:
                continue
            direction = jax.tree.map(lambda leaf, k=k: leaf[k], seen.grads)
            products = np.array([one @ g[k] for one in each])
            found = diagnostics.interactions(seen.samples[name], seen.weights, direction)
            np.testing.assert_allclose(found, products, rtol=1e-11, atol=1e-14)
            cosines = products / np.linalg.norm(each, axis=1) / np.linalg.norm(g[k])
            found = diagnostics.interaction_cosines(
                of_samples, jnp.asarray(POINTS[name]), seen.weights, direction, chunk=3
            )
            np.testing.assert_allclose(found, cosines, rtol=1e-11, atol=1e-14)
            every.append((f"interaction/{name}>{other}", np.abs(products)))
    middle = float(np.median(np.concatenate([p for _, p in every])))
    row = diagnostics.interaction(seen, middle)
    assert row.keys() == {name for name, _ in every}
    for name, products in every:
        np.testing.assert_allclose(row[name], np.mean(products > middle), rtol=1e-12)
    assert min(row.values()) > 0 and min(row.values()) < max(row.values())
    with pytest.raises(ValueError, match="single samples"):
        diagnostics.interaction(seen._replace(samples={}))


def test_named_measures_work_on_any_snapshot_under_jit(x64):
    weights = network()

    @jax.jit
    def measured(weights):
        losses, grads = value_and_objective_grads(objectives())(weights)
        samples = {n: lambda w, n=n: of_samples(w, POINTS[n]) for n in NAMES}
        seen = Snapshot(weights, losses, grads, NAMES, samples)
        return {name: measure(seen) for name, measure in diagnostics.MEASURES.items()}

    compiled = measured(weights)
    for name, measure in diagnostics.MEASURES.items():
        plain = measure(snapshot())
        assert plain.keys() == compiled[name].keys()
        for column, value in plain.items():
            assert value.shape == () and column.split("/")[0].startswith(name)
            # rounding in another order, which cancellation in nearly zero cosines amplifies
            np.testing.assert_allclose(compiled[name][column], value, rtol=1e-9, atol=1e-12)


# --- modules -------------------------------------------------------------------------------------


def thresholds():
    rng = np.random.default_rng(5)
    return {
        "b": None,
        "v": jnp.asarray(rng.uniform(0.2, 1.4, size=(3, 1, 5))),
        "w": jnp.asarray(rng.uniform(0.2, 1.4, size=(3, 1, 1))),
    }


def test_modularity_counts_the_supports(x64):
    weights, cuts = network(), thresholds()
    kept = diagnostics.supports(weights, cuts)
    assert kept["b"] is None
    masks = {n: np.abs(np.asarray(weights[n])) > np.asarray(cuts[n]) for n in "vw"}
    for name, mask in masks.items():
        np.testing.assert_array_equal(kept[name], mask)
    row = diagnostics.modularity(kept, NAMES)
    whole = np.concatenate([mask.reshape(3, -1) for mask in masks.values()], axis=1)
    for end, of in [
        ("", whole),
        ("/v", masks["v"].reshape(3, -1)),
        ("/w", masks["w"].reshape(3, -1)),
    ]:
        for (j, a), (k, b) in itertools.combinations(enumerate(NAMES), 2):
            union = np.sum(of[j] | of[k])
            expected = 1 - np.sum(of[j] & of[k]) / union if union else 0.0
            np.testing.assert_allclose(row[f"jaccard/{a}~{b}{end}"], expected, rtol=1e-12)
        np.testing.assert_allclose(row[f"single{end}"], np.mean(of.sum(0) == 1), rtol=1e-12)
    assert 0 < row["single"] < 1
    empty = jax.tree.map(jnp.zeros_like, kept)
    assert set(map(float, diagnostics.modularity(empty, NAMES).values())) == {0.0}


@pytest.mark.long
def test_ablation_cuts_what_the_other_objective_prunes(x64):
    weights, kept = network(), diagnostics.supports(network(), thresholds())
    row = diagnostics.ablation(objectives(), weights, kept, jax.random.key(0))
    for a, (k, b) in itertools.product(NAMES, enumerate(NAMES)):
        cut = {n: w if kept[n] is None else w * kept[n][k] for n, w in weights.items()}
        expected = objectives()[a](cut) / objectives()[a](weights)
        np.testing.assert_allclose(row[f"ablation/{a}|{b}"], expected, rtol=1e-12)
        assert row[f"ablation_random/{a}|{b}"] > 0
    all_kept = jax.tree.map(jnp.ones_like, kept)
    for value in diagnostics.ablation(objectives(), weights, all_kept, jax.random.key(0)).values():
        np.testing.assert_allclose(value, 1.0, rtol=1e-12)


def test_the_control_keeps_as_many_weights_of_each_layer(x64):
    """On a loss that counts them."""
    kept = {"a": jnp.arange(2 * 30).reshape(2, 30) % 5 == 0, "c": jnp.ones((2, 4), bool)}
    weights = {"a": jnp.ones(30), "c": jnp.ones(4)}
    count = {name: lambda w: jnp.sum(w["a"]) + 100 * jnp.sum(w["c"]) for name in ("x", "y")}
    row = diagnostics.ablation(count, weights, kept, jax.random.key(1), draws=3)
    for name in ("ablation/x|y", "ablation_random/x|y", "ablation_random/y|x"):
        np.testing.assert_allclose(row[name], 406 / 430, rtol=1e-12)


def test_thresholds_are_learnt_on_weights_that_stay(x64):
    """Against three steps by hand, with a batch of its own in each."""
    rng = np.random.default_rng(0)
    x, rate = jnp.asarray(rng.normal(size=(3, 8, 4))), 0.1
    weights = {"w": jnp.asarray(rng.uniform(0.3, 0.6, size=(4, 6)))}
    given = {
        "first": lambda w, x: jnp.mean((x[:, :2] @ w["w"][:2] - x[:, :1]) ** 2),
        "second": lambda w, x: jnp.mean((x[:, 2:] @ w["w"][2:] + x[:, 2:3]) ** 2),
    }
    kind = transform.thresholds(optax.sgd(rate), sparsity_weight=0.0)
    found = diagnostics.learnt_thresholds(given, weights, lambda n: x[n], 2, steps=3, kind=kind)
    rows = jnp.zeros((2, 1, 6))
    for step in range(3):

        def loss(rows, name, step=step):
            pair = transform.ModSyncParams(weights, {"w": rows})
            return given[name](transform.effective_weights(pair), x[step])

        slopes = [jax.grad(loss)(rows, name)[k] for k, name in enumerate(given)]
        rows = rows - rate * jnp.stack(slopes)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    np.testing.assert_allclose(found["w"], rows, rtol=1e-10)
