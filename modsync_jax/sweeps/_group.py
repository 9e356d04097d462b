"""Training of one group: many replicas in one program, a chunk of steps at a time."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from modsync_jax import reporting
from modsync_jax.problems import Problem
from modsync_jax.sweeps import _hosts, _replicas
from modsync_jax.sweeps._grid import Group
from modsync_jax.training import Interrupted, TrainConfig, _balance, _measure, _signals, _step
from modsync_jax.training._folder import Row, RunFolder
from modsync_jax.training._schedule import Chunk, chunks, phase_of, rows
from modsync_jax.training._state import TrainState

PyTree = Any
ProblemOf = Callable[[TrainConfig], Problem]
Show = Callable[[int, str, float], None]
Inherit = Callable[["Batch"], "Batch | None"]


class Batch(NamedTuple):
    """The state of a group.

    Attributes:
      runs: states of the replicas, leaves `[R, ...]`.
      metrics: columns of their metrics, `[R, rows]`. Future rows are NaN, and so are the rows of a
        replica after it stopped being finite.
    """

    runs: TrainState
    metrics: Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one replica.

    Attributes:
      result: as in `result.json`.
      failure: the value that was not finite, and its step; empty without a failure.
      score: the lowest error on validation points, or the lowest unweighted loss without a
        reference; None after a failure.
      rows: the rows of its metrics.
      state: its last state, NumPy arrays.
    """

    result: Mapping[str, Any]
    failure: str
    score: float | None
    rows: list[Row]
    state: TrainState


Outcomes = list[Outcome]


class Trainer:
    """A group's compiled functions, on a mesh.

    Args:
      group: the replicas.
      problem_of: a function from settings, whose coefficients may be tracers, to the problem.
      mesh: from `make_mesh`.
      strategy: `vmap` or `map`.
    """

    def __init__(self, group: Group, problem_of: ProblemOf, mesh: Mesh, strategy: str) -> None:
        self.group, self.mesh, self.strategy = group, mesh, strategy
        self.problem = problem_of(group.config)
        self.network = _step.network_of(self.problem, group.config)
        self._factors = _balance.factors(self.problem, self.network, group.config)
        self._problem_of = problem_of
        self._varies = any(name.startswith("coefficients.") for name in group.numbers)
        share = mesh.shape["replicas"]
        self._padding = -len(group.replicas) % share
        values = {"seed": np.array([r.config.seed for r in group.replicas]), **group.values()}
        self._numbers = {
            name: self._padded(column.astype("uint32" if name == "seed" else group.config.dtype))
            for name, column in values.items()
        }
        self._own, self._common = self._references()
        self._compiled: dict[Any, Any] = {}

    def weighed(self, config: TrainConfig) -> TrainConfig:
        """Returns the configuration of a replica with its loss weights as they are used."""
        return _balance.weighed(config, self._factors)

    def start(self) -> Batch:
        """Returns the state before the first step, with the first row of metrics."""
        init = self._mapped(self._init)
        return self.evaluate(jax.jit(init)(self._on_devices, self._shared), 0)

    def place(self, rows_: Batch) -> Batch:
        """Returns a state of all replicas, NumPy arrays `[R, ...]`, placed on the devices."""
        return _hosts.place(jax.tree.map(self._padded, rows_), _replicas.sharding(self.mesh))

    def like(self, phase: int = 0) -> Batch:
        """Returns the shapes, dtypes and shardings of a state in a phase."""
        each, shared = (self._numbers, self._own), self._common
        state = jax.eval_shape(self._mapped(self._init), each, shared)
        for later in range(1, phase + 1):
            begin = self._mapped(partial(self._begin, later))
            state = jax.eval_shape(begin, (state, self._numbers, self._own), ())
        return self._placed(state)

    def run(self, batch: Batch, chunk: Chunk) -> Batch:
        """Takes the steps of a chunk; `batch` is donated."""
        if chunk.begins and chunk.phase:
            each = (batch, *self._on_devices)
            batch = jax.jit(self._mapped(partial(self._begin, chunk.phase)))(each, ())
        return self.compiled(batch, chunk)(batch, self._on_devices)

    def compiled(self, like: Batch, chunk: Chunk) -> Any:
        """Returns the compiled function that `run` calls for a chunk, for arrays like these.

        The mesh's devices may be descriptions (`jax.experimental.topologies`), because no array is
        placed.
        """
        key = (chunk.phase, chunk.steps)
        if key not in self._compiled:
            mapped = self._mapped(partial(self._advance, *key))
            call = jax.jit(lambda b, each: mapped((b, *each), ()), donate_argnums=0)
            each = self._placed((self._numbers, self._own))
            self._compiled[key] = call.lower(like, each).compile()
        return self._compiled[key]

    def evaluate(self, batch: Batch, row: int) -> Batch:
        """Writes a row of the metrics; `batch` is donated."""
        if "evaluate" not in self._compiled:
            # One replica after the other, because the test points of one keep a device busy.
            mapped = _replicas.over_replicas(self._evaluate, self.mesh, "map")
            call = jax.jit(lambda b, each, s: mapped((b, *each), s), donate_argnums=0)
            self._compiled["evaluate"] = call
        index = _hosts.place(np.int32(row), _replicas.everywhere(self.mesh))
        return self._compiled["evaluate"](batch, self._on_devices, (self._shared, index))

    def _mapped(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        return _replicas.over_replicas(function, self.mesh, self.strategy)

    @cached_property
    def _on_devices(self) -> tuple[PyTree, PyTree]:
        """Numbers and references by replica on the devices; only `run` and `evaluate` need them."""
        return _hosts.place((self._numbers, self._own), _replicas.sharding(self.mesh))

    @cached_property
    def _shared(self) -> PyTree:
        """References that all replicas share, on the devices."""
        return _hosts.place(self._common, _replicas.everywhere(self.mesh))

    def _placed(self, like: PyTree) -> PyTree:
        placed = partial(jax.ShapeDtypeStruct, sharding=_replicas.sharding(self.mesh))
        return jax.tree.map(lambda leaf: placed(leaf.shape, leaf.dtype), like)

    def _padded(self, values: np.ndarray) -> np.ndarray:
        """Repeats the last replica's value until all devices have equally many."""
        return np.concatenate([values, np.repeat(values[-1:], self._padding, axis=0)])

    def _references(self) -> tuple[PyTree, PyTree]:
        """Reference points and values by replica, and shared ones; one of the two is empty."""
        if not self._varies:
            return {}, _measure.references(self.problem, self.group.config)
        configs = [replica.config for replica in self.group.replicas]
        found = [_measure.references(self._problem_of(config), config) for config in configs]
        return jax.tree.map(lambda *leaves: self._padded(np.stack(leaves)), *found), {}

    def _program(self, numbers: Mapping[str, Array]) -> tuple[_step.Program, Any]:
        config = self.weighed(self.group.config.with_numbers(numbers))
        problem = self._problem_of(config) if self._varies else self.problem
        place = partial(_replicas.place_points, self.mesh)
        return _step.build(problem, self.network, config, place), config.seed

    def _init(self, replica: tuple, common: PyTree) -> Batch:
        numbers, own = replica
        program, seed = self._program(numbers)
        state = program.init(seed)
        _, row = jax.eval_shape(program.evaluate, state, own or common)
        empty = jnp.full(len(rows(self.group.config)), jnp.nan, self.group.config.widest_dtype)
        return Batch(state, dict.fromkeys(row, empty))

    def _advance(self, phase: int, count: int, replica: tuple, _: tuple) -> Batch:
        batch, numbers, _ = replica
        program, _ = self._program(numbers)
        return batch._replace(runs=program.advance(batch.runs, phase, count))

    def _begin(self, phase: int, replica: tuple, _: tuple) -> Batch:
        batch, numbers, _ = replica
        return batch._replace(runs=self._program(numbers)[0].begin(batch.runs, phase))

    def _evaluate(self, replica: tuple, shared: tuple) -> Batch:
        batch, numbers, own = replica
        common, index = shared
        state, row = self._program(numbers)[0].evaluate(batch.runs, own or common)
        metrics = {
            name: column.at[index].set(
                jnp.where(state.healthy, row[name], jnp.nan).astype(column.dtype)
            )
            for name, column in batch.metrics.items()
        }
        return Batch(state, metrics)


def train(
    trainer: Trainer,
    folder: RunFolder,
    say: Callable[[str], None],
    show: Show,
    *,
    until: int | None = None,
    inherit: Inherit = lambda like: None,
) -> Outcomes:
    """Trains a group to its end, from its last checkpoint if there is one.

    Args:
      trainer: the group's trainer.
      folder: the folder of its checkpoints.
      say: gets a line for each replica that is not finite.
      show: gets, with each row, the number of steps, facts for a reader, and replica-steps per
        second.
      until: the step to stop after, a multiple of `eval_every`; None for the end.
      inherit: a function from the structure of a state to the state in which the replicas begin
        without a checkpoint, NumPy arrays `[R, ...]`; None if they begin anew.

    Returns:
      The outcome of each replica, in the group's order.

    Raises:
      Interrupted: when the program was told to stop; the state is saved.
    """
    config, replicas = trainer.group.config, trainer.group.replicas
    done = folder.latest(say)
    if done is not None:
        like = trainer.like(phase_of(config, done))
        # Other devices may need other padding. Added replicas are zeros, so they are never healthy.
        batch = folder.restore(done, like, resize=True)
    elif (begun := inherit(trainer.like())) is not None:
        done, batch = int(begun.runs.step.max()), trainer.place(begun)
    else:
        done, batch = 0, trainer.start()
    clock, row = (
        _measure.Clock(len(replicas)),
        {step: index for index, step in enumerate(rows(config))},
    )
    alive = _alive(trainer, batch)
    with _signals.collected(say) as stopped:
        for chunk in chunks(config, done):
            if until is not None and chunk.start >= until:
                break
            with clock.measure((chunk.phase, chunk.steps), chunk.steps * len(replicas)):
                batch = trainer.run(batch, chunk)
                before, alive = alive, _alive(trainer, batch)
            for index, failure in _failures(trainer, batch, before & ~alive).items():
                say(f"{replicas[index].name}: {failure}; the others go on")
            if chunk.evaluates:
                batch = trainer.evaluate(batch, row[chunk.end])
                clock.mark(chunk.end)
            stop = _hosts.any_of(bool(stopped))
            if chunk.saves or stop or chunk.end == until or not alive.any():
                folder.save(chunk.end, batch)
            if chunk.evaluates:
                show(chunk.end, _facts(batch, alive), clock.rate)
            if not alive.any():
                break
            if stop and chunk.end < config.total_steps:
                raise Interrupted(
                    f"stopped at step {chunk.end} of {config.total_steps} of "
                    f"{trainer.group.label}; go on with the same command and --resume"
                )
    failures = _failures(trainer, batch, ~alive)
    host = _hosts.fetch(batch)
    return [
        _outcome(trainer, index, member(host, index), failures.get(index, ""), clock)
        for index in range(len(replicas))
    ]


def member(batch: PyTree, index: int) -> PyTree:
    """Returns one replica of arrays `[R, ...]`."""
    return jax.tree.map(lambda leaf: leaf[index, ...], batch)  # an array, of no axes too


def _alive(trainer: Trainer, batch: Batch) -> np.ndarray:
    return _hosts.fetch(batch.runs.healthy)[: len(trainer.group.replicas)]


def _failures(trainer: Trainer, batch: Batch, dead: np.ndarray) -> dict[int, str]:
    """Returns the failures by index of the replicas that are `dead`, `[R]` bools."""
    if not dead.any():
        return {}
    names = sorted(trainer.problem.objective_terms(trainer.group.config.objectives))
    steps, losses = _hosts.fetch((batch.runs.step, batch.runs.losses))
    return {
        int(i): _measure.what_broke(int(steps[i]), losses[i], names) for i in np.flatnonzero(dead)
    }


def _facts(batch: Batch, alive: np.ndarray) -> str:
    facts = f"{alive.sum()}/{len(alive)} alive"
    errors = batch.metrics.get("test/relative_l2")
    if errors is not None and np.isfinite(smallest := float(jnp.nanmin(errors))):
        facts += f"  smallest error {smallest:.2e}"
    return facts


def _outcome(
    trainer: Trainer, index: int, batch: Batch, failure: str, clock: _measure.Clock
) -> Outcome:
    config, run = trainer.group.replicas[index].config, batch.runs
    written = np.isfinite(batch.metrics["step"])
    rows_ = [
        {name: float(batch.metrics[name][i]) for name in reporting.in_order(batch.metrics)}
        for i in np.flatnonzero(written)
    ]
    result = _measure.summary(trainer.problem, trainer.weighed(config), rows_, run, clock)
    score = None if failure else float(run.best_score)
    return Outcome(result, failure, score, rows_, run)
