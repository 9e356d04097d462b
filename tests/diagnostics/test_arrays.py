"""Histograms, tangent kernels and slices, against direct computations in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from modsync_jax import diagnostics, value_and_objective_grads
from modsync_jax.diagnostics import Snapshot


def network():
    rng = np.random.default_rng(3)
    return {"v": jnp.asarray(rng.normal(size=(2, 5))), "w": jnp.asarray(rng.normal(size=(5, 1)))}


def residuals(weights, points):
    x = jnp.asarray(points)
    return (jnp.tanh(x @ weights["v"]) @ weights["w"])[:, 0] - x[:, 0] ** 2


POINTS = {n: np.random.default_rng(i).normal(size=(c, 2)) for i, (n, c) in enumerate(
    {"data": 7, "residual": 19}.items())}  # fmt: skip


def objectives():
    return {n: lambda w, scale, n=n: scale * jnp.mean(residuals(w, POINTS[n]) ** 2) for n in POINTS}


def snapshot():
    losses, grads = value_and_objective_grads(objectives())(network(), 3.0)
    return Snapshot(network(), losses, grads, tuple(POINTS))


def test_histograms_count_the_entries_of_each_gradient_by_their_size(x64):
    seen = snapshot()
    seen = seen._replace(grads={**seen.grads, "v": seen.grads["v"].at[0, 0, 0].set(0.0)})
    found, edges = diagnostics.histograms(seen), np.asarray(diagnostics.EDGES)
    assert set(found) == {f"{n}/{leaf}" for n in POINTS for leaf in "vw"}
    for k, name in enumerate(POINTS):
        for leaf in "vw":
            entries = np.abs(np.asarray(seen.grads[leaf][k])).ravel()
            logs = np.clip(np.log10(np.maximum(entries, 1e-300)), edges[0], edges[-1])
            np.testing.assert_array_equal(found[f"{name}/{leaf}"], np.histogram(logs, edges)[0])
    assert found["data/v"][0] == 1  # the zero


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_tangent_kernel_is_that_of_the_jacobian(x64, chunk):
    flat, unravel = ravel_pytree(network())
    points = POINTS["residual"]
    jacobian = np.asarray(jax.jacfwd(lambda w: residuals(unravel(w), points))(flat))
    found = diagnostics.tangent_kernel(lambda w: residuals(w, points), network(), chunk=chunk)
    np.testing.assert_allclose(found, jacobian @ jacobian.T, rtol=1e-10, atol=1e-12)


def test_slices_are_the_losses_downhill_of_each_objective(x64):
    seen = snapshot()
    steps, found = diagnostics.slices(objectives(), seen, 3.0, nearest=0.01, radius=0.1, count=5)
    np.testing.assert_allclose(steps, [-0.1, -0.01, 0, 0.01, 0.1], rtol=1e-12)
    weights, unravel = ravel_pytree(network())
    for k in range(2):
        grad = ravel_pytree(jax.tree.map(lambda g, k=k: g[k], seen.grads))[0]
        for i, step in enumerate(np.asarray(steps)):
            there = weights - step * np.linalg.norm(weights) * grad / np.linalg.norm(grad)
            expected = [objectives()[n](unravel(there), 3.0) for n in POINTS]
            np.testing.assert_allclose(found[k, i], expected, rtol=1e-12)
    np.testing.assert_allclose(found[:, 2], np.tile(seen.losses, (2, 1)), rtol=1e-12)
    assert all(found[k, 3, k] < found[k, 1, k] for k in range(2))  # downhill
