"""Figures and reports of runs, and comparisons of several runs, from their files alone.

This package reads the files of a run (`config.json`, `metrics.csv`, `result.json`, `solution.npz`,
`layers.npz`) and knows nothing of its training. It needs NumPy and Matplotlib, not JAX.
"""

from modsync_jax.reporting._comparison import as_text, write_comparison
from modsync_jax.reporting._diagnosis import diagnosis_markdown, write_diagnosis
from modsync_jax.reporting._drawing import save as save_figure
from modsync_jax.reporting._fields import draw_solution
from modsync_jax.reporting._ranking import spread
from modsync_jax.reporting._report import write_report
from modsync_jax.reporting._run import ERROR_KINDS, in_order, measured, unknowns
from modsync_jax.reporting._sweep import (
    as_table,
    configurations,
    draw_axis,
    evaluations,
    write_sweep,
)

__all__ = [
    "ERROR_KINDS",
    "as_table",
    "as_text",
    "configurations",
    "diagnosis_markdown",
    "draw_axis",
    "draw_solution",
    "evaluations",
    "in_order",
    "measured",
    "save_figure",
    "spread",
    "unknowns",
    "write_comparison",
    "write_diagnosis",
    "write_report",
    "write_sweep",
]
