"""The model of a sweep's cost counts what is there."""

import jax
import pytest

from benchmarks import cost_model, scaling
from modsync_jax.sweeps import _replicas
from modsync_jax.transform import ModSyncParams

SIZES = [(2, 20), (4, 33)]


def like(depth, width, method):
    mesh = _replicas.make_mesh()
    return scaling.trainer(depth, width, 8, mesh, "map", method=method).like()


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree)) / 8


@pytest.mark.parametrize(("depth", "width"), SIZES)
def test_weights_and_thresholds_are_counted(depth, width):
    params = like(depth, width, "modsync+dcgd").runs.params
    assert isinstance(params, ModSyncParams)
    assert cost_model.weights(depth, width) == size(params.weights)
    assert cost_model.thresholds(depth, width) == size(params.thresholds)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("depth", "width"), SIZES)
def test_what_is_kept_between_steps_is_counted(depth, width, masked):
    kept = like(depth, width, "modsync+dcgd" if masked else "dcgd")
    found = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)) / 8
    model = cost_model.state(depth, width, masked=masked)
    # Bytes: the key, counters (one for each layer of thresholds), scores, losses, measures' sums.
    assert 0 < found - model < 144


def test_arrays_are_rounded_up_to_lanes():
    # Kernels 2×50, 50×50 and 50×1, two biases of 50 and one of 1, all last axes to 128 but single
    # numbers; the last kernel lies as a row.
    assert cost_model.weights(2, 50, lane=128) == (2 + 50 + 1 + 2) * 128 + 1
    assert cost_model.thresholds(2, 50, lane=128) == 2 * (2 * 128 + 1)


def test_products_of_a_tiled_machine_are_those_of_the_next_tile():
    narrow, full = cost_model.flops(4, 50, tile=128), cost_model.flops(4, 128)
    assert cost_model.flops(4, 50) < narrow < full  # but for the elementwise part
    assert narrow == pytest.approx(full, rel=0.1)  # which is less than a tenth at 4×128


@pytest.mark.slow
def test_operations_and_memory_are_what_the_compiler_counts():
    """At a size that the model was not fitted at."""
    mesh = _replicas.make_mesh()
    one = jax.sharding.Mesh(mesh.devices[:1], mesh.axis_names)
    made = scaling.trainer(4, 96, 1, one, "map")
    row = scaling.counted(made, scaling.step(made)[0], 1)
    assert row["flops_of_model"] == pytest.approx(1, abs=0.02)
    assert row["work_of_model"] == pytest.approx(1, abs=0.15)  # what XLA fuses is not in the model
