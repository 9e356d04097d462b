"""From a grid of settings to replicas, and from replicas to groups with one program each."""

import dataclasses
import hashlib
import inspect
import itertools
import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from modsync_jax import methods as _methods
from modsync_jax._names import unknown
from modsync_jax.training import ConfigError, TrainConfig, entry_type

FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}
Grid = Mapping[str, Sequence[Any]]
_MOST = 1_000_000  # networks of a sweep


@dataclasses.dataclass(frozen=True)
class Replica:
    """One run of a sweep.

    Attributes:
      point: its method and its grid values, by name.
      config: all its settings.
    """

    point: Mapping[str, Any]
    config: TrainConfig

    @property
    def name(self) -> str:
        """The replica's unique name in its sweep, such as `modsync+dcgd-width=64-seed=0`."""
        return _name(self.point)


@dataclasses.dataclass(frozen=True)
class Group:
    """Replicas that differ in numbers only and therefore share one program.

    Attributes:
      replicas: the R replicas.
      numbers: the grid's names whose values differ between them: fields of `TrainConfig`,
        `mapping.key` or `part.hyperparameter`.
    """

    replicas: tuple[Replica, ...]
    numbers: tuple[str, ...]

    @property
    def config(self) -> TrainConfig:
        """The settings of all replicas, with the numbers of the first one."""
        return self.replicas[0].config

    @property
    def label(self) -> str:
        """A label of the shared settings, such as `modsync+dcgd-width=64`."""
        shared = {k: v for k, v in self.replicas[0].point.items() if k not in self.numbers}
        return _name(shared)

    @property
    def folder(self) -> str:
        """The group's unique folder name."""
        names = json.dumps([replica.name for replica in self.replicas])
        return f"{self.label}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"

    def values(self) -> dict[str, np.ndarray]:
        """The numbers of all replicas by name, `[R]`."""
        points = [replica.point for replica in self.replicas]
        return {name: np.array([point[name] for point in points]) for name in self.numbers}


def parse(text: str) -> dict[str, list[Any]]:
    """Reads `"width=64,128;seed=0..31;loss_weights.boundary=1,10;cagrad.c=0.2,0.4"`.

    Raises:
      ConfigError: on a name that is no setting, or on values of another type.
    """
    grid: dict[str, list[Any]] = {}
    for axis in filter(None, (part.strip() for part in text.split(";"))):
        name, given, values = (piece.strip() for piece in axis.partition("="))
        if not given or not values:
            raise ConfigError(f"grid: {axis!r} is not name=value,value,... or name=first..last")
        if name in grid:
            raise ConfigError(f"grid: {name} is given twice; join its values with ','")
        kind = _type_of(name)
        grid[name] = [
            value for part in values.split(",") for value in _values(name, part.strip(), kind)
        ]
    if not grid:
        raise ConfigError(
            "grid is empty; give axes such as seed=0..7; one network is for experiments.train"
        )
    return grid


def replicas(methods: Sequence[str], grid: Grid, settings: Mapping[str, Any]) -> list[Replica]:
    """Returns every method with every point of the grid; the last name varies fastest.

    Args:
      methods: names of methods.
      grid: values by the name of a setting, by `mapping.key`, or by `part.hyperparameter`, which is
        an axis only for methods with this part.
      settings: the shared fields of `TrainConfig`.

    Raises:
      ConfigError: on a setting that is not allowed, a name that is no setting, or an axis without
        values or with a repeated value.
    """
    if "selection" in grid:
        raise ConfigError("grid: scores of different kinds can't be ranked; fix selection instead")
    for name, values in {"method": methods, **grid}.items():
        if name != "method":
            _type_of(name)
        if name in settings:
            raise ConfigError(f"{name} is an axis of the grid and a setting; give it once")
        if not len(values) or len(set(values)) < len(values):
            raise ConfigError(f"grid: {name} needs values, each once, got {list(values)}")
    parts = {method: _parts(method) for method in methods}
    count = len(methods) * math.prod(len(values) for values in grid.values())
    if count > _MOST:
        raise ConfigError(f"grid: {count:,} networks are too many; a sweep has at most {_MOST:,}")
    for name in grid:
        if _is_of_part(name) and not any(_owner(name) in found for found in parts.values()):
            raise ConfigError(f"grid: none of the methods {', '.join(methods)} has {name}")
    found = []
    for method in methods:
        axes = [n for n in grid if not _is_of_part(n) or _owner(n) in parts[method]]
        for values in itertools.product(*(grid[name] for name in axes)):
            point = dict(zip(axes, values, strict=True))
            found.append(Replica({"method": method, **point}, _config(method, point, settings)))
    return found


def _config(method: str, point: Mapping[str, Any], settings: Mapping[str, Any]) -> TrainConfig:
    """Returns the settings of one point of the grid."""
    changed: dict[str, Any] = {"method": method}
    for name, value in point.items():
        field, _, key = name.partition(".")
        if _is_of_part(name):
            with_it = _methods.parse(changed["method"]).replace(field, **{key: value})
            changed["method"] = str(with_it)
        elif key:
            changed[field] = {**_mapping(changed, settings, field), key: value}
        else:
            changed[field] = value
    config = TrainConfig.from_settings({**settings, **changed})
    if config.time_limit:
        raise ConfigError(
            f"time_limit is {config.time_limit:g}, and the networks of a sweep all take the same "
            "number of steps; set time_limit=0, and the steps in steps or then"
        )
    return config


def _parts(method: str) -> Collection[str]:
    try:
        return _methods.parse(method).parts
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _owner(name: str) -> str:
    return name.partition(".")[0]


def _is_of_part(name: str) -> bool:
    return "." in name and _owner(name) in _methods.PARTS


def _parameter(name: str) -> inspect.Parameter:
    """Returns the hyperparameter of an axis `part.hyperparameter`."""
    part, _, key = name.partition(".")
    known = _methods.PARTS[part].hyperparameters
    if key not in known:
        raise ConfigError(f"grid: {unknown(f'hyperparameter of {part}', key, known)}")
    return known[key]


def check(methods: Sequence[str], grid: Grid, settings: Mapping[str, Any]) -> None:
    """Raises the `ConfigError`s of `sweep` that need neither a problem nor a device."""
    replicas(methods, grid, settings)


def groups(found: Sequence[Replica], fixed: Collection[str] = ()) -> list[Group]:
    """Groups replicas that differ in numbers only; the group with the most work comes first.

    Args:
      found: all replicas.
      fixed: names of numbers that one program can't vary.
    """
    members: dict[str, list[Replica]] = {}
    for replica in found:
        shared = {k: v for k, v in replica.point.items() if k in fixed or not _traceable(k)}
        members.setdefault(json.dumps(shared), []).append(replica)
    made = []
    for same in members.values():
        axes = same[0].point
        varying = tuple(name for name in axes if len({r.point[name] for r in same}) > 1)
        made.append(Group(tuple(same), varying))
    return sorted(made, key=_work, reverse=True)


def _work(group: Group) -> float:
    config = group.config
    return len(group.replicas) * config.steps * config.depth * float(config.width) ** 2


def _traceable(name: str) -> bool:
    if _is_of_part(name):
        return "Array" in str(_parameter(name).annotation)
    return name != "method" and FIELDS[name.partition(".")[0]].metadata["traceable"]


def _name(point: Mapping[str, Any]) -> str:
    parts = [v if k == "method" else f"{k}={v}" for k, v in point.items()]
    return "-".join(parts).replace("/", "_")


def _mapping(changed: Mapping[str, Any], settings: Mapping[str, Any], field: str) -> dict[str, Any]:
    return dict(changed.get(field, settings.get(field, {})))


def _type_of(name: str) -> type:
    """Returns the type of an axis's values."""
    field, dot, key = name.partition(".")
    if field == "method":
        raise ConfigError("grid: methods are an axis of their own; give --methods=sum,dcgd")
    if _is_of_part(name):
        default = _parameter(name).default
        return str if default is None else type(default)
    if field not in FIELDS:
        raise ConfigError(f"grid: {unknown('setting', field, FIELDS)}")
    of_entries = entry_type(FIELDS[field])
    if bool(of_entries) != bool(dot and key):
        meant = f"one of its keys, {field}.NAME=..." if of_entries else f"{field}=..."
        raise ConfigError(f"grid: {name!r} must be {meant}")
    return of_entries or FIELDS[field].type  # type: ignore[return-value]


def _values(name: str, text: str, kind: type) -> list[Any]:
    first, dots, last = text.partition("..")
    values: Sequence[Any]
    try:
        if kind is int and dots:
            values = range(int(first), int(last) + 1)
        elif kind is bool:
            values = [{"true": True, "false": False}[text.lower()]]
        else:
            values = [kind(text)]
    except (ValueError, KeyError):
        allowed = {int: "whole numbers, or 0..31", float: "numbers", bool: "true or false"}[kind]
        raise ConfigError(f"grid: {name} has the value {text!r}; it takes {allowed}") from None
    if len(values) > _MOST:
        raise ConfigError(f"grid: {name} has {len(values):,} values; at most {_MOST:,} are taken")
    return list(values)
