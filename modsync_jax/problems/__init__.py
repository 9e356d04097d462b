"""PDE problems: the literature's problems by name, and the parts for a problem of your own."""

from modsync_jax.problems._base import (
    GROUPINGS,
    RESIDUAL,
    Problem,
    Weighted,
    points_of,
    term_of,
    without_weights,
)
from modsync_jax.problems._conditions import (
    Condition,
    data,
    derivative,
    normal_derivative,
    periodic,
    read_data,
    robin,
    value,
)
from modsync_jax.problems._manufactured import manufactured
from modsync_jax.problems._registry import get, load, names
from modsync_jax.problems._unknowns import AnyUnknown, Unknown, UnknownField

__all__ = [
    "GROUPINGS",
    "RESIDUAL",
    "AnyUnknown",
    "Condition",
    "Problem",
    "Unknown",
    "UnknownField",
    "Weighted",
    "data",
    "derivative",
    "get",
    "load",
    "manufactured",
    "names",
    "normal_derivative",
    "periodic",
    "points_of",
    "read_data",
    "robin",
    "term_of",
    "value",
    "without_weights",
]
