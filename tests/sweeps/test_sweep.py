"""Replicas of a sweep are single runs, whatever the mapping, the devices and the stops."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pyarrow import parquet

import modsync_jax
from modsync_jax import problems, sweeps
from modsync_jax.calculus import partials
from modsync_jax.problems import Problem
from modsync_jax.sampling import box
from modsync_jax.sweeps import _grid, _group, _replicas
from modsync_jax.training import ConfigError, Interrupted, RunError, _schedule

ROOT = Path(__file__).parents[2]
PLACES = jax.__version_info__ >= (0, 7)  # whether points may be shared
TINY = {"progress": False, "depth": 1, "width": 6, "points": {"residual": 32}}
SHORT = {"steps": 20, "chunk": 10, "eval_every": 10, "checkpoint_every": 10, **TINY}
COLUMNS = ("selected", "final", "loss_selected", "loss_final")


def swept(methods, grid, out, **settings):
    shared = {k: v for k, v in {"export": "none", **SHORT, **settings}.items() if k not in grid}
    return sweeps.sweep("burgers", methods, grid, output_dir=out, **shared)


def run_alone(row, grid, **settings):
    """What `solve` makes of a row of a sweep, by the row's columns."""
    given = {name: row[name] for name in grid if "." not in name}
    weights = {n.partition(".")[2]: row[n] for n in grid if n.startswith("loss_weights.")}
    alone = modsync_jax.solve(
        "burgers", row["method"], loss_weights=weights, **given, **settings
    ).result
    errors, loss = alone["errors"]["relative_l2"], alone["loss"]
    values = (errors["selected"], errors["final"], loss["selected"], loss["final"])
    return dict(zip(COLUMNS, values, strict=True))


GRID = {
    "seed": [3, 4],
    "learning_rate": [1e-3, 3e-3],
    "beta": [0.3, 0.1],
    "min_keep": [0.0, 0.9],
    "sparsity_weight": [1e-4, 1e-3],
    "threshold_learning_rate": [1e-4, 1e-2],
    "loss_weights.boundary": [1.0, 10.0],
}


@pytest.mark.slow
def test_replicas_equal_single_runs_whatever_the_mapping(x64, tmp_path):
    """128 replicas on eight devices; 1e-9 is what 200 steps make of rounding in float64."""
    settings = {**SHORT, "steps": 200, "chunk": 100, "eval_every": 100, "checkpoint_every": 200}
    settings["dtype"] = "float64"
    assert jax.device_count() == 8
    tables = {
        (strategy, shared): swept(
            ["modsync+dcgd"], GRID, tmp_path / f"{strategy}{shared}",
            strategy=strategy, point_devices=shared, **settings,
        )
        for strategy, shared in (("map", 1), ("vmap", 1 + PLACES))
    }  # fmt: skip
    for one, other in zip(*tables.values(), strict=True):
        for name in COLUMNS:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-9)
    table = tables["map", 1]
    assert len(table) == 128
    for name, value in run_alone(table[101], GRID, **settings).items():
        np.testing.assert_allclose(table[101][name], value, rtol=1e-9)
    # Every number matters: each axis of the grid changes the result.
    losses = np.array([row["loss_final"] for row in table]).reshape([2] * len(GRID))
    for axis, name in enumerate(GRID):
        low, high = np.take(losses, 0, axis), np.take(losses, 1, axis)
        assert np.abs(high / low - 1).max() > 1e-6, name


@pytest.mark.slow
def test_replicas_equal_single_runs_in_float32(tmp_path):
    grid = {"seed": range(3), "learning_rate": [1e-3, 3e-3]}
    table = swept(["modsync+adapters(rank=2)+dcgd"], grid, tmp_path / "s")
    for name, value in run_alone(table[5], grid, **SHORT).items():
        np.testing.assert_allclose(table[5][name], value, rtol=1e-5)  # 20 steps of rounding


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_phases_of_replicas_are_those_of_single_runs_also_after_a_stop(strategy, tmp_path, x64):
    """Quasi-Newton in float64 after steps in float32, whose points are redrawn once."""
    grid = {"seed": [3, 4], "loss_weights.boundary": [1.0, 10.0]}
    settings = {**SHORT, "then": "ssbroyden(redraw=10):20,adam:10"}
    table = swept(["dcgd"], grid, tmp_path / "s", strategy=strategy, **settings)
    for row in table:
        for name, value in run_alone(row, grid, **settings).items():
            # float32 steps differ by rounding, and quasi-Newton amplifies what it starts from
            np.testing.assert_allclose(row[name], value, rtol=1e-3)
        assert row["status"] == "finished" and row["steps"] == 50
    again = tmp_path / "again"
    halved = {**settings, "strategy": strategy}
    with pytest.MonkeyPatch.context() as patch:
        stops = iter([False, False, False, True])  # in the second phase
        patch.setattr(_group._hosts, "any_of", lambda flag: next(stops, False))
        with pytest.raises(Interrupted, match="stopped at step 30 of 50"):
            swept(["dcgd"], grid, again, **halved)
    for row, other in zip(swept(["dcgd"], grid, again, resume=True, **halved), table, strict=True):
        for name in COLUMNS:
            assert row[name] == other[name]  # the same program from the same bits


@pytest.mark.long
def test_a_replica_that_is_not_finite_does_not_touch_the_others(tmp_path, capsys):
    settings = {"optimizer": "sgd", "progress": True}
    good = {"seed": [0, 1], "learning_rate": [1e-3]}
    bad = {"seed": [0, 1], "learning_rate": [1e-3, 1e30]}
    alone = swept(["sum"], good, tmp_path / "a", **settings)
    mixed = swept(["sum"], bad, tmp_path / "b", **settings)
    assert [row["status"] for row in mixed] == ["finished", "not finite"] * 2
    assert "learning_rate=1e+30: step 1: loss" in capsys.readouterr().err
    assert all("loss" in row["failure"] for row in mixed[1::2])
    for one, other in zip(alone, mixed[::2], strict=True):
        assert one["final"] == pytest.approx(other["final"], rel=1e-6)  # float32, same program
    kept = list((tmp_path / "b" / "groups").glob("*/metrics.npz"))
    with np.load(kept[0]) as arrays:
        assert np.isfinite(arrays["loss"][::2]).all()
        assert np.isfinite(arrays["loss"][1::2, 0]).all()
        assert np.isnan(arrays["loss"][1::2, 1:]).all()


def breaking():
    """u'' = -sin x on [0, 3], whose residual is not a number once u exceeds 0.5."""

    def residual(u, x):
        values, u_xx = partials(u, x, "", "xx")
        return {"pde": u_xx + jnp.sin(x[0]) + 0.0 * jnp.sqrt(0.5 - values)}

    return Problem(
        name="breaking", domain=box(x=(0, 3)), residual=residual, reference=np.sin,
        conditions={"ends": problems.periodic("x=3", 0)},
        points={"residual": 32, "ends": 1},
    )  # fmt: skip


@pytest.mark.slow
def test_a_replica_that_breaks_while_it_improves_leaves_a_table_that_resumes(tmp_path):
    settings = {**SHORT, "steps": 400, "checkpoint_every": 100, "width": 8, "export": "all"}
    del settings["points"]
    grid = {"learning_rate": [1e-7, 5e-3]}
    for resume in (False, True):
        rows = sweeps.sweep(
            breaking(), ["sum"], grid, output_dir=tmp_path / "s", resume=resume, **settings
        )
        assert [row["status"] for row in rows] == ["finished", "not finite"]
        assert 0 < rows[1]["selected_step"] < rows[1]["steps"] < 400
        assert rows[1]["score"] is None and rows[0]["score"] > 0
        for path in (tmp_path / "s" / "groups").glob("*/results.json"):
            path.unlink()  # as after a kill between the last checkpoint and the results


@pytest.mark.slow
def test_hyperparameters_of_a_method_are_a_traced_axis(tmp_path):
    grid = {"cagrad.c": [0.2, 0.9], "seed": [0, 1]}
    rows = swept(["dcgd", "cagrad"], grid, tmp_path / "s")
    assert len(list((tmp_path / "s" / "groups").iterdir())) == 2
    assert [row["cagrad.c"] for row in rows] == [None, None, 0.2, 0.2, 0.9, 0.9]
    for row in rows[2:]:
        alone = modsync_jax.solve(
            "burgers", f"cagrad(c={row['cagrad.c']})", seed=row["seed"], **SHORT
        ).result
        expected = alone["errors"]["relative_l2"]["final"]
        assert row["final"] == pytest.approx(expected, rel=1e-5)  # 20 float32 steps
    assert rows[2]["final"] != rows[4]["final"]


@pytest.mark.long
def test_the_better_of_a_group_is_chosen_by_validation_not_by_test(tmp_path):
    """With a reference that is another function on the test grid than elsewhere."""
    calls = []

    def reference(points):
        calls.append(len(points))
        wrong = 5.0 if len(points) == 128**2 else 0.0
        return np.sin(points[:, 1:]) + wrong

    problem = dataclasses.replace(problems.get("burgers"), reference=reference)
    grid = {"seed": range(4)}
    rows = sweeps.sweep(problem, ["sum"], grid, output_dir=tmp_path / "s", export="best", **SHORT)
    assert 128**2 in calls
    by_score = min(rows, key=lambda row: row["score"])
    assert by_score != min(rows, key=lambda row: row["selected"])
    (exported,) = (tmp_path / "s" / "runs").iterdir()
    assert exported.name == by_score["replica"]


@pytest.mark.slow
def test_a_group_too_large_for_the_device_is_split(tmp_path, capsys):
    grid = {"seed": range(24)}
    whole = swept(["dcgd"], grid, tmp_path / "a", progress=True)
    assert "they run" not in capsys.readouterr().err
    parts = swept(["dcgd"], grid, tmp_path / "b", progress=True, memory_gib=1e-5)
    assert "24 replicas need" in (said := capsys.readouterr().err) and "they run 8 at" in said
    assert len(list((tmp_path / "b" / "groups").glob("*/results.json"))) == 3
    for one, other in zip(whole, parts, strict=True):
        assert one["final"] == pytest.approx(other["final"], rel=1e-6)  # float32, another batch


@pytest.mark.long
def test_the_table_is_the_same_in_all_its_forms_and_a_larger_grid_goes_on(tmp_path):
    out = tmp_path / "s"
    grid = {"width": [4], "seed": [0, 1]}
    table = swept(["dcgd"], grid, out, export="best")
    with (out / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0])[:4] == ["method", "width", "seed", "status"]
    columnar = parquet.read_table(out / "results.parquet").to_pylist()
    assert columnar == table
    for line, row in zip(lines, table, strict=True):
        assert {k: str("" if v is None else v) for k, v in row.items()} == line
    assert (out / "sweep.html").exists()
    (exported,) = (path.name for path in (out / "runs").iterdir())  # the best of the group
    best = modsync_jax.load(out / "runs" / exported)
    row = next(row for row in table if row["replica"] == exported)
    assert row["selected"] == min(row["selected"] for row in table)
    assert best.result["errors"]["relative_l2"]["selected"] == row["selected"]
    assert best(np.zeros((3, 2))).shape == (3, 1)

    made = {path: path.stat().st_mtime_ns for path in out.glob("groups/*/results.json")}
    grid["width"] = [6, 4]
    with pytest.raises(RunError, match="add --resume"):
        swept(["dcgd"], grid, out)
    with pytest.raises(RunError, match="another configuration"):
        swept(["sum"], grid, out, resume=True, depth=2)
    grown = swept(["dcgd"], grid, out, resume=True)
    assert [row["width"] for row in grown] == [6, 6, 4, 4]
    assert grown[2:] == table
    assert made == {path: path.stat().st_mtime_ns for path in made}


@pytest.mark.long
def test_a_network_too_large_for_a_device_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"one network on each device needs .* GiB and"):
        swept(["sum"], {"seed": [0]}, tmp_path / "s", width=200_000, depth=3)


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "pmap"}, "unknown strategy 'pmap'; did you mean"),
        ({"point_devices": 3}, "point_devices is 3; .*number of devices, 8|needs JAX 0.7"),
        ({"export": "some"}, "export is 'some'"),
        ({"widht": 3}, "unknown setting 'widht'"),
        ({"seed": 3}, "seed is an axis of the grid and a setting; give it once"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        sweeps.sweep(
            "burgers", ["sum"], {"seed": [0]}, output_dir=tmp_path / "s", **SHORT, **arguments
        )
    assert not (tmp_path / "s").exists()


def command(out, devices, *more):
    arguments = [
        "--problem=burgers", "--methods=dcgd", "--grid=seed=0..3;beta=0.1,0.3", "--steps=4000",
        "--chunk=100", "--eval_every=1000", "--checkpoint_every=1000", "--depth=1", "--width=6",
        "--points=residual=32", "--dtype=float64", "--platform=cpu", f"--output_dir={out}",
        f"--cpu_devices={devices}",
    ]  # fmt: skip
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.sweep", *arguments, *more],
        cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.faults
def test_a_killed_sweep_goes_on_where_it_was_on_other_devices(tmp_path):
    process = command(tmp_path / "whole", 4)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    process = command(tmp_path / "torn", 2)

    def saved():
        found = (tmp_path / "torn" / "groups").glob("*/checkpoints/*")
        return [int(path.name) for path in found if path.name.isdigit()]

    deadline = time.monotonic() + 200
    while not saved():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "torn" / "results.csv").exists()
    assert max(saved()) < 4000
    process = command(tmp_path / "torn", 3, "--resume")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    whole, torn = (
        json.loads(next((tmp_path / name / "groups").glob("*/results.json")).read_text())
        for name in ("whole", "torn")
    )
    assert whole.keys() == torn.keys() and len(whole) == 8
    for name in whole:
        errors = [run[name]["result"]["errors"]["relative_l2"] for run in (whole, torn)]
        # 4000 float64 steps make of rounding less than this for a network of 13 parameters.
        assert errors[1] == pytest.approx(errors[0], rel=1e-6)


ROD = """
from modsync_jax.calculus import partials
from modsync_jax.problems import Problem, value
from modsync_jax.sampling import box

def rod(length=1.0, source=1.0):
    return Problem(
        name="rod", domain=box(x=(0, float(length))),
        residual=lambda u, x: {"pde": partials(u, x, "xx")[0] + source},
        conditions={"ends": value("x=0", 0.0)}, points={"residual": 16, "ends": 1},
        coefficients={"length": length, "source": source},
    )
"""


@pytest.mark.slow
def test_coefficients_of_the_equation_are_an_axis(tmp_path):
    """In one program where they can be traced, in groups where the domain depends on them."""
    grid = {"coefficients.viscosity": [1, 0.1]}  # whole numbers are numbers too
    table = swept(["dcgd"], grid, tmp_path / "s")
    assert len(list((tmp_path / "s" / "groups").iterdir())) == 1
    assert table[0]["selected"] != table[1]["selected"]
    alone = modsync_jax.solve("burgers", "dcgd", coefficients={"viscosity": 0.1}, **SHORT).result
    selected = alone["errors"]["relative_l2"]["selected"]
    np.testing.assert_allclose(table[1]["selected"], selected, rtol=1e-5)  # 20 float32 steps

    file = tmp_path / "rod.py"
    file.write_text(ROD)
    grid = {"coefficients.length": [1.0, 2.0], "coefficients.source": [1.0, 3.0]}
    table = sweeps.sweep(
        f"{file}:rod", ["sum"], grid, output_dir=tmp_path / "r", export="none", **SHORT
    )
    assert len(list((tmp_path / "r" / "groups").iterdir())) == 2
    losses = [row["loss_final"] for row in table]
    assert len(set(losses)) == 4 and np.isfinite(losses).all()


@pytest.mark.long
@pytest.mark.skipif(not PLACES, reason="older JAX can not place arrays inside of shard_map")
def test_devices_share_the_points_of_a_replica(tmp_path):
    """Half of the devices, half of the products each; the rest of the step is small."""
    config = {**SHORT, "width": 64, "depth": 3, "points": {"residual": 1024}}
    del config["progress"]
    flops = {}
    for shared in (1, 4):
        group = _grid.groups(_grid.replicas(["dcgd"], {}, config))[0]
        mesh = _replicas.make_mesh(shared)
        trainer = _group.Trainer(group, lambda config: problems.get("burgers"), mesh, "vmap")
        chunk = next(iter(_schedule.chunks(group.config)))
        compiled = trainer.compiled(trainer.like(), chunk)
        flops[shared] = compiled.cost_analysis()["flops"]
    assert flops[4] < 0.4 * flops[1]
