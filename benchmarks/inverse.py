"""Inverse problems for the studies: a coefficient is unknown, and 200 values of the solution given.

They are made of the package's problems. `--problem=benchmarks/inverse.py:burgers` trains one.
"""

import dataclasses

import numpy as np

from modsync_jax import problems
from modsync_jax.problems import Problem

_VALUES = 200


def burgers() -> Problem:
    """Burgers' equation; its viscosity is 0.01/π, and the search starts at 0.05."""
    return _inverse("burgers", viscosity=0.05)


def heat() -> Problem:
    """The heat equation; its diffusivity is 0.4, and the search starts at 1."""
    return _inverse("heat", diffusivity=1.0)


def _inverse(name: str, **unknowns: float) -> Problem:
    """A problem of the package whose coefficients are unknown."""
    known = problems.get(name)
    corners = known.domain.grid((2,) * len(known.coordinates))
    low, high = corners.min(axis=0), corners.max(axis=0)
    points = np.random.default_rng(0).uniform(low, high, (_VALUES, len(low)))
    assert known.reference is not None
    measured = problems.data(points, known.reference(points))
    return dataclasses.replace(
        known,
        name=f"{name}_inverse",
        residual=known.residual.func,  # type: ignore[attr-defined]
        conditions={**known.conditions, "measurements": measured},
        coefficients={},
        unknowns=unknowns,
    )
