"""The style of all figures, and their files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

WIDTH = 10.0  # inches
DPI = 150

# Okabe and Ito's colours without their yellow, which vanishes on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLE = {
    "axes.grid": True,
    "axes.prop_cycle": cycler(linestyle=["-", "--", ":"]) * cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.xmargin": 0.02,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "font.size": 10.5,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,
}


def save(make: Callable[[], Figure], stem: str | os.PathLike, *, pdf: bool = True) -> Path:
    """Makes a figure in the reports' style and writes `<stem>.png` and, if asked, `<stem>.pdf`.

    Returns:
      The path of the PNG.
    """
    path = Path(stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = make()
        png = path.with_name(f"{path.name}.png")
        figure.savefig(png, dpi=DPI)
        if pdf:
            figure.set_layout_engine("none")  # the PNG has found the layout, which is the slow part
            # Same run, same bytes.
            same = {"CreationDate": None}
            figure.savefig(path.with_name(f"{path.name}.pdf"), dpi=DPI, metadata=same)
    return png


def limits(*arrays: NDArray) -> tuple[float, float]:
    """The smallest and the largest finite value; 0 and 1 if there is none."""
    finite = np.concatenate([array[np.isfinite(array)] for array in arrays])
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def colour_bar(axis: Axes, colours: ScalarMappable, **style: Any) -> None:
    """Draws the scale of colours beside a panel, exactly as high as the panel."""
    beside = axis.inset_axes((1.04, 0, 0.05, 1))
    beside.grid(False)
    axis.figure.colorbar(colours, cax=beside, **style)
