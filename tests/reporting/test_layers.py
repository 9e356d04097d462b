"""The figure of a network's layers, against the arrays that it draws."""

import numpy as np
import pytest
from matplotlib.patches import StepPatch

from modsync_jax.reporting import _layers, _run


def _stairs(axis):
    return {patch.get_label(): patch for patch in axis.patches if isinstance(patch, StepPatch)}


@pytest.mark.parametrize("count", [3, 8])
def test_sizes_and_masks_are_drawn_layer_by_layer(make_run, count):
    arrays = _run.read(make_run(layers=count)).layers
    figure = _layers.layers(arrays, masked=True)
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert list(panels) == [f"layer {i}" for i in range(1, count + 1)]
    for i, axis in enumerate(panels.values()):
        stairs = _stairs(axis)
        np.testing.assert_array_equal(stairs["pruned"].get_data().values, arrays["pruned"][i])
        kept = stairs["kept"].get_data()
        np.testing.assert_array_equal(kept.values - kept.baseline, arrays["kept"][i])
        assert axis.get_xlim() == (-3, 0)  # the bins that are not empty
    masks = [image.get_array() for axis in figure.axes for image in axis.get_images()]
    assert len(masks) == count
    np.testing.assert_array_equal(masks[-1], arrays[f"mask/{count - 1}"])


def test_without_masks_only_sizes_are_drawn(make_run):
    figure = _layers.layers(_run.read(make_run()).layers, masked=False)
    assert not any(axis.get_images() for axis in figure.axes)
    assert set(_stairs(figure.axes[0])) == {"kept"}
