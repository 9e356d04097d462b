"""Mapping over replicas, and what several processes agree on, asked in one process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax.sweeps import _hosts, _replicas


@pytest.mark.parametrize(("backend", "strategy"), [("cpu", "map"), ("gpu", "vmap")])
def test_replicas_run_one_by_one_on_cpus_and_together_elsewhere(backend, strategy, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert _replicas.strategy_of("auto") == strategy
    assert [_replicas.strategy_of(name) for name in ("map", "vmap")] == ["map", "vmap"]


@pytest.mark.parametrize(("strategy", "loops"), [("map", True), ("vmap", False)])
def test_map_is_a_loop_on_each_device_and_vmap_is_none(strategy, loops):
    mapped = _replicas.over_replicas(lambda x, s: x @ x + s, _replicas.make_mesh(), strategy)
    values = jnp.arange(48.0).reshape(16, 3)
    program = str(jax.make_jaxpr(mapped)(values, jnp.ones(())))
    assert ("scan" in program or "while" in program) is loops
    found = jax.jit(mapped)(values, jnp.ones(()))
    np.testing.assert_array_equal(found, (values**2).sum(1) + 1)


@pytest.mark.skipif(jax.__version_info__ < (0, 7), reason="can't place arrays inside of shard_map")
@pytest.mark.parametrize("points", [3, 4])
def test_points_that_devices_can_not_share_evenly_stay_whole(points):
    mesh = _replicas.make_mesh(2)

    def function(x, _):
        return (_replicas.place_points(mesh, x) ** 2).sum()

    mapped = jax.jit(_replicas.over_replicas(function, mesh, "vmap"))
    values = np.arange(4.0 * points).reshape(4, points)
    np.testing.assert_array_equal(mapped(values, ()), (values**2).sum(1))
    shared = "sharding_constraint" in str(jax.make_jaxpr(mapped)(values, ()))
    assert shared is (points == 4)


def test_process_0_is_asked_and_any_process_can_stop_all(monkeypatch):
    """With a second process that sends zeros."""
    of_each = lambda value: np.stack([value, np.zeros_like(value)])  # noqa: E731
    monkeypatch.setattr(_hosts, "_of_each", of_each)
    assert _hosts.from_primary(lambda: {"step": 3}) == {"step": 3}
    assert _hosts.any_of(True) and not _hosts.any_of(False)
