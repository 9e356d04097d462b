"""Successive halving: who goes on, and that going on changes nothing."""

import json

import pytest

from modsync_jax import sweeps
from modsync_jax.sweeps import _grid, _halving
from modsync_jax.training import ConfigError

SHORT = {
    "steps": 60, "chunk": 5, "eval_every": 5, "checkpoint_every": 60, "depth": 1, "width": 6,
    "points": {"residual": 32}, "progress": False,
}  # fmt: skip


def replicas(grid, **settings):
    return _grid.replicas(["dcgd"], grid, {"chunk": 10, "eval_every": 10, **settings})


@pytest.mark.parametrize(
    ("count", "eta", "steps", "expected"),
    [
        (27, 3, 270, [10, 30, 90]),
        (27, 3, 90, [10, 30]),  # no rows of the metrics below the 10th step
        (4, 2, 90, [20, 40]),  # a row is there every 10 steps
        (5, 2, 800, [100, 200, 400]),  # 5, 3, 2, 1
        (1, 3, 270, []),
        (9, 0, 270, []),
    ],
)
def test_rungs_are_rows_of_the_metrics_a_factor_apart(count, eta, steps, expected):
    rates = {"learning_rate": [1e-3 * (i + 1) for i in range(count)], "seed": [0, 1]}
    settings = {"steps": steps, "checkpoint_every": 10}
    assert _halving.rungs(replicas(rates, **settings), eta) == expected


def test_configurations_are_compared_by_the_geometric_mean_over_their_finite_seeds():
    found = replicas({"beta": [0.1, 0.2, 0.3, 0.4, 0.5], "seed": [0, 1]}, checkpoint_every=10)
    values = [(1.0, 4.0), (0.1, 10.0), (None, 3.0), (None, None), (2.0, 2.0)]
    scores = dict(zip((r.name for r in found), (v for pair in values for v in pair), strict=True))
    # Means 2, 1, 3, none, 2: a tie goes to the first.
    assert {r.point["beta"] for r in _halving.survivors(found, scores, 3)} == {0.1, 0.2}
    kept = _halving.survivors(found, scores, 2)
    assert [(r.point["beta"], r.point["seed"]) for r in kept] == [
        (b, s) for b in (0.1, 0.2, 0.5) for s in (0, 1)
    ]
    scores[found[8].name] = 0.0  # exact, and so better than all
    assert {r.point["beta"] for r in _halving.survivors(found, scores, 5)} == {0.5}


def test_mistakes_are_one_clear_line(tmp_path):
    with pytest.raises(ConfigError, match="halving is 1; it must be 0"):
        _halving.rungs(replicas({"seed": [0]}), 1)
    unequal = replicas({"steps": [2000, 4000]})
    with pytest.raises(ConfigError, match="take steps and eval_every out of the grid"):
        _halving.rungs(unequal, 2)


@pytest.mark.long
@pytest.mark.slow
def test_those_that_go_on_are_as_without_halving_and_it_resumes(tmp_path):
    """Six configurations in two groups: 6, 2 and 1 of them, two seeds each."""
    grid = {"width": [4, 6], "learning_rate": [1e-4, 1e-3, 1e-2], "seed": [0, 1]}
    settings = {k: v for k, v in SHORT.items() if k != "width"}

    def swept(name, **more):
        return sweeps.sweep(
            "burgers", ["dcgd"], grid, output_dir=tmp_path / name, **settings, **more
        )

    whole = {row["replica"]: row for row in swept("whole", export="none")}
    table = swept("halved", halving=3, export="all")
    steps = [row["steps"] for row in table]
    assert sorted(steps) == [5] * 8 + [20] * 2 + [60] * 2
    by_status = {s: [r for r in table if r["status"] == s] for s in ("finished", "stopped")}
    assert [len(rows) for rows in by_status.values()] == [2, 10]
    assert len({row["learning_rate"] for row in by_status["finished"]}) == 1
    for row in by_status["finished"]:
        # The same steps in programs of other sizes: 60 steps of float32 rounding.
        assert row["final"] == pytest.approx(whole[row["replica"]]["final"], rel=1e-4)
    exported = sorted(path.name for path in (tmp_path / "halved" / "runs").iterdir())
    assert exported == sorted(row["replica"] for row in by_status["finished"])
    assert "stopped at 5" in (page := (tmp_path / "halved" / "sweep.html").read_text())
    assert "10 of them stopped early" in page

    # Without what came last, as after a kill, the same is made again from the states before.
    ends = list((tmp_path / "halved" / "groups").glob("*/results.json"))
    begun = {p: p.stat().st_mtime_ns for p in (tmp_path / "halved").glob("groups/*/results-*")}
    assert len(ends) == 1 and begun
    names = json.loads((ends[0].parent / "config.json").read_text())["replicas"]
    for path in sorted(ends[0].parent.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    again = swept("halved", halving=3, export="all", resume=True)
    assert begun == {p: p.stat().st_mtime_ns for p in begun if p.exists()}
    for one, other in zip(table, again, strict=True):
        assert one["status"] == other["status"]
        assert one["final"] == pytest.approx(other["final"], rel=1e-6)
    assert len(names) == 2
