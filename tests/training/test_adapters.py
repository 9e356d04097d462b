"""Runs with per-loss adapters: phases, resume and loading."""

import json

import jax
import numpy as np
import pytest

import modsync_jax
from modsync_jax import problems
from modsync_jax.loss_indexed import LossIndexed
from modsync_jax.training._state import weights_of

SETTINGS = {
    "width": 6,
    "depth": 2,
    "points": {"residual": 32},
    "chunk": 5,
    "eval_every": 10,
    "checkpoint_every": 10,
    "progress": False,
}
POINTS = np.linspace(0.0, 1.0, 7)[:, None]


def poisson():
    return problems.get("poisson1d", frequency=3.0)


@pytest.mark.long
@pytest.mark.parametrize("method", ["adapters(rank=2)+lra", "modsync+adapters+dcgd"])
def test_a_run_with_adapters_resumes_to_the_bit_folds_and_loads(method, tmp_path, x64):
    then = "ssbroyden:10"
    whole = modsync_jax.solve(
        poisson(), method, steps=20, then=then, output_dir=tmp_path / "whole", **SETTINGS
    )
    modsync_jax.solve(poisson(), method, steps=20, output_dir=tmp_path / "parts", **SETTINGS)
    parts = modsync_jax.solve(
        poisson(), method, steps=20, then=then, output_dir=tmp_path / "parts", resume=True,
        **SETTINGS,
    )  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, parts.trained, whole.trained)
    assert parts.metrics == whole.metrics
    assert isinstance(whole.trained, LossIndexed) and not isinstance(whole.params, LossIndexed)
    first = modsync_jax.solve(poisson(), method, steps=20, **SETTINGS)
    moved = jax.tree.leaves(first.trained.own)
    assert any(np.asarray(leaf).any() for leaf in moved)
    loaded = modsync_jax.load(tmp_path / "whole")
    np.testing.assert_array_equal(loaded(POINTS), whole(POINTS))
    columns = {name for name in whole.metrics[0] if name.startswith("adapter/")}
    layers = ("Dense_0", "Dense_1", "Dense_2")
    owners = ("boundary", "residual")
    assert columns == {f"adapter/{k}/{layer}/kernel" for k in owners for layer in layers}
    of_steps, settled = whole.metrics[2], whole.metrics[-1]
    assert all(of_steps[name] > 0 for name in columns)
    assert all(settled[name] == 0 for name in columns)  # folded into the weights
    assert ("keep" in settled) == method.startswith("modsync")
    count = sum(leaf.size for leaf in jax.tree.leaves(weights_of(whole.trained)))
    assert json.loads((tmp_path / "whole" / "result.json").read_text())["parameters"] == count
