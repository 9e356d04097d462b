"""Problems by name, and problems from a user's own file."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

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

_PROBLEMS: Mapping[str, Callable[[], Problem]] = {
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


def get(name: str) -> Problem:
    """Returns a problem by its name, `"burgers"`, or from a user's file, `"my_problem.py:heat"`.

    Raises:
      ValueError: no such problem; the message has the nearest name. For files see `load`.
    """
    if ":" in name or name.endswith(".py"):
        return load(name)
    return lookup("problem", name, _PROBLEMS)()


def load(location: str) -> Problem:
    """Returns the problem of this name in a Python file; the file is executed.

    Args:
      location: `"path/to/file.py:name"`, where the name is a `Problem` or a function without
        arguments that returns one.

    Raises:
      ValueError: no such file, no such name in it, or something else than a problem under it.
    """
    path, _, name = location.rpartition(":")
    if not path or not name:
        raise ValueError(f"a problem in a file is given as 'my_problem.py:name', got {location!r}")
    spec = importlib.util.spec_from_file_location(f"problem_file_{Path(path).stem}", path)
    if not Path(path).is_file() or spec is None or spec.loader is None:
        raise ValueError(f"no Python file {path!r} to load the problem {name!r} from")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        candidates = [
            key
            for key, item in vars(module).items()
            if isinstance(item, Problem) or getattr(item, "__module__", None) == spec.name
        ]
        raise unknown(f"name in {path}", name, candidates)
    found = getattr(module, name)
    problem = found() if callable(found) else found
    if not isinstance(problem, Problem):
        raise ValueError(f"{name!r} in {path} is no Problem but {type(problem).__name__}")
    return problem
