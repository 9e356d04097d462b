"""A sweep's programs compile for a pod of 256 TPU chips, on a machine without one.

Memory and operations of each are printed: pytest -s.
"""

import re

import jax
import pytest

from benchmarks import cost_model, scaling
from modsync_jax import methods
from modsync_jax.sweeps import _replicas

pytestmark = pytest.mark.tpu_compile
CHIPS = 256
COLLECTIVE = re.compile(r"all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute")


def compiled(replicas, point_devices=1, depth=3, width=50, **settings):
    """The compiled steps, and what XLA says of them for each replica."""
    mesh = scaling.tpu_mesh(point_devices)
    made = scaling.trainer(depth, width, replicas, mesh, "vmap", **settings)
    steps, seconds = scaling.step(made)
    row = scaling.counted(made, steps, replicas // mesh.shape["replicas"])
    print(
        f"\n{made.group.config.method} {depth}x{width}, {replicas} replicas, {point_devices} chips "
        f"each: {row['flops'] / 1e6:.1f} MFLOP a step and replica, {row['bytes_needed'] / 1e6:.1f} "
        f"MB a chip; compiled in {seconds:.0f} s"
    )
    return steps, row


@pytest.mark.parametrize(
    ("replicas", "depth", "width"), [(4096, 3, 50), (CHIPS, 5, 128), (CHIPS, 5, 512)]
)
def test_the_steps_of_a_sweep_compile_without_a_word_between_chips(replicas, depth, width):
    steps, row = compiled(replicas, depth=depth, width=width)
    # Of a step the model leaves out what is done once per weight: 2% at most at these sizes.
    assert row["flops_of_model"] == pytest.approx(1, abs=0.05)
    assert row["bytes_needed"] < cost_model.MACHINES["TPU v5e"].memory
    assert not COLLECTIVE.search(steps.as_text())


def test_chips_share_the_points_of_a_replica():
    steps, row = compiled(1024, point_devices=4)
    # A quarter of the products each; the conditions, 126 of 1406 points, may be whole on each.
    assert 0.25 <= row["flops_of_model"] < 0.35
    assert COLLECTIVE.search(steps.as_text())


@pytest.mark.parametrize("method", methods.names())
def test_every_method_compiles(method):
    compiled(CHIPS, depth=2, width=8, points={"residual": 128}, method=method)


def test_what_surrounds_the_steps_compiles():
    """The state before the first step, and a row of the metrics."""
    made = scaling.trainer(3, 50, CHIPS, scaling.tpu_mesh(), "vmap")
    each = made._placed((made._numbers, made._own))
    common, row = jax.eval_shape(lambda: (made._common, 0))
    jax.jit(made._mapped(made._init)).lower(each, common).compile()
    evaluate = _replicas.over_replicas(made._evaluate, made.mesh, "map")
    jax.jit(evaluate).lower((made.like(), *each), (common, row)).compile()
