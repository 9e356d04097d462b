"""A group: what its replicas are given, and the loop that trains them, with a trainer of sums."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import problems
from modsync_jax.sweeps import _grid, _group, _hosts, _replicas
from modsync_jax.training import Interrupted, _measure, _schedule, _step

SETTINGS = {
    "steps": 40, "chunk": 10, "eval_every": 10, "checkpoint_every": 20, "width": 2, "depth": 1,
}  # fmt: skip
UNTOUCHED = dataclasses.replace(problems.get("poisson1d"), reference=None)


def group_of(grid, **settings):
    (group,) = _grid.groups(_grid.replicas(["sum"], grid, {**SETTINGS, **settings}))
    return group


# --- what replicas are given ----------------------------------------------------------------------


def poisson(config):
    return problems.get("poisson1d", **config.coefficients)


@pytest.fixture(scope="module")
def trainer():
    grid = {"seed": [3, 4, 5], "coefficients.frequency": [1.0, 2.0]}
    group = group_of(grid, then="lbfgs:20")
    return _group.Trainer(group, poisson, _replicas.make_mesh(), "map")


def test_replicas_are_padded_to_a_multiple_of_the_devices(trainer):
    assert jax.device_count() == 8
    np.testing.assert_array_equal(trainer._numbers["seed"], [3, 3, 4, 4, 5, 5, 5, 5])
    frequencies = trainer._numbers["coefficients.frequency"]
    np.testing.assert_array_equal(frequencies, [1, 2, 1, 2, 1, 2, 2, 2])


def test_each_replica_has_the_references_of_its_coefficients(trainer):
    points, values = trainer._own["validation"]
    for index, replica in enumerate(trainer.group.replicas):
        expected = np.sin(replica.config.coefficients["frequency"] * points[index])
        np.testing.assert_allclose(values[index], expected, atol=1e-6)  # float32
    assert trainer._common == {}


def test_all_numbers_of_a_replica_reach_its_program(trainer, monkeypatch):
    built = SimpleNamespace()

    def build(problem, network, config, place):
        built.problem, built.config = problem, config

    monkeypatch.setattr(_step, "build", build)
    numbers = {"seed": 7, "learning_rate": 0.5, "coefficients.frequency": 3.0}
    assert trainer._program(numbers) == (None, 7)
    assert (built.config.learning_rate, built.config.seed) == (0.5, 7)
    assert built.problem.coefficients["frequency"] == 3.0


def test_a_later_phase_begins_once(trainer, monkeypatch):
    begun = []

    def mapped(function):
        return lambda each, common: begun.append(function) or each[0]

    monkeypatch.setattr(trainer, "_mapped", mapped)
    monkeypatch.setattr(trainer, "compiled", lambda batch, chunk: lambda b, each: b)
    for chunk in _schedule.chunks(trainer.group.config):
        trainer.run(jnp.zeros(8), chunk)
    (function,) = begun
    assert chunk.end == 60 and (function.func, function.args) == (trainer._begin, (1,))


@pytest.mark.parametrize(("healthy", "expected"), [(True, 3.0), (False, np.nan)])
def test_a_row_of_a_replica_that_is_not_finite_is_empty(trainer, monkeypatch, healthy, expected):
    runs = SimpleNamespace(healthy=jnp.array(healthy))
    program = SimpleNamespace(evaluate=lambda state, references: (state, {"loss": 3.0}))
    monkeypatch.setattr(trainer, "_program", lambda numbers: (program, 0))
    batch = _group.Batch(runs, {"loss": jnp.full(4, 9.0)})
    made = trainer._evaluate((batch, {}, {}), ({}, 2))
    np.testing.assert_array_equal(made.metrics["loss"], [9.0, 9.0, expected, 9.0])


# --- the loop -------------------------------------------------------------------------------------


class Sums:
    """A trainer whose replicas count their steps; some break at a step, after which they stay.

    A fourth place is padding, a copy of the last replica.
    """

    def __init__(self, group, breaks=None):
        self.group, self.problem, self.breaks = group, UNTOUCHED, breaks or {}
        self.places = len(group.replicas) + 1
        self.taken = []

    def weighed(self, config):
        return config

    def start(self, step=0):
        n, each = self.places, jnp.arange(float(self.places)).at[-1].set(self.places - 2.0)
        params = {"network": {"w": each[:, None]}, "unknowns": {}}
        empty = jnp.full((n, len(_schedule.rows(self.group.config))), jnp.nan)
        runs = _step.TrainState(
            key=jnp.zeros((n, 2), jnp.uint32), step=jnp.zeros(n, jnp.int32), params=params,
            opt_state=(), best_params=params, best_score=each + 1.0,
            best_step=jnp.zeros(n, jnp.int32), healthy=jnp.ones(n, bool), losses=jnp.ones((n, 2)),
            sums=(),
        )  # fmt: skip
        batch = _group.Batch(runs, {"step": empty, "loss": empty, "test/relative_l2": empty})
        begun = self.evaluate(batch, 0)
        return begun._replace(runs=begun.runs._replace(step=jnp.full(n, step, jnp.int32)))

    def place(self, batch):
        return batch

    def like(self, phase=0):
        return f"phase {phase}"

    def run(self, batch, chunk):
        self.taken.append((chunk.start, chunk.end))
        stops = jnp.array([self.breaks.get(i, 10**6) for i in range(self.places)])
        steps = jnp.minimum(batch.runs.step + chunk.end - chunk.start, stops)
        healthy = steps < stops
        losses = jnp.where(healthy[:, None], 1.0, jnp.array([1.0, jnp.nan]))
        return batch._replace(runs=batch.runs._replace(step=steps, healthy=healthy, losses=losses))

    def evaluate(self, batch, row):
        runs, metrics = batch
        values = {
            "step": runs.step, "loss": runs.step + 0.5, "test/relative_l2": runs.best_score / 10
        }  # fmt: skip
        values = {n: jnp.where(runs.healthy, v, jnp.nan) for n, v in values.items()}
        return batch._replace(metrics={n: metrics[n].at[:, row].set(v) for n, v in values.items()})


class Folder:
    """Checkpoints in memory."""

    def __init__(self, batch=None, step=None):
        self.batch, self.step, self.saved, self.likes = batch, step, [], []

    def latest(self, say):
        return self.step

    def save(self, step, batch):
        self.saved.append(step)
        self.batch = batch

    def restore(self, step, like, *, resize):
        assert resize and step == self.step
        self.likes.append(like)
        return self.batch


def trained(trainer, folder=None, **how):
    """What came out, and what was saved, said and shown."""
    folder, said, shown = folder or Folder(), [], []
    show = lambda step, facts, rate: shown.append((step, facts))  # noqa: E731
    outcomes = _group.train(trainer, folder, said.append, show, **how)
    return SimpleNamespace(outcomes=outcomes, saved=folder.saved, said=said, shown=shown)


THREE = group_of({"seed": [7, 8, 9]})


def test_replicas_go_to_the_end_and_one_that_breaks_stays():
    run = trained(Sums(THREE, breaks={1: 15}))
    assert run.saved == [20, 40]
    broken = "step 15: loss 'residual' is nan"
    assert run.said == [f"sum-seed=8: {broken}; the others go on"]
    # The best of the row's errors, and of those in training, not of padding.
    assert run.shown[0] == (10, "3/3 alive  smallest error 1.00e-01")
    assert run.shown[-1] == (40, "2/3 alive  smallest error 1.00e-01")
    assert [outcome.failure for outcome in run.outcomes] == ["", broken, ""]
    assert [outcome.score for outcome in run.outcomes] == [1.0, None, 3.0]
    assert [outcome.result["seed"] for outcome in run.outcomes] == [7, 8, 9]
    assert [outcome.result["score"] for outcome in run.outcomes] == [1.0, 2.0, 3.0]
    steps = [[row["step"] for row in outcome.rows] for outcome in run.outcomes]
    assert steps == [[0, 10, 20, 30, 40], [0, 10], [0, 10, 20, 30, 40]]


@pytest.mark.parametrize("until", [10, 30])
def test_a_group_stops_after_a_stage_with_a_checkpoint(until):
    trainer = Sums(THREE)
    run = trained(trainer, until=until)
    assert trainer.taken[-1][1] == until == run.saved[-1]
    assert run.outcomes[0].result["steps"] == until


def test_a_group_in_which_all_broke_ends_with_a_checkpoint():
    trainer = Sums(THREE, breaks={i: 5 for i in range(4)})
    run = trained(trainer)
    assert trainer.taken == [(0, 10)] and run.saved == [10]
    assert [outcome.score for outcome in run.outcomes] == [None] * 3


def test_what_is_inherited_goes_on_at_the_step_of_those_that_are_finite():
    trainer = Sums(THREE)
    begun = trainer.start(20)
    begun = begun._replace(runs=begun.runs._replace(step=begun.runs.step.at[1].set(3)))
    likes = []
    run = trained(trainer, inherit=lambda like: likes.append(like) or begun)
    assert likes == ["phase 0"] and trainer.taken == [(20, 30), (30, 40)]
    assert run.outcomes[0].result["steps"] == 40


@pytest.mark.parametrize(("step", "like"), [(20, "phase 0"), (40, "phase 0"), (50, "phase 1")])
def test_a_checkpoint_has_the_arrays_of_its_phase(step, like):
    trainer = Sums(group_of({"seed": [7, 8, 9]}, then="lbfgs:20"))
    folder = Folder(trainer.start(step), step)
    trained(trainer, folder)
    assert folder.likes == [like] and trainer.taken[0] == (step, step + 10)


def test_a_signal_stops_with_a_checkpoint_but_not_after_the_last_step(monkeypatch):
    trainer, folder = Sums(THREE), Folder()
    asked = iter([False, False, True])
    monkeypatch.setattr(_hosts, "any_of", lambda flag: next(asked))
    with pytest.raises(Interrupted, match="stopped at step 30 of 40 of sum; go on with the same"):
        trained(trainer, folder)
    assert folder.saved == [20, 30]
    asked = iter([False, False, False, True])
    assert trained(Sums(THREE)).saved == [20, 40]


def test_the_reference_of_all_is_one_where_coefficients_are_the_same():
    mesh = _replicas.make_mesh()
    trainer = _group.Trainer(group_of({"seed": [0, 1]}), poisson, mesh, "map")
    assert trainer._own == {}
    for name, (points, _) in _measure.references(trainer.problem, trainer.group.config).items():
        np.testing.assert_array_equal(trainer._common[name][0], points)
