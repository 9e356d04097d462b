"""A sweep's stages: who is trained to where, from where, and how many at a time."""

from types import SimpleNamespace

import pytest

from modsync_jax import reporting, sweeps
from modsync_jax.calculus import partials
from modsync_jax.problems import Problem, value
from modsync_jax.sampling import box
from modsync_jax.sweeps import _grid, _group, _store, _sweep, _table
from modsync_jax.training import ConfigError, _memory

SHORT = {"chunk": 5, "eval_every": 5, "checkpoint_every": 5, "width": 4, "depth": 1}


def rod(length=1.0, source=1.0):
    """u'' = -source on [0, length]."""
    return Problem(
        name="rod", domain=box(x=(0, float(length))),
        residual=lambda u, x: {"pde": partials(u, x, "xx")[0] + source},
        conditions={"ends": value("x=0", 0.0)}, points={"residual": 4, "ends": 1},
        coefficients={"length": length, "source": source},
    )  # fmt: skip


def test_a_coefficient_of_the_domain_can_not_be_traced():
    (replica,) = _grid.replicas(["sum"], {"coefficients.length": [2.0]}, {})

    def traced(name):
        return _sweep._may_be_traced(lambda config: rod(**config.coefficients), replica, name)

    assert [traced(f"coefficients.{name}") for name in ("length", "source")] == [False, True]
    assert traced("learning_rate")


def test_memory_is_given_in_gibibytes(monkeypatch):
    monkeypatch.setattr(_memory, "limit", lambda: 123.0)
    assert _sweep._limit(2.0) == 2 * 1024**3 and _sweep._limit(None) == 123.0


@pytest.fixture
def fitted(monkeypatch):
    """The sizes into which a group of so many falls, each needing 10 bytes on one of 4 devices."""

    class Trainer:
        def __init__(self, group, problem_of, mesh, strategy):
            self.group = group

        def like(self):
            return None

        def compiled(self, like, chunk):
            return 10 * -(-len(self.group.replicas) // 4)

    monkeypatch.setattr(_group, "Trainer", Trainer)
    monkeypatch.setattr(_memory, "of_program", lambda compiled: compiled)

    def sizes(count, limit, there):
        monkeypatch.setattr(_memory, "limit", lambda: there)
        (group,) = _grid.groups(_grid.replicas(["sum"], {"seed": range(count)}, SHORT))
        mesh = SimpleNamespace(shape={"replicas": 4})
        said = []
        made = _sweep._fitting(group, None, mesh, "map", limit, said.append)
        assert [r for part in made for r in part.group.replicas] == list(group.replicas)
        assert all(part.group.numbers == group.numbers for part in made)
        assert bool(said) == (len(made) > 1)
        return [len(part.group.replicas) for part in made]

    return sizes


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [
        (17, 50, [17]),
        (17, 30, [8, 8, 1]),  # 17 · 30/50 is 10, of which a multiple of 4
        (17, 10, [4, 4, 4, 4, 1]),
        (17, 5, [4, 4, 4, 4, 1]),  # one on each device is the least
        (3, 5, [3]),
    ],
)
def test_a_group_falls_into_parts_that_fill_the_devices(fitted, count, limit, expected):
    assert fitted(count, limit, there=30) == expected


def test_a_network_too_large_for_a_device_is_one_line(fitted):
    assert fitted(17, 10, there=10) == [4, 4, 4, 4, 1]
    with pytest.raises(ConfigError, match="one network on each device needs"):
        fitted(17, 9, there=9)


@pytest.fixture
def stages(monkeypatch, tmp_path):
    """What a sweep trains in turn: stage, where it begins, groups of names; nothing is computed."""
    seen = []

    def train(groups, fit, store, begin, stage, title, shown):
        names = [[replica.name for replica in group.replicas] for group in groups]
        seen.append((stage, begin, names))
        done = store._results.setdefault(_store._file(stage), {})
        done.update({r.name: {"score": r.config.learning_rate} for g in groups for r in g.replicas})

    monkeypatch.setattr(_sweep, "_train", train)
    monkeypatch.setattr(_table, "rows", lambda replicas, results: [])
    monkeypatch.setattr(_table, "write", lambda folder, rows: None)
    monkeypatch.setattr(reporting, "write_sweep", lambda path: None)
    return seen


def test_the_best_go_on_from_where_they_were(stages, tmp_path):
    """Scores are the learning rates: the lowest two of four go on, then the lowest."""
    grid = {"learning_rate": [4e-3, 1e-3, 3e-3, 2e-3]}
    sweeps.sweep(
        "poisson1d", ["sum"], grid, output_dir=tmp_path / "s", halving=2, steps=40, **SHORT
    )
    names = [f"sum-learning_rate={rate}" for rate in grid["learning_rate"]]
    assert stages == [
        (10, 0, [names]),
        (20, 10, [[names[1], names[3]]]),
        (None, 20, [[names[1]]]),
    ]


def test_coefficients_that_can_not_be_traced_make_groups(stages, tmp_path, monkeypatch):
    monkeypatch.setattr(_sweep, "_problem_of", lambda problem, config: rod(**config.coefficients))
    grid = {"coefficients.length": [1.0, 2.0], "coefficients.source": [1.0, 3.0]}
    sweeps.sweep(rod(), ["sum"], grid, output_dir=tmp_path / "s", steps=10, **SHORT)
    ((_, _, groups),) = stages
    assert [[name.count("length=1.0") for name in names] for names in groups] == [[1, 1], [0, 0]]


@pytest.mark.parametrize("stage", [20, None])
def test_a_group_is_trained_to_its_stage_from_what_it_inherits(stage, monkeypatch):
    (group,) = _grid.groups(_grid.replicas(["sum"], {"seed": [0]}, {"steps": 40, **SHORT}))
    trainer, kept, asked = SimpleNamespace(group=group), [], []

    def train(trainer, folder, say, show, *, until=None, inherit=lambda like: None):
        asked.append((folder, until, inherit("like")))
        return "outcomes"

    monkeypatch.setattr(_group, "train", train)
    store = SimpleNamespace(
        open=lambda group: "folder",
        inherited=lambda group, step, like: (step, like),
        keep=lambda *given: kept.append(given),
    )
    _sweep._train([group], lambda group, say: [trainer], store, 10, stage, "title", False)
    assert asked == [("folder", stage, (10, "like"))]
    assert kept == [(trainer, "folder", stage, "outcomes")]
