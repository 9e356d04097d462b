"""The tables of the documentation are those of the result files."""

import json
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import estimate, intervals, metric, rows, tables
from benchmarks.rows import PROBLEMS
from modsync_jax import optimizers, problems, reporting
from modsync_jax.training import TrainConfig, _estimate, _losses, _step

EXAMPLES = tables.DOCS / "examples"


@pytest.mark.parametrize("path", tables.PAGES, ids=lambda path: path.name)
def test_the_pages_show_what_the_result_files_hold(path):
    page = path.read_text()
    assert page.count("<!-- end -->") >= 1
    assert page == tables.updated(page), "run python -m benchmarks.tables"


@pytest.mark.parametrize("folder", sorted(EXAMPLES.iterdir()), ids=lambda folder: folder.name)
def test_the_pages_of_examples_say_what_their_files_hold(folder):
    assert (folder / "README.md").read_text() == reporting.diagnosis_markdown(folder)


def test_memory_is_compared_between_methods(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    case = {"depth": 5, "width": 128, "points": 1_000_000, "block_points": 2048}
    rows = [
        case | {"method": "sum", "gigabytes": 0.5, "milliseconds": 8e3},
        case | {"method": "dcgd", "gigabytes": 0.75, "milliseconds": 9e3},
        case | {"method": "sum", "block_points": 1_000_000, "gigabytes": 10, "milliseconds": None},
        case | {"method": "dcgd", "block_points": 1_000_000, "gigabytes": 20, "milliseconds": None},
    ]
    (tmp_path / "memory_cpu.json").write_text(tables.json.dumps({"rows": rows}))
    lines = [
        [c.strip() for c in x.split("|")[1:-1]] for x in tables.table("memory_cpu").split("\n")
    ]
    assert lines[2] == ["5x128", "1,000,000", "2,048", "0.50", "8,000", "0.75", "9,000", "1.50"]
    assert lines[3] == [
        "5x128",
        "1,000,000",
        "all",
        *["10.00", "not run", "20.00", "not run"],
        "2.00",
    ]


def test_a_table_follows_its_result_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    kinds = ("selected", "smallest", "final", "median_of_last_ten")
    numbers = {k: 0.0123 for k in kinds} | {f"{k}_spread": 1.5 for k in kinds}
    row = {"problem": "burgers", "method": "dcgd", "seeds": 3, "failed": 1, **numbers}
    (tmp_path / "accuracy_published.json").write_text(tables.json.dumps({"table": [row]}))
    page = "before\n<!-- accuracy_published -->\nold\n<!-- end -->\nafter\n"
    made = tables.updated(page)
    assert "old" not in made and made.startswith("before") and made.endswith("after\n")
    line = next(line for line in made.splitlines() if "dcgd" in line)
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "burgers", "dcgd", "3, 1 failed", *["1.23e-2 (×÷ 1.50)"] * 4, "1.04e-2"
    ]  # fmt: skip
    assert tables.updated(made) == made


def test_a_table_across_has_a_column_per_size(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    rows = [
        {"method": m, "size": s, "over_adam": r}
        for m, s, r in [("sum", "3x50", 1.0), ("dcgd", "3x50", 1.014), ("dcgd", "5x128", 0.999)]
    ]
    (tmp_path / "step_time_x.json").write_text(tables.json.dumps({"rows": rows}))
    made = tables.updated("<!-- across step_time_x -->\n<!-- end -->\n").splitlines()
    assert made[2:6] == [
        "| method | 3x50 | 5x128 |", "|---|---|---|", "| sum | 1.00 |  |", "| dcgd | 1.01 | 1.00 |"
    ]  # fmt: skip
    assert tables.updated("\n".join(made)) == "\n".join(made)
    marker = "<!-- across step_time_x of dcgd,other -->"
    short = tables.updated(f"{marker}\n<!-- end -->\n").splitlines()
    assert short[0] == marker and short[2:6] == [made[2], made[3], made[5], ""]


def test_a_drop_in_step_stands_beside_the_own_step_of_its_case(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    case = {"points": "own", "objectives": 4}
    rows = [
        case | {"step": step, "milliseconds": 2.0, "over_own": ratio, "over_own_95": [0.9, 3.0]}
        for step, ratio in (("own", 1.0), ("split", 1.004), ("vmap", 2.5))
    ]
    (tmp_path / "drop_in_x.json").write_text(tables.json.dumps({"rows": rows}))
    line = tables.table("drop_in_x").splitlines()[2]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "points of their own", "4", "2.00", "1.00 (0.90–3.00)", "2.50 (0.90–3.00)"
    ]  # fmt: skip


def _metric_row(part, problem, selected, objectives="grouped", **settings):
    row = {"part": part, "problem": problem, "objectives": objectives, **settings}
    return row | {"errors": {"selected": selected}}


def test_a_table_of_the_study_of_metrics_has_ratios_to_its_first_column(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    # Evaluations of the random start after 0, 1,000, 2,000 and 3,000 iterations; the second row was
    # left 2,000 iterations, of whose evaluations the second has the least score.
    random = {"steps": 3_000, "history": [1.0, 8e-3, 9e-3, 2e-3], "scores": [9.0, 1.0, 2.0, 0.5]}
    found = [
        _metric_row("starts", "heat", 1e-3, start="none", seed=0, **random),
        _metric_row("starts", "heat", 4e-3, start="none", seed=1, **random),
        _metric_row("starts", "heat", 4e-3, start="dcgd", seed=0, steps=4_000),
        _metric_row("starts", "heat", 2e-3, "each", start="none", seed=0, **random),
        # too few iterations left to compare
        _metric_row("starts", "heat", 1e-3, "each", start="dcgd", seed=0, steps=2_900),
        _metric_row("starts", "wave", 1e-2, start="none", seed=0, **random),
        _metric_row("race", "wave", 1.0, method="sum", start="none"),
    ]
    (tmp_path / "metric.json").write_text(json.dumps({"rows": found}))
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in tables.table("metric of starts").splitlines()
    ]
    assert lines[0] == ["problem", "objectives", "none", "dcgd"]
    assert lines[2:] == [
        ["`heat`", "each", "2.00e-3", "1.00e-3"],
        ["`heat`", "grouped", "2.00e-3\xa0×÷\xa02.67", "4.00e-3"],
        ["`wave`", "grouped", "1.00e-2", ""],
        ["over `none`", "", "", "1 (0.5 to 2)"],
        ["the same at equal iterations of the recipe", "", "", "0.5 (0.5 to 0.5)"],
    ]


def test_tables_of_interactions_show_ways_and_shares(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    way = {"milliseconds": 2.5, "over_first": [30.0, 28.0, 31.5], "largest_difference": 2e-7}
    share = {"steps": 1000, "above": {"1e-12": 1.0, "0.0001": 0.25}, "cosine_above": 0.5}
    rows = [
        {"part": "ways", "way": "vmap", **way},
        {"part": "shares", "dtype": "float32", **share},
    ]
    (tmp_path / "interaction_cpu.json").write_text(json.dumps({"rows": rows}))
    last = tables.table("interaction_cpu of ways").splitlines()[-1]
    assert last == "| vmap | 2.50 | 30 (28–31.5) | 2e-07 |"
    head, _, last = tables.table("interaction_cpu of shares").splitlines()
    assert head == "| precision | Adam steps | above 1e-12 | above 0.0001 | cosine above 0.01 |"
    assert last == "| float32 | 1,000 | 100.0% | 25.0% | 50.0% |"


def test_a_table_of_measures_has_a_row_for_each_and_a_column_for_each_size(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    rows = [
        {"size": size, "measures": name, "over_none": ratio, "over_none_95": [ratio - 0.01, 1.5]}
        for size, scale in (("3x50", 1), ("5x128", 0.5))
        for name, ratio in (("the default", 1.25 * scale), ("interaction", 1.125 * scale))
    ]
    (tmp_path / "measures_cpu.json").write_text(json.dumps({"rows": rows}))
    lines = tables.table("measures_cpu").splitlines()
    assert lines[0] == "| measures | 3×50, over none (95%) | 5×128, over none (95%) |"
    assert lines[-1] == "| `interaction` | 1.125 (1.115–1.500) | 0.562 (0.552–1.500) |"


def test_a_table_of_diagnoses_has_a_row_for_each_problem_and_counts_regimes(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    battery = [
        {"problem": "heat", "method": name, "selected": error}
        for name, error in (("sum", 0.5), ("lra", 0.25), ("dcgd", 1.0))
    ]
    (tmp_path / "accuracy_battery.json").write_text(json.dumps({"table": battery}))
    rows = [
        {
            "problem": problem, "seed": seed, "regime": regime,
            "evidence": {"norm_ratio": ratio, "lasting": 0.25 * seed, "rms_cosine": 0.5},
        }
        for problem, seed, regime, ratio in (
            ("heat", 0, "low", 2.0), ("heat", 1, "conflict", 8.0), ("burgers", 0, "low", 9.0)
        )
    ]  # fmt: skip
    (tmp_path / "diagnosis.json").write_text(json.dumps({"rows": rows}))
    *_, burgers, heat = tables.table("diagnosis").splitlines()
    assert burgers == "| `burgers` (held back) | 9 (9 to 9) | 0% | 0.50 | low |  |  |"
    assert heat == "| `heat` | 4 (2 to 8) | 12% | 0.50 | low (1), conflict (1) | 0.5 | 2 |"


def test_a_table_of_cosines_is_of_two_objectives_and_of_the_worst_pair(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    cosines = {"grouped": [[-0.5], [0.1]], "each": [[0.4, -0.9, 0.0]]}
    found = [
        {
            "part": "cosines", "trainer": "soap", "objectives": kind,
            "marks": {"0": {"euclidean": values}, "1000": {"euclidean": values}},
        }
        for kind, runs in cosines.items() for values in runs
    ]  # fmt: skip
    (tmp_path / "metric.json").write_text(json.dumps({"rows": found}))
    head, _, line = tables.table("metric of cosines").splitlines()
    assert head == "| trained by | metric | 0 steps | 1,000 steps |"
    assert line == "| SOAP | Euclidean | -0.20 / -0.90 | -0.20 / -0.90 |"


def test_a_figure_of_errors_has_a_panel_for_each_problem_and_a_colour_for_each_name():
    found = [
        {"problem": problem, "peer": peer, "cores": 1, "seconds": [1, 2], "history": [1.0, 0.1]}
        for problem in ("heat", "wave") for peer in ("a", "b")
    ]  # fmt: skip
    figure = rows.draw(found, lambda run: run["peer"], ["other", "b", "a"])
    assert [axis.get_title() for axis in figure.axes] == ["heat", "wave"]
    for axis in figure.axes:
        first, second = (line.get_color() for line in axis.lines)  # of a and of b
        assert first != second
    one, other = figure.axes
    assert one.lines[0].get_color() == other.lines[0].get_color()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["b", "a"]


def test_rows_are_filled_where_they_are_missing(tmp_path, monkeypatch):
    """Each run is a process, and a file that was cut off after a row goes on."""
    (tmp_path / "squares.py").write_text(
        "import json, sys\n"
        "run = json.loads(sys.argv[1].removeprefix('--one='))\n"
        "print('a line before')\n"
        "print(json.dumps({'square': run['x'] ** 2, 'parts': [run['x']]}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path, seen = tmp_path / "rows.json", []
    wanted = [{"x": 3, "seed": 0}, {"x": 4, "seed": 0}]
    every = len(os.sched_getaffinity(0))
    rows.fill("squares", path, wanted[:1], every, lambda row: seen.append(row["x"]) or "")
    rows.fill("squares", path, wanted, every, lambda row: seen.append(row["x"]) or "")
    assert seen == [3, 4]
    assert rows.load(path) == [
        run | {"cores": every, "square": run["x"] ** 2, "parts": [run["x"]]} for run in wanted
    ]
    rows.fill("squares", path, wanted[1:], 1, lambda row: seen.append(row["x"]) or "")
    assert seen == [3, 4] + [4] * (every > 1)  # on other cores it is another run


def test_runs_on_one_core_each_go_on_at_once(tmp_path, monkeypatch):
    """Each of as many processes as there are cores waits until all of them have begun."""
    (tmp_path / "meets.py").write_text(
        "import json, os, pathlib, sys, time\n"
        "run = json.loads(sys.argv[1].removeprefix('--one='))\n"
        "here = pathlib.Path(__file__).parent\n"
        "(here / f'{run[\"x\"]}.began').touch()\n"
        "while len(list(here.glob('*.began'))) < run['at_once']: time.sleep(0.01)\n"
        "print(json.dumps({'on': sorted(os.sched_getaffinity(0))}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    cores = sorted(os.sched_getaffinity(0))
    wanted = [
        {
            "x": x,
            "at_once": len(cores),
        }
        for x in range(len(cores) + 1)
    ]
    rows.fill("meets", tmp_path / "rows.json", wanted, 1, lambda row: "")
    found = rows.load(tmp_path / "rows.json")
    assert sorted(row["x"] for row in found) == list(range(len(cores) + 1))
    assert all(len(row["on"]) == 1 for row in found)
    assert {row["on"][0] for row in found} == set(cores)
    assert sorted(os.sched_getaffinity(0)) == cores


def test_runs_after_one_that_failed_are_not_begun(tmp_path, monkeypatch):
    (tmp_path / "fails.py").write_text("print('begun', file=open('begun', 'a')); exit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r'"x": 1. ended with exit status 3'):
        every = len(os.sched_getaffinity(0))
        rows.fill("fails", tmp_path / "rows.json", [{"x": 1}, {"x": 2}], every, lambda row: "")
    assert not rows.load(tmp_path / "rows.json")
    assert (tmp_path / "begun").read_text() == "begun\n"


def test_a_command_line_asks_for_a_product_of_runs_or_does_one(monkeypatch, capsys):
    def asked(*arguments):
        monkeypatch.setattr("sys.argv", ["program", *arguments])
        one = {"minutes": 2.0, "seeds": 2, "problem": ["heat", "wave"], "peer": ["a"]}
        return rows.asked("Question?", lambda **run: {"found": run["seed"] + 1}, **one)

    found, cores = asked("--problems=wave,heat", "--minutes=0.5")
    assert [(run["seed"], run["problem"]) for run in found] == [
        (0, "wave"), (0, "heat"), (1, "wave"), (1, "heat"),
    ]  # fmt: skip
    assert all(run["minutes"] == 0.5 and run["peer"] == "a" for run in found)
    assert cores == len(os.sched_getaffinity(0)) and asked("--cores=1")[1] == 1
    with pytest.raises(SystemExit):
        asked("--cores=4096")
    assert "--cores is 4096; this machine has" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        asked('--one={"seed": 4}')
    assert not ended.value.code and json.loads(capsys.readouterr().out) == {"found": 5}
    monkeypatch.setattr("sys.argv", ["program", "--weights=1e-3"])
    found, _ = rows.asked("Question?", dict, seeds=1, width=(16, 128), weight=(0.5,))
    assert found == [{"seed": 0, "width": width, "weight": 1e-3} for width in (16, 128)]


def test_a_history_is_selected_by_finite_scores_and_thinned():
    seconds, errors = [0.0, 1.004, 2.0, 3.0], [9.0, 4.0, 1.0, 2.00004]
    found = rows.history(seconds, errors, [5.0, 2.0, float("nan"), 3.0], 3)
    assert found["errors"] == {"selected": 4.0, "smallest": 1.0, "final": 2.00004}
    assert found["seconds"] == [0.0, 2.0, 3.0] and found["history"] == [9.0, 1.0, 2.0]


def test_the_table_of_intervals_counts_those_that_hold_the_truth():
    ends = [(1.9, 2.1), (2.01, 2.05), (1.7, 2.0), (1.0, 1.9)]
    rows = [
        {"problem": "wave", "truth": 2.0, "low": a, "high": b, "found": (a + b) / 2}
        for a, b in ends
    ]
    head, line = intervals.table(rows)
    assert dict(zip(head, line, strict=True)) == {
        "problem": "`wave`", "unknown": "speed, from 1.5", "truth": "2",
        "truth within 95%": "2 of 4", "half width": "6.25%", "miss": "4.50%",
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("objectives", ["grouped", "each"])
def test_a_step_of_the_sum_in_the_metric_is_one_of_gauss_newton(x64, objectives):
    found = problems.get("klein_gordon2d")
    config = TrainConfig(width=4, depth=1, dtype="float64", objectives=objectives)
    network = _step.network_of(found, config)
    losses = _losses.build(found, network, config, lambda points: points)
    params = _step.build(found, network, config).init(3).params
    batch = losses.sample(jax.random.key(1), 1, jnp.float64)
    tx = optimizers.gauss_newton()
    updates, state = tx.update(
        None,
        tx.init(params),
        params,
        residual_fn=partial(losses.residuals, batch=batch),
        jacobian_fn=partial(losses.jacobian, batch=batch),
    )
    owners = metric._owners(losses, params, batch, found.objective_terms(objectives))
    np.testing.assert_array_equal(owners.sum(0), 1)  # each residual has one objective
    step = partial(metric.damped_step, losses, metric.WEIGHTS["sum"], owners, batch)
    moved, damping, growth = params, jnp.zeros(()), jnp.full((), 2.0)
    for _ in range(int(state.evaluations)):  # all but the last one fail
        moved, damping, growth = step(moved, damping, growth)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(updates))
    assert largest > 1e-3
    # The system's condition number is about 1e3 / damping, 1e6: 1e-16 times it.
    jax.tree.map(
        lambda new, old, u: np.testing.assert_allclose(new - old, u, atol=1e-9 * largest),
        moved,
        params,
        updates,
    )
    np.testing.assert_allclose(damping, state.damping, rtol=1e-9)


def test_a_table_of_estimates_counts_those_within_a_factor_of_three(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    names = ("step", "score", "step weighed", "noise")
    found = [
        {"run": "5min-heat-recipe-0", "error": 2e-6, "estimates": dict.fromkeys(names, e)}
        for e in (2e-6, 8e-6, 0.5e-6)
    ]
    (tmp_path / "estimate.json").write_text(json.dumps({"rows": found}))
    made = tables.table("estimate").splitlines()
    assert made[2] == "| `heat` | 2.00e-6 | 1 | 1 | 1 | 1 |"
    assert made[3:5] == [made[2].replace(" 1 |", f" {ratio} |") for ratio in ("4", "0.25")]
    assert made[5] == "| within a factor of three |  | 1 | 1 | 1 | 1 |"


def test_runs_tell_the_reliability_that_was_measured():
    rows = json.loads((tables.RESULTS / "estimate.json").read_text())["rows"]
    assert len({row["run"] for row in rows}) == len(rows) == len(PROBLEMS)
    count = estimate.near(rows, "step")
    assert _estimate.RELIABILITY.endswith(f"on {count} of {len(rows)} problems")
