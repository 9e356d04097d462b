"""What a watched training says, against direct computations in NumPy float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import diagnostics
from modsync_jax.diagnostics import Snapshot

NAMES = ("a", "b", "c")
PAIRS = [f"{one}~{other}" for one, other in itertools.combinations(NAMES, 2)]


def batches(count, *, seed=0):
    """Stacked gradients of `count` batches that follow each other slowly, [count, K, n]."""
    rng = np.random.default_rng(seed)
    grads = np.cumsum(rng.normal(size=(count, len(NAMES), 4)), axis=0) + rng.normal(size=4)
    return grads * np.array([1.0, 30.0, 1e-3])[:, None]


def snapshot(grads):
    return Snapshot({"w": jnp.zeros(4)}, jnp.zeros(len(NAMES)), {"w": jnp.asarray(grads)}, NAMES)


def watched(watch, grads, sums=None, every=5):
    sums = watch.init(snapshot(grads[0])) if sums is None else sums

    def step(sums, numbered):
        index, batch = numbered
        return watch.update(sums, snapshot(batch), index % every == 0), None

    return jax.lax.scan(step, sums, (jnp.arange(len(grads)), jnp.asarray(grads)))[0]


def cosines(grads):
    """[count, P]."""
    units = grads / np.linalg.norm(grads, axis=2, keepdims=True)
    gramians = units @ np.swapaxes(units, 1, 2)
    return np.stack([gramians[:, j, k] for j, k in itertools.combinations(range(3), 2)], axis=1)


def longest(flags):
    return max((len(list(run)) for flag, run in itertools.groupby(flags) if flag), default=0)


def test_a_row_says_what_the_batches_since_the_one_before_say(x64):
    watch, grads = diagnostics.watch(), batches(40)
    row, sums = watch.row(watched(watch, grads[:17]), NAMES)
    second, _ = watch.row(watched(watch, grads[17:], sums), NAMES)
    for found, part in ((row, cosines(grads[:17])), (second, cosines(grads[17:]))):
        assert found["batches"] == len(part)
        for name, cosine in zip(PAIRS, part.T, strict=True):
            np.testing.assert_allclose(found[f"cosine/{name}"], cosine.mean(), atol=1e-12)
            np.testing.assert_allclose(found[f"spread/{name}"], cosine.std(), atol=1e-12)
            np.testing.assert_allclose(found[f"opposed/{name}"], (cosine < 0).mean())
            lagged = np.sum((cosine[1:] - cosine[0]) * (cosine[:-1] - cosine[0])) / (len(part) - 1)
            expected = (lagged - (cosine.mean() - cosine[0]) ** 2) / cosine.var()
            found_here = found[f"autocorrelation/{name}"]
            np.testing.assert_allclose(found_here, np.clip(expected, -1, 1), atol=1e-9)
    assert any(0 < row[f"opposed/{name}"] < 1 for name in PAIRS)


def test_a_stretch_goes_on_over_rows():
    watch, sums, seen, grads = diagnostics.watch(), None, [], batches(60, seed=3)
    for part in np.split(grads, 6):
        row, sums = watch.row(watched(watch, part, sums), NAMES)
        seen.append([int(row[f"stretch/{name}"]) for name in PAIRS])
    expected = [longest(column < 0) for column in cosines(grads).T]
    assert np.max(seen, axis=0).tolist() == expected
    assert max(expected) > 10  # one that more than one row sees


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_autocorrelation_tells_lasting_conflict_from_noise(memory):
    """Cosines of an autoregressive process with a known correlation."""
    rng, angles, count = np.random.default_rng(5), [0.0], 4000
    for noise in rng.normal(size=count - 1):
        angles.append(memory * angles[-1] + 0.1 * noise)
    angles = np.pi / 2 + np.array(angles)
    grads = np.zeros((count, 3, 4))
    grads[:, :, 0], grads[:, 1, 0], grads[:, 1, 1] = 1.0, np.cos(angles), np.sin(angles)
    watch = diagnostics.watch()
    row, _ = watch.row(watched(watch, grads), NAMES)
    # Three standard errors of an estimate from 4,000 batches.
    np.testing.assert_allclose(row["autocorrelation/a~b"], memory, atol=3 / np.sqrt(count))
    assert row["autocorrelation/a~c"] == 0  # cosines that do not change


def test_small_changes_of_large_cosines_do_not_drown_in_rounding():
    rng, count = np.random.default_rng(1), 500
    angles = 0.1 + 1e-3 * np.cumsum(rng.normal(size=count)) / 20
    grads = np.zeros((count, 3, 4))
    grads[:, :, 0], grads[:, 1, 0], grads[:, 1, 1] = 1.0, np.cos(angles), np.sin(angles)
    watch = diagnostics.watch()
    row, _ = watch.row(watched(watch, grads.astype(np.float32)), NAMES)
    assert row["autocorrelation/a~b"] > 0.9  # a random walk


def test_measures_are_means_over_the_batches_in_which_they_are_taken(x64):
    measures = (diagnostics.norm_ratio, diagnostics.stationarity)
    watch, grads = diagnostics.watch(*measures), batches(23)
    row, sums = watch.row(watched(watch, grads), NAMES)
    for column in ("norm_ratio", "stationarity", "stationarity/relative"):
        taken = [{k: v for m in measures for k, v in m(snapshot(g)).items()} for g in grads[::5]]
        expected = np.mean([one[column] for one in taken])
        np.testing.assert_allclose(row[column], expected, rtol=1e-12)
    assert all(total == 0 for total in sums.measured.values())


def test_measures_of_layers_are_of_each_layer_s_gradients(x64):
    measure, grads = diagnostics.by_layer(diagnostics.norm_ratio), batches(5)
    split = [snapshot(g)._replace(grads={"u": g[:, :1], "v": g[:, 1:]}) for g in grads]
    watch = diagnostics.watch(measure)
    row, _ = watch.row(watch.update(watch.init(split[0]), split[0], jnp.array(True)), NAMES)
    for layer, of in (("u", grads[0][:, :1]), ("v", grads[0][:, 1:])):
        lengths = np.linalg.norm(of, axis=1)
        expected = lengths.max() / lengths.min()
        np.testing.assert_allclose(row[f"layer_norm_ratio/{layer}"], expected, rtol=1e-12)


def test_a_measure_of_ones_own_needs_no_more_than_its_function():
    watch, grads = diagnostics.watch(lambda seen: {"own/count": len(seen.names)}), batches(7)
    row, _ = watch.row(watched(watch, grads), NAMES)
    assert row["own/count"] == 3


def test_measures_are_taken_in_sampled_batches_alone():
    """By a count of calls on the host, since a mean can't tell."""
    calls = []

    def counting(seen):
        jax.debug.callback(lambda: calls.append(1))
        return {"own": jnp.zeros(())}

    watched(diagnostics.watch(counting), batches(23))
    jax.effects_barrier()
    assert len(calls) == 5
