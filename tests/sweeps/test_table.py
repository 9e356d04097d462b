"""The table of a sweep: what a row says of a replica."""

from types import SimpleNamespace

import numpy as np
import pytest

from modsync_jax.sweeps import _grid, _table

KINDS = ("selected", "smallest", "final", "median_of_last_ten")


def result(steps=30, **changes):
    errors = {
        "relative_l2": dict(zip(KINDS, (0.1, 0.2, 0.3, 0.4), strict=True)),
        "mean_absolute": dict(zip(KINDS, (1.1, 1.2, 1.3, 1.4), strict=True)),
    }
    return {
        "steps": steps, "selected_step": 20, "parameters": 7, "score": 0.05, "errors": errors,
        "loss": {"selected": 2.0, "final": 3.0}, "keep": {"selected": 0.8, "final": 0.9},
        "unknowns": {"c": 4.0}, "timing": {"steps_per_second": 50.0}, **changes,
    }  # fmt: skip


def row(failure="", score=0.05, **changes):
    (replica,) = _grid.replicas(["sum"], {"seed": [3]}, {"steps": 20, "then": "lbfgs:10"})
    kept = {"result": result(**changes), "failure": failure, "score": score}
    return _table.rows([replica], [kept])[0]


def test_a_row_says_what_a_run_came_to():
    assert row() == {
        "method": "sum", "seed": 3, "status": "finished", "failure": "",
        "replica": "sum-seed=3", "steps": 30, "score": 0.05, "selected": 0.1, "smallest": 0.2,
        "final": 0.3, "median_of_last_ten": 0.4, "mean_absolute": 1.1, "loss_selected": 2.0,
        "loss_final": 3.0, "unknown_c": 4.0, "keep": 0.8, "selected_step": 20, "parameters": 7,
        "milliseconds_a_step": 20.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("failure", "steps", "status"),
    [("", 30, "finished"), ("", 20, "stopped"), ("loss is nan", 30, "not finite")],
)
def test_a_replica_is_finished_after_its_polish(failure, steps, status):
    assert row(failure, steps=steps)["status"] == status


def test_what_there_is_not_is_none():
    """A replica that failed has no score, whatever it had reached before."""
    made = row("loss is nan", None, keep=None, errors=None, timing={"steps_per_second": 0.0})
    assert [made[n] for n in ("score", "keep", "milliseconds_a_step")] == [None] * 3
    assert "selected" not in made and "mean_absolute" not in made


def test_metrics_of_a_replica_that_stopped_early_end_in_nan():
    runs = [SimpleNamespace(rows=[{"step": 10.0 * i, "loss": k + i} for i in range(n)])
            for k, n in ((1.0, 1), (5.0, 3), (9.0, 2))]  # fmt: skip
    columns, steps = _table.columns(runs)
    np.testing.assert_array_equal(steps, [0, 10, 20])
    nan = np.nan
    np.testing.assert_array_equal(columns["loss"], [[1, nan, nan], [5, 6, 7], [9, 10, nan]])
