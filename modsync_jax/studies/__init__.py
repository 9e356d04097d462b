"""The study of the ModSync paper's claims: its runs, tables and figures.

A study is a set of cells. A cell is one method on one problem in networks of one width: its
learning rate is chosen by trials, then it is trained with several seeds. docs/studies/protocol.md
has the rules.
"""

from modsync_jax.studies._about import about, processor
from modsync_jax.studies._cells import RATES, TRIAL_SEED, Cell, Scale, Variant, train_cell
from modsync_jax.studies._evidence import (
    Ratio,
    at_equal_time,
    compared,
    compared_everywhere,
    corrected,
    failing,
    mean_error,
)
from modsync_jax.studies._plan import (
    CANDIDATES,
    CHOICES,
    CONTROLS,
    PRESETS,
    SCALES,
    SETUPS,
    VARIANTS,
    WHAT,
    cells,
    variants,
)
from modsync_jax.studies._results import Results
from modsync_jax.studies._write import write

__all__ = [
    "CANDIDATES",
    "CHOICES",
    "CONTROLS",
    "PRESETS",
    "RATES",
    "SCALES",
    "SETUPS",
    "TRIAL_SEED",
    "VARIANTS",
    "WHAT",
    "Cell",
    "Ratio",
    "Results",
    "Scale",
    "Variant",
    "about",
    "at_equal_time",
    "cells",
    "compared",
    "compared_everywhere",
    "corrected",
    "failing",
    "mean_error",
    "processor",
    "train_cell",
    "variants",
    "write",
]
