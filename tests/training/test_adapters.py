"""Runs with what is trained beside the weights: phases, resume and loading."""

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
    "report": False,
}
POINTS = np.linspace(0.0, 1.0, 7)[:, None]


def poisson():
    return problems.get("poisson1d", frequency=3.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["magnitude(keep=0.5,steps=10,every=5)", "dropconnect(rate=0.2)"])
def test_a_run_with_masks_resumes_to_the_bit_and_loads(name, tmp_path, x64):
    settings = {**SETTINGS, "method": f"{name}+dcgd", "steps": 20}
    folder, then = tmp_path / "parts", "ssbroyden:10"
    whole = modsync_jax.solve(poisson(), then=then, **settings)
    modsync_jax.solve(poisson(), output_dir=folder, **settings)
    parts = modsync_jax.solve(poisson(), then=then, output_dir=folder, resume=True, **settings)
    jax.tree.map(np.testing.assert_array_equal, parts.trained, whole.trained)
    np.testing.assert_array_equal(modsync_jax.load(folder)(POINTS), whole(POINTS))
    kernel = weights_of(whole.trained)["network"]["params"]["Dense_1"]["kernel"]
    cut = 18 if name.startswith("magnitude") else 0  # of 36, which stay cut in the second phase
    assert np.sum(np.asarray(kernel) == 0) == cut


@pytest.mark.long
def test_a_run_with_adapters_resumes_to_the_bit_folds_and_loads(tmp_path, x64):
    settings = {**SETTINGS, "method": "modsync+adapters(rank=2)+dcgd", "steps": 20}
    folder, then = tmp_path / "parts", "ssbroyden:10"
    whole = modsync_jax.solve(poisson(), then=then, **settings)
    first = modsync_jax.solve(poisson(), output_dir=folder, **settings)
    parts = modsync_jax.solve(poisson(), then=then, output_dir=folder, resume=True, **settings)
    jax.tree.map(np.testing.assert_array_equal, parts.trained, whole.trained)
    assert parts.result["errors"] == whole.result["errors"]
    assert isinstance(whole.trained, LossIndexed) and not isinstance(whole.params, LossIndexed)
    np.testing.assert_array_equal(modsync_jax.load(folder)(POINTS), whole(POINTS))
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(first.trained.own["adapters"]))
    columns = {name for name in whole.metrics[0] if name.startswith("adapter/")}
    layers, owners = ("Dense_0", "Dense_1", "Dense_2"), ("boundary", "residual")
    assert columns == {f"adapter/{k}/{layer}/kernel" for k in owners for layer in layers}
    assert all(whole.metrics[2][name] > 0 for name in columns)
    assert all(whole.metrics[-1][name] == 0 for name in columns)  # folded into the weights
    assert "keep" in whole.metrics[-1]
    count = sum(leaf.size for leaf in jax.tree.leaves(weights_of(whole.trained)))
    assert whole.result["parameters"] == count
