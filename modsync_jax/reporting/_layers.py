"""The weights of a network, layer by layer: their sizes, and the masks over them."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from modsync_jax.reporting._drawing import PALETTE, WIDTH
from modsync_jax.reporting._run import layer_label

_ACROSS = 6  # layers in a row


def layers(arrays: Mapping[str, NDArray], *, masked: bool) -> Figure:
    """Draws the sizes of each layer's weights and, below, the places where its mask keeps them.

    Args:
      arrays: the arrays of `layers.npz`: `layers` [L], their names; `edges` [B+1] of the logarithm
        of absolute weights; `kept` and `pruned` [L, B], counts; `mask/<i>` [a, b], the share of
        weights that are kept in blocks of the kernel, whose rows are inputs.
      masked: whether the method has masks; otherwise only sizes are drawn.
    """
    names, edges = [str(name) for name in arrays["layers"]], arrays["edges"]
    across = min(len(names), _ACROSS)
    blocks = -(-len(names) // across)
    rows = 1 + masked
    figure = Figure(figsize=(max(WIDTH * across / _ACROSS, 0.6 * WIDTH), 2.1 * rows * blocks + 0.4))
    panels = figure.subplots(rows * blocks, across, squeeze=False)
    for axis in panels.flat:
        axis.set_axis_off()
    for i, name in enumerate(names):
        block, column = divmod(i, across)
        axis = panels[rows * block, column]
        axis.set_axis_on()
        axis.set_title(layer_label(name), fontsize=10)
        pruned, kept = arrays["pruned"][i], arrays["kept"][i]
        if masked:
            axis.stairs(pruned, edges, fill=True, color=PALETTE[1], alpha=0.8, label="pruned")
        axis.stairs(
            pruned + kept, edges, baseline=pruned, fill=True, color=PALETTE[0], label="kept"
        )
        axis.set_yticks([])
        axis.set_xlim(*_filled(edges, (arrays["kept"] + arrays["pruned"]).sum(0)))
        axis.set_xlabel("log₁₀ |w|", fontsize=9)
        if masked:
            axis = panels[rows * block + 1, column]
            axis.set_axis_on()
            shown = {"cmap": "Blues", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
            mesh = axis.imshow(arrays[f"mask/{i}"], aspect="auto", **shown)
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel("outputs", fontsize=9)
            if not column:
                axis.set_ylabel("inputs", fontsize=9)
    if masked:
        handles = panels[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper left", ncols=2)
        figure.colorbar(mesh, ax=list(panels.flat), label="share of weights kept", aspect=40)
    return figure


def _filled(edges: NDArray, counts: NDArray) -> tuple[float, float]:
    """The range of the bins that are not empty."""
    bins = np.flatnonzero(counts)
    if not bins.size:
        return float(edges[0]), float(edges[-1])
    return float(edges[bins[0]]), float(edges[bins[-1] + 1])
