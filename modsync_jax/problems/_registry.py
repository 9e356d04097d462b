"""Problems by name, and problems from a user's own file."""

import dataclasses
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax import Array

from modsync_jax._names import lookup, unknown
from modsync_jax.calculus import Field
from modsync_jax.problems import _unknowns as unknowns
from modsync_jax.problems import (
    allen_cahn,
    allen_cahn_nd,
    black_scholes,
    burgers,
    cavity_stream,
    cavity_velocity,
    convection,
    hamilton_jacobi_bellman,
    heat,
    heat_nd,
    helmholtz2d,
    helmholtz3d,
    klein_gordon2d,
    klein_gordon3d,
    korteweg_de_vries,
    poisson1d,
    poisson2d,
    poisson_nd,
    reaction,
    wave,
)
from modsync_jax.problems._base import Family, Problem
from modsync_jax.problems._explain import explained
from modsync_jax.problems._unknowns import AnyUnknown

_PROBLEMS: Mapping[str, Callable[..., Problem]] = {
    "allen_cahn": allen_cahn.problem,
    "allen_cahn_nd": allen_cahn_nd.problem,
    "black_scholes": black_scholes.problem,
    "burgers": burgers.problem,
    "cavity_stream": cavity_stream.problem,
    "cavity_velocity": cavity_velocity.problem,
    "convection": convection.problem,
    "hamilton_jacobi_bellman": hamilton_jacobi_bellman.problem,
    "heat": heat.problem,
    "heat_nd": heat_nd.problem,
    "helmholtz2d": helmholtz2d.problem,
    "helmholtz3d": helmholtz3d.problem,
    "klein_gordon2d": klein_gordon2d.problem,
    "klein_gordon3d": klein_gordon3d.problem,
    "korteweg_de_vries": korteweg_de_vries.problem,
    "poisson1d": poisson1d.problem,
    "poisson2d": poisson2d.problem,
    "poisson_nd": poisson_nd.problem,
    "reaction": reaction.problem,
    "wave": wave.problem,
}


def names() -> tuple[str, ...]:
    """Returns the names of the problems that come with the package."""
    return tuple(sorted(_PROBLEMS))


def get(
    problem: str | Callable[..., Problem], /, **coefficients: float | Array | AnyUnknown | str
) -> Problem:
    """Returns a problem by its name, `"burgers"`, or from a user's file, `"my_problem.py:heat"`.

    Args:
      problem: the problem's name, a location as in `load`, or a function of coefficients that
        returns a problem.
      **coefficients: values that replace the problem's own, such as `viscosity=0.02`. They may be
        traced, so that the problem's losses can be differentiated with respect to them or mapped
        over them. An `Unknown`, or its text, makes a coefficient one that training finds, in the
        equation and in the conditions. Its bounds are within the range where the problem is valid.

    Raises:
      ValueError: no such problem or coefficient, with the nearest name in the message; or a
        coefficient outside its range. For files see `load`.

    Example:
      >>> print(get("burgers", viscosity=0.02).coefficients)
      {'viscosity': 0.02}
      >>> from modsync_jax.problems import Unknown
      >>> inverse = get("burgers", viscosity=Unknown(0.05))
      >>> print(inverse.trained["viscosity"])
      unknown(start=0.05,low=0.001,high=1.0)
    """
    if callable(problem):
        return _make(getattr(problem, "__name__", "the problem"), problem, coefficients)
    name = problem
    if ":" in name or name.endswith(".py"):
        return load(name, **coefficients)
    return _make(name, lookup("problem", name, _PROBLEMS), coefficients)


def load(location: str, /, **coefficients: float | Array | AnyUnknown | str) -> Problem:
    """Executes a Python file and returns the problem of this name in it.

    Args:
      location: `"path/to/file.py:name"`, where the name is a `Problem` or a function that returns
        one; the function's arguments are coefficients.
      **coefficients: arguments for the function.

    Raises:
      ValueError: no such file, no such name in it, a name of something other than a problem, or
        coefficients that do not fit.
    """
    path, _, name = location.rpartition(":")
    if not path or not name:
        raise ValueError(f"a problem in a file is given as 'my_problem.py:name', got {location!r}")
    spec = importlib.util.spec_from_file_location(f"problem_file_{Path(path).stem}", path)
    if not Path(path).is_file() or spec is None or spec.loader is None:
        raise ValueError(f"no Python file {path!r} to load the problem {name!r} from")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look up their module
    try:
        spec.loader.exec_module(module)
    except ValueError:
        raise  # from a problem in the file; its message is clear already
    except Exception as error:
        raise ValueError(f"{path} can't be loaded: {explained(error, 'nothing')}") from None
    if not hasattr(module, name):
        candidates = [
            key
            for key, item in vars(module).items()
            if isinstance(item, Problem) or getattr(item, "__module__", None) == spec.name
        ]
        raise unknown(f"name in {path}", name, candidates)
    found = getattr(module, name)
    if isinstance(found, Problem) and coefficients:
        raise ValueError(
            f"{name!r} in {path} is a Problem already and takes no coefficients; make it a function"
            f" of {', '.join(coefficients)} that returns one"
        )
    problem = _make(name, found, coefficients) if callable(found) else found
    if not isinstance(problem, Problem):
        raise ValueError(f"{name!r} in {path} is no Problem but {type(problem).__name__}")
    return problem


def _make(name: str, function: Callable[..., Any], coefficients: Mapping[str, Any]) -> Any:
    """Calls a problem's function with coefficients, after checking their names."""
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    signature = inspect.signature(function)
    parameters = {n: p for n, p in signature.parameters.items() if p.kind in by_keyword}
    for given in coefficients:
        if given not in parameters:
            raise unknown(f"coefficient of {name}", given, parameters)
    for known, parameter in parameters.items():
        if parameter.default is parameter.empty and known not in coefficients:
            raise ValueError(f"{name} needs a value for its coefficient {known!r}")
    values = {n: unknowns.read(n, v) if isinstance(v, str) else v for n, v in coefficients.items()}
    searched = {n: v for n, v in values.items() if isinstance(v, AnyUnknown)}
    fixed = {n: v for n, v in values.items() if n not in searched}
    return _searched(name, partial(function, **fixed), searched) if searched else function(**fixed)


def _searched(
    name: str, make: Callable[..., Problem], searched: Mapping[str, AnyUnknown]
) -> Problem:
    """Returns the problem in which coefficients are unknown."""
    try:
        starts = {n: unknowns.first(u) for n, u in searched.items()}
        start = make(**starts)
        found = {n: unknowns.bounded(u, starts[n]) for n, u in searched.items()}
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    numbers = {n: v for n, v in starts.items() if not isinstance(v, Field)}

    def trace(values: Mapping[str, Array]) -> None:
        make(**{**starts, **values})

    try:
        jax.eval_shape(trace, numbers)
    except TypeError as error:  # the errors of converting a tracer to a number
        raise ValueError(
            f"{', '.join(numbers)} of {name} can't be unknown: {explained(error, 'a number')}; an "
            "unknown may stand in equations and conditions, but not in the domain"
        ) from None
    true = unknowns.truths(found)
    return dataclasses.replace(
        start,
        unknowns={**start.unknowns, **found},
        family=Family(make, tuple(found), start),
        coefficients={**start.coefficients, **found},
        reference=None if true is None else make(**true).reference,
    )
