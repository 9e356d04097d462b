"""From a grid of settings to replicas, and from replicas to groups that share one program."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from modsync_jax._names import unknown
from modsync_jax.training import ConfigError, TrainConfig, entry_type

FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}
Grid = Mapping[str, Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Replica:
    """One run of a sweep.

    Attributes:
      point: its method and its values of the grid, by name.
      config: all of its settings.
    """

    point: Mapping[str, Any]
    config: TrainConfig

    @property
    def name(self) -> str:
        """Such as `modsync+dcgd-width=64-seed=0`; no two of a sweep are equal."""
        return _name(self.point)


@dataclasses.dataclass(frozen=True)
class Group:
    """Replicas that differ in numbers only, and so are one program.

    Attributes:
      replicas: R of them.
      numbers: names of the grid that differ between them; of `TrainConfig`, or `mapping.key`.
    """

    replicas: tuple[Replica, ...]
    numbers: tuple[str, ...]

    @property
    def config(self) -> TrainConfig:
        """The settings that all share, with the numbers of the first."""
        return self.replicas[0].config

    @property
    def label(self) -> str:
        """What they share, such as `modsync+dcgd-width=64`."""
        shared = {k: v for k, v in self.replicas[0].point.items() if k not in self.numbers}
        return _name(shared)

    @property
    def folder(self) -> str:
        """A folder's name that is this group's alone."""
        names = json.dumps([replica.name for replica in self.replicas])
        return f"{self.label}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"

    def values(self) -> dict[str, np.ndarray]:
        """The numbers of all replicas by name, `[R]`."""
        points = [replica.point for replica in self.replicas]
        return {name: np.array([point[name] for point in points]) for name in self.numbers}


def parse(text: str) -> dict[str, list[Any]]:
    """Reads `"width=64,128;seed=0..31;loss_weights.boundary=1,10"`.

    Raises:
      ConfigError: on a name that is no setting, or values that are not of its type.
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
    return grid


def replicas(methods: Sequence[str], grid: Grid, settings: Mapping[str, Any]) -> list[Replica]:
    """Every method with every point of the grid, the last name fastest.

    Args:
      methods: names of methods.
      grid: values by the name of a setting, or by `mapping.key`.
      settings: what all share, fields of `TrainConfig`.

    Raises:
      ConfigError: on a setting that is not allowed, a name that is no setting, or one without
        values or with one twice.
    """
    for name, values in {"method": methods, **grid}.items():
        if name != "method":
            _type_of(name)
        if name in settings:
            raise ConfigError(f"{name} is an axis of the grid and a setting; give it once")
        if not len(values) or len(set(values)) < len(values):
            raise ConfigError(f"grid: {name} needs values, each once, got {list(values)}")
    found = []
    for method, *values in itertools.product(methods, *grid.values()):
        point = dict(zip(grid, values, strict=True))
        changed: dict[str, Any] = {"method": method}
        for name, value in point.items():
            field, _, key = name.partition(".")
            changed[field] = {**_mapping(changed, settings, field), key: value} if key else value
        config = TrainConfig.from_settings({**settings, **changed})
        found.append(Replica({"method": method, **point}, config))
    return found


def check(methods: Sequence[str], grid: Grid, settings: Mapping[str, Any]) -> None:
    """Raises a `ConfigError` where `sweep` would, as far as that needs no problem and no device."""
    replicas(methods, grid, settings)


def groups(found: Sequence[Replica], fixed: Collection[str] = ()) -> list[Group]:
    """Replicas by what they share but for numbers; the group of the most work first.

    Args:
      found: all replicas.
      fixed: names of numbers that a program can not vary.
    """
    members: dict[str, list[Replica]] = {}
    for replica in found:
        shared = {k: v for k, v in replica.point.items() if k in fixed or not _traceable(k)}
        members.setdefault(json.dumps(shared), []).append(replica)
    made = []
    for same in members.values():
        names = [name for name in same[0].point if name not in fixed and _traceable(name)]
        varying = tuple(n for n in names if len({replica.point[n] for replica in same}) > 1)
        made.append(Group(tuple(same), varying))
    return sorted(made, key=_work, reverse=True)


def _work(group: Group) -> float:
    config = group.config
    return len(group.replicas) * config.steps * config.depth * float(config.width) ** 2


def _traceable(name: str) -> bool:
    return name != "method" and FIELDS[name.partition(".")[0]].metadata["traceable"]


def _name(point: Mapping[str, Any]) -> str:
    parts = [v if k == "method" else f"{k}={v}" for k, v in point.items()]
    return "-".join(parts).replace("/", "_")


def _mapping(changed: Mapping[str, Any], settings: Mapping[str, Any], field: str) -> dict[str, Any]:
    return dict(changed.get(field, settings.get(field, {})))


def _type_of(name: str) -> type:
    """The type of a grid's values."""
    field, dot, key = name.partition(".")
    if field == "method":
        raise ConfigError("grid: methods are an axis of their own; give --methods=adam,dcgd")
    if field not in FIELDS:
        raise ConfigError(f"grid: {unknown('setting', field, FIELDS)}")
    of_entries = entry_type(FIELDS[field])
    if bool(of_entries) != bool(dot and key):
        meant = f"one of its keys, {field}.NAME=..." if of_entries else f"{field}=..."
        raise ConfigError(f"grid: {name!r} must be {meant}")
    return of_entries or FIELDS[field].type  # type: ignore[return-value]


def _values(name: str, text: str, kind: type) -> list[Any]:
    first, dots, last = text.partition("..")
    try:
        if kind is int and dots:
            return list(range(int(first), int(last) + 1))
        if kind is bool:
            return [{"true": True, "false": False}[text.lower()]]
        return [kind(text)]
    except (ValueError, KeyError):
        allowed = {int: "whole numbers, or 0..31", float: "numbers", bool: "true or false"}[kind]
        raise ConfigError(f"grid: {name} has the value {text!r}; it takes {allowed}") from None
