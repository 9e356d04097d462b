"""A sweep: trains groups of replicas one after the other and writes one table at the end."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh

from modsync_jax import reporting
from modsync_jax.problems import Problem
from modsync_jax.sweeps import _grid, _group, _halving, _hosts, _replicas, _table
from modsync_jax.sweeps._grid import Grid, Group, Replica
from modsync_jax.sweeps._store import EXPORTS, Store
from modsync_jax.training import ConfigError, TrainConfig, _loop, _memory
from modsync_jax.training._config import DEFAULT_METHOD
from modsync_jax.training._progress import Meter
from modsync_jax.training._schedule import chunks


def sweep(
    problem: Problem | str,
    methods: Sequence[str] = (DEFAULT_METHOD,),
    grid: Grid | None = None,
    *,
    output_dir: str | os.PathLike,
    resume: bool = False,
    strategy: str = "auto",
    point_devices: int = 1,
    memory_gib: float | None = None,
    halving: int = 0,
    export: str = "best",
    progress: bool = True,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Trains a network for every method and point of a grid, many in one program.

    Replicas that differ in numbers only (seeds, learning rates, λ_s, β, loss weights, coefficients
    of the PDE) are an axis of one program, sharded over all devices. Settings that change shapes
    make groups. Groups run one after the other, the one with the most work first. A replica that is
    not finite keeps its last finite state and is marked, and the others go on.

    Args:
      problem: a `Problem`, the name of one, or `file.py:name`.
      methods: names of methods.
      grid: values by the name of a setting, such as `{"width": [64, 128], "seed": range(32)}`; an
        entry of a mapping is named like `"loss_weights.boundary"`.
      output_dir: the sweep's folder.
      resume: go on with the sweep in `output_dir`. Finished replicas are not trained again, and the
        grid may be larger than before. The number of devices may differ.
      strategy: `vmap` over the replicas of a device, `map` one after the other, or `auto`: `map` on
        CPUs, `vmap` elsewhere. Results agree to rounding.
      point_devices: the number of devices that share the points of each replica.
      memory_gib: the memory limit of each device, in GiB; the available memory if None. Groups that
        need more are split.
      halving: η of successive halving (Jamieson & Talwalkar 2016). Configurations, the points of
        the grid without their seeds, are compared after several steps by the geometric mean of
        their errors on validation points, and the best 1/η of them go on. 0 trains all to the end.
      export: the replicas that get a folder like that of `solve`, in `runs/`: `none`, the `best` of
        each group, or `all` that reach the end.
      progress: show progress on standard error.
      **settings: fields of `TrainConfig` that all replicas share.

    Returns:
      A row for each replica, in the order of the grid, as in `results.csv`.

    Raises:
      ConfigError: on a setting that is not allowed.
      RunError: on a folder that can't be used or written.
      Interrupted: when the sweep was told to stop; its state is saved.
    """
    if "coefficients" in settings:  # as the folder holds them
        settings["coefficients"] = TrainConfig(coefficients=settings["coefficients"]).coefficients
    replicas = _grid.replicas(methods, grid or {}, settings)
    rungs = _halving.rungs(replicas, halving)
    if export not in EXPORTS:
        raise ConfigError(f"export is {export!r}; it must be one of {', '.join(EXPORTS)}")
    spec = problem if isinstance(problem, str) else problem.name
    problem_of = partial(_problem_of, problem)
    for config in {_fit(replica.config): replica.config for replica in replicas}.values():
        _loop.check_fits(problem_of(config), config)
    try:
        mesh, strategy = _replicas.make_mesh(point_devices), _replicas.strategy_of(strategy)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    identity = {"problem": spec, "settings": settings}
    asked = {"replicas": [r.name for r in replicas], "export": export, "halving": halving}
    _check_same_everywhere({**identity, **asked})
    folder = _hosts.SharedFolder(output_dir, identity, resume=resume)
    store = Store(folder, spec, problem, export)
    fixed = {name for name in grid or {} if not _may_be_traced(problem_of, replicas[0], name)}
    limit = _hosts.from_primary(partial(_limit, memory_gib))
    fit = partial(_fitting, problem_of=problem_of, mesh=mesh, strategy=strategy, limit=limit)
    shown = progress and _hosts.is_primary()
    in_play, begin = replicas, 0
    for stage in (*rungs, None):
        waiting = _grid.groups(store.missing(in_play, stage), fixed)
        title = f"{spec}: {len(in_play)} replicas" + (f" to step {stage}" if stage else "")
        _train(waiting, fit, store, begin, stage, title, shown)
        if stage:
            in_play = _halving.survivors(in_play, store.scores(in_play, stage), halving)
            begin = stage
    rows = _table.rows(replicas, store.results(replicas))
    if _hosts.is_primary():
        _table.write(folder, rows)
        with folder.writing():
            reporting.write_sweep(folder.path)
    return rows


def _check_same_everywhere(arguments: Mapping[str, Any]) -> None:
    own = json.loads(json.dumps(arguments))
    if _hosts.any_of(own != _hosts.from_primary(lambda: own)):
        raise ConfigError(
            "the processes were not all given the same problem, methods, grid and settings; start "
            "the same command on every host"
        )


def _train(
    groups: Sequence[Group],
    fit: Callable[..., list[_group.Trainer]],
    store: Store,
    begin: int,
    stage: int | None,
    title: str,
    shown: bool,
) -> None:
    """Trains groups one after the other, from step `begin` to a stage."""

    def steps(group: Group) -> int:
        return len(group.replicas) * ((stage or group.config.total_steps) - begin)

    done, total = 0, sum(map(steps, groups))
    with Meter(title, total, enabled=shown) as meter:
        for number, group in enumerate(groups, 1):
            for trainer in fit(group, say=meter.line):
                count = len(trainer.group.replicas)
                name = f"group {number}/{len(groups)} {trainer.group.label}"
                show = partial(_show, meter, done - begin * count, count, name)
                folder = store.open(trainer.group)
                inherit = partial(store.inherited, trainer.group, begin)
                with jax.default_matmul_precision(group.config.matmul_precision):
                    outcomes = _group.train(
                        trainer, folder, meter.line, show, until=stage, inherit=inherit
                    )
                    store.keep(trainer, folder, stage, outcomes)
                done += steps(trainer.group)


def _show(
    meter: Meter, before: int, count: int, title: str, step: int, facts: str, rate: float
) -> None:
    """Shows the progress of a group of `count` replicas after `step`, in replica-steps."""
    meter.facts(before + step * count, f"{title}  {facts}", rate)


def _problem_of(problem: Problem | str, config: TrainConfig) -> Problem:
    return _loop.problem_of(problem, config)[0]


def _fit(config: TrainConfig) -> str:
    """Returns a key: settings with equal keys fit the same problems."""
    settings = [config.coefficients, config.loss_weights, config.points, config.periods]
    choices = [config.method, config.objectives, config.activation]
    return json.dumps([*settings, *choices, config.causal, config.attention])


def _may_be_traced(
    problem_of: Callable[[TrainConfig], Problem], replica: Replica, name: str
) -> bool:
    """Whether a number may be traced; a coefficient that shapes the domain may not.

    Nor may one under `balance`, which finds weights for the coefficients of each replica.
    """

    def make(value: jax.Array) -> jax.Array:
        problem_of(replica.config.with_numbers({name: value}))
        return value

    if not name.startswith("coefficients."):
        return True
    if replica.config.balance:
        return False
    try:
        jax.eval_shape(make, 0.0)
    except TypeError:  # the errors of converting a tracer to a number
        return False
    return True


def _fitting(
    group: Group,
    problem_of: Callable[[TrainConfig], Problem],
    mesh: Mesh,
    strategy: str,
    limit: float,
    say: Callable[[str], None],
) -> list[_group.Trainer]:
    """Returns the compiled group, or compiled parts of it that fit the memory of a device."""
    trainer = _group.Trainer(group, problem_of, mesh, strategy)
    first = next(chunks(group.config))
    with jax.default_matmul_precision(group.config.matmul_precision):
        compiled = trainer.compiled(trainer.like(), first)
    needed = _hosts.from_primary(partial(_memory.of_program, compiled))
    share, count = mesh.shape["replicas"], len(group.replicas)
    if count <= share and needed > (there := _hosts.from_primary(_memory.limit)):
        raise ConfigError(
            f"{group.label}: one network on each device needs {needed / 2**30:.3g} GiB and "
            f"{there / 2**30:.3g} are there; take a smaller width, fewer points or fewer devices"
        )
    if needed <= limit or count <= share:
        return [trainer]
    size = max(min(int(count * limit / needed), count - 1) // share, 1) * share
    say(
        f"{group.label}: {count} replicas need {needed / 2**30:.3g} GiB on each device and "
        f"{limit / 2**30:.3g} are free; they run {size} at a time"
    )
    pieces = [group.replicas[start : start + size] for start in range(0, count, size)]
    return [
        part
        for piece in pieces
        for part in _fitting(Group(piece, group.numbers), problem_of, mesh, strategy, limit, say)
    ]


def _limit(memory_gib: float | None) -> float:
    """Usable bytes of each device: the given limit, or else the available memory."""
    return _memory.limit() if memory_gib is None else memory_gib * 2**30
