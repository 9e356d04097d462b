"""PDE problems: the literature's problems by name, and the parts for a problem of your own."""

from modsync_jax.problems._base import GROUPINGS, Problem, Weighted, without_weights
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
from modsync_jax.problems._unknowns import AnyUnknown, Unknown, UnknownField, labelled

__all__ = [
    "GROUPINGS",
    "AnyUnknown",
    "Condition",
    "Problem",
    "Unknown",
    "UnknownField",
    "Weighted",
    "data",
    "derivative",
    "get",
    "labelled",
    "load",
    "manufactured",
    "names",
    "normal_derivative",
    "periodic",
    "read_data",
    "robin",
    "value",
    "without_weights",
]
