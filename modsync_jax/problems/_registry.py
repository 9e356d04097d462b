"""Problems by name, and problems from a user's own file."""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jax import Array

from modsync_jax._names import lookup, unknown
from modsync_jax.problems import (
    allen_cahn,
    burgers,
    cavity_stream,
    cavity_velocity,
    convection,
    heat,
    helmholtz2d,
    helmholtz3d,
    klein_gordon2d,
    klein_gordon3d,
    korteweg_de_vries,
    poisson1d,
    poisson2d,
    reaction,
    wave,
)
from modsync_jax.problems._base import Problem
from modsync_jax.problems._explain import explained

_PROBLEMS: Mapping[str, Callable[..., Problem]] = {
    "allen_cahn": allen_cahn.problem,
    "burgers": burgers.problem,
    "cavity_stream": cavity_stream.problem,
    "cavity_velocity": cavity_velocity.problem,
    "convection": convection.problem,
    "heat": heat.problem,
    "helmholtz2d": helmholtz2d.problem,
    "helmholtz3d": helmholtz3d.problem,
    "klein_gordon2d": klein_gordon2d.problem,
    "klein_gordon3d": klein_gordon3d.problem,
    "korteweg_de_vries": korteweg_de_vries.problem,
    "poisson1d": poisson1d.problem,
    "poisson2d": poisson2d.problem,
    "reaction": reaction.problem,
    "wave": wave.problem,
}


def names() -> tuple[str, ...]:
    """Returns the names of the problems that come with the package."""
    return tuple(sorted(_PROBLEMS))


def get(name: str, /, **coefficients: float | Array) -> Problem:
    """Returns a problem by its name, `"burgers"`, or from a user's file, `"my_problem.py:heat"`.

    Args:
      name: the problem's name, or a location as in `load`.
      **coefficients: values that replace the problem's own, such as `viscosity=0.02`. They may be
        traced, so that the problem's losses can be differentiated with respect to them or mapped
        over them.

    Raises:
      ValueError: no such problem or coefficient, with the nearest name in the message; or a
        coefficient outside its range. For files see `load`.

    Example:
      >>> print(get("burgers", viscosity=0.02).coefficients)
      {'viscosity': 0.02}
    """
    if ":" in name or name.endswith(".py"):
        return load(name, **coefficients)
    return _make(name, lookup("problem", name, _PROBLEMS), coefficients)


def load(location: str, /, **coefficients: float | Array) -> Problem:
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
    return function(**coefficients)
