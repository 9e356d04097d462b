"""What a sweep keeps on disk: results by stage, states to go on from, exported runs."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import networks, problems, reporting
from modsync_jax.sweeps import _grid, _group, _store
from modsync_jax.training import _folder, _loop, _step
from modsync_jax.training._folder import RunFolder

REPLICAS = _grid.replicas(["sum"], {"seed": range(4)}, {"width": 4, "depth": 1})
NAMES = [replica.name for replica in REPLICAS]


def group(*indices):
    return _grid.Group(tuple(REPLICAS[i] for i in indices), ("seed",))


def outcome(score=1.0, loss=1.0, failure="", state=None):
    result = {"score": score, "loss": {"selected": loss}, "steps": 20}
    kept = None if failure else score
    return _group.Outcome(result, failure, kept, [{"step": 0.0, "loss": loss}], state)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """How to open the sweep's store and to keep outcomes; and the runs that were exported."""
    folder, exported = RunFolder(tmp_path / "s", {}, resume=False), []

    def store(export="none"):
        return _store.Store(folder, "poisson1d", "poisson1d", export)

    def export_run(self, trainer, replica, outcome):
        exported.append((replica.name, outcome))

    def keep(into, kept, stage, outcomes):
        trainer = SimpleNamespace(group=kept)
        into.keep(trainer, into.open(kept), stage, outcomes)

    monkeypatch.setattr(_store.Store, "_export_run", export_run)
    return SimpleNamespace(store=store, keep=keep, exported=exported, path=folder.path)


def test_the_best_of_a_group_is_that_of_the_lowest_score_of_those_that_are_finite(sweep):
    outcomes = [outcome(2.0, 0.1), outcome(1.0, 0.3), outcome(0.5, 0.2, "loss is nan")]
    for export, found in (("none", []), ("best", [1]), ("all", [0, 1, 2])):
        sweep.exported.clear()
        sweep.keep(sweep.store(export), group(0, 1, 2), None, outcomes)
        assert sweep.exported == [(NAMES[i], outcomes[i]) for i in found]
    sweep.exported.clear()
    sweep.keep(sweep.store("all"), group(0, 1, 2), 20, outcomes)
    assert not sweep.exported  # not before the end
    sweep.keep(sweep.store("best"), group(3), None, [outcome(failure="loss is nan")])
    assert not sweep.exported


def test_results_of_all_groups_are_kept_and_the_latest_stage_counts(sweep):
    store = sweep.store()
    for stage, score in ((100, 3.0), (20, 2.0), (None, 4.0)):
        sweep.keep(store, group(0), stage, [outcome(score)])
    sweep.keep(store, group(1), 20, [outcome(5.0)])
    sweep.keep(store, group(1), 100, [outcome(6.0)])
    sweep.keep(store, group(2), 20, [outcome(7.0, failure="loss is nan")])
    for found in (store, sweep.store()):  # in memory, and read again
        assert [r["result"]["score"] for r in found.results(REPLICAS[:3])] == [4.0, 6.0, 7.0]
        assert found.scores(REPLICAS[:3], 20) == {NAMES[0]: 2.0, NAMES[1]: 5.0, NAMES[2]: None}
        assert found.missing(REPLICAS, None) == REPLICAS[1:]
        assert found.missing(REPLICAS, 20) == REPLICAS[3:]


def test_what_was_not_exported_is_made_again_of_failed_ones_too(sweep):
    sweep.keep(sweep.store(), group(0, 1, 2), None, [outcome()] * 2 + [outcome(failure="nan")])
    for index, file in ((0, "result.json"), (2, "failed.txt")):
        (sweep.path / "runs" / NAMES[index]).mkdir(parents=True)
        (sweep.path / "runs" / NAMES[index] / file).write_text("")
    assert sweep.store("all").missing(REPLICAS, None) == [REPLICAS[1], REPLICAS[3]]
    assert sweep.store("best").missing(REPLICAS, None) == [REPLICAS[3]]


def test_states_are_inherited_from_the_groups_where_they_were(sweep, monkeypatch):
    store = sweep.store()
    first, second = group(0, 1, 2), group(3)
    sweep.keep(store, first, 20, [outcome()] * 3)
    sweep.keep(store, second, 20, [outcome()])
    states = {first.folder: np.array([10, 11, 12]), second.folder: np.array([13])}
    whole = {first.folder, second.folder}
    read = lambda path, step, like: {"x": states[path.name] * like}  # noqa: E731
    monkeypatch.setattr(_folder, "read_checkpoint", read)
    monkeypatch.setattr(_folder, "holds_checkpoint", lambda path, step: path.name in whole)
    np.testing.assert_array_equal(store.inherited(group(3, 1, 2), 20, 2)["x"], [26, 22, 24])
    assert store.inherited(group(3, 1), 40, 2) is None  # nobody came so far
    whole.remove(second.folder)
    assert store.inherited(group(3, 1), 20, 2) is None
    sweep.keep(store, first, 40, [outcome()] * 3)
    assert store.inherited(group(0, 3), 40, 2) is None


def test_an_exported_run_holds_the_last_state_and_shows_the_best(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "s", {}, resume=False)
    store = _store.Store(folder, "poisson1d", "poisson1d", "all")
    problem, network = problems.get("poisson1d"), networks.MLP(width=4, depth=1)
    state = jax.tree.map(np.asarray, _step.build(problem, network, REPLICAS[0].config).init(0))
    best = jax.tree.map(lambda leaf: leaf + 1, state.params)
    state = state._replace(step=np.int32(20), best_step=np.int32(10), best_params=best)
    shown, drawn = [], []
    monkeypatch.setattr(_loop, "finish", lambda *given: shown.append(given[3]))
    monkeypatch.setattr(reporting, "write_report", drawn.append)
    trainer = SimpleNamespace(group=group(0, 1), network=network)
    outcomes = [outcome(state=state), outcome(failure="step 20: loss is nan", state=state)]
    for replica, made in zip(trainer.group.replicas, outcomes, strict=True):
        store._export_run(trainer, replica, made)
        path = folder.path / "runs" / replica.name
        np.testing.assert_array_equal(_folder.read_checkpoint(path, 20, state).key, state.key)
        assert _folder.read_metrics(path) == made.rows
    (solution,) = shown
    jax.tree.map(np.testing.assert_array_equal, solution.params, best)
    jax.tree.map(np.testing.assert_array_equal, solution.trained, best)
    assert drawn == [folder.path / "runs" / NAMES[0]]
    failed = folder.path / "runs" / NAMES[1] / "failed.txt"
    assert failed.read_text() == "step 20: loss is nan\n"
    assert jnp.isfinite(solution(np.zeros((1, 1)))).all()
