"""The cells of a study: what they are, how they are trained, and the files of their results."""

import dataclasses
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from modsync_jax import methods, problems, studies, sweeps
from modsync_jax.studies import Cell, Results
from modsync_jax.studies._cells import _kept, chosen_rate
from modsync_jax.training import PRESETS, ConfigError, TrainConfig

TINY = dataclasses.replace(
    studies.SCALES["small"], steps=40, seeds=2, widths=(4,), width=4, points={"residual": 16}
)
CELL = Cell("burgers", 4, "modsync+dcgd, paper")
TIMED = ("sum", "dcgd", "dcgd-proj", "modsync+dcgd", "modsync+dcgd-proj")


@pytest.mark.parametrize("name", studies.VARIANTS)
def test_every_variant_is_a_method_with_settings(name):
    variant = studies.VARIANTS[name]
    assert methods.parse(variant.method)
    TrainConfig.from_settings({"method": variant.method, **variant.settings, **variant.shape(64)})


def test_the_paper_s_preset_has_the_values_of_the_paper():
    preset = PRESETS["modsync-paper"]
    assert (preset["sparsity_weight"], preset["threshold_learning_rate"]) == (1e-4, 1e-4)
    assert preset["beta"] == 0.3 and preset["min_keep"] == 0.0
    assert dict(preset).items() <= studies.VARIANTS["modsync+dcgd, paper"].settings.items()
    assert studies.VARIANTS["dcgd + two thresholds, paper"].settings["beta"] == math.inf


@pytest.mark.parametrize("what", studies.WHAT)
@pytest.mark.parametrize("preset", studies.PRESETS)
def test_cells_are_of_known_problems_and_variants(what, preset):
    found = studies.cells(what, studies.SCALES["small"], preset)
    assert len(set(found)) == len(found)
    assert {cell.problem for cell in found} <= set(problems.names())
    assert {cell.variant for cell in found} <= set(studies.VARIANTS)
    assert {cell.width for cell in found} <= {*studies.SCALES["small"].widths}


def test_settings_differ_from_each_other_and_from_the_paper_s():
    asked = {**studies.CANDIDATES, **studies.CHOICES, **studies.SETUPS}
    configs = [
        dataclasses.replace(TrainConfig("modsync+dcgd"), **{**PRESETS["modsync-paper"], **settings})
        for settings in asked.values()
    ]
    assert all(a != b for k, a in enumerate(configs) for b in configs[:k])


@pytest.mark.parametrize("width", [8, 16, 64, 128, 256])
def test_other_shapes_have_the_number_of_weights_that_they_name(width):
    def count(width, depth=5):
        return sum(n * m + m for n, m in itertools.pairwise([2, *[width] * depth, 1]))

    deep = studies.CONTROLS["narrow and deep"].shape(width)
    assert deep["width"] == width // 2
    assert count(**deep) == pytest.approx(count(width), rel=0.08)  # a depth is whole
    kept = count(**studies.CONTROLS["narrower"].shape(width))
    assert kept == pytest.approx(0.86 * count(width), rel=0.12 if width < 64 else 0.02)


@pytest.mark.parametrize("what", ["candidates", "choices"])
def test_every_setting_has_a_base_of_its_own_setup(what):
    for name, pairs in studies.WHAT[what].pairs.items():
        for one, base in pairs:
            assert {one, base} <= {cell.variant for cell in studies.cells(what, TINY)}
            changed = studies.VARIANTS[one].settings
            setup = studies.SETUPS.get(name, {})
            assert studies.VARIANTS[base].settings == setup and setup.items() <= changed.items()


def test_the_rate_is_that_of_the_lowest_validation_error_of_a_finite_trial():
    def trial(rate, score, status="finished"):
        return {"learning_rate": rate, "score": score, "status": status, "selected": 1 - rate}

    lowest = [trial(1e-3, 0.3), trial(3e-3, 0.2), trial(3e-4, 0.1, "not finite")]
    assert chosen_rate(lowest) == 3e-3
    assert chosen_rate([trial(r, None, "not finite") for r in (1e-3, 3e-4)]) == 3e-4


def test_results_are_rows_that_survive_the_file(tmp_path):
    runs = [
        {**CELL._asdict(), "stage": stage, "seed": 0, "selected": 1.25e-7, "status": "finished"}
        for stage in ("trial", "final")
    ]
    other = Cell("wave", 8, "adam")
    results = Results(tmp_path, TINY)
    results.add(CELL, runs, [{**CELL._asdict(), "seed": 0, "step": 5, "error": math.nan}])
    results.add(other, [{**runs[1], **other._asdict(), "keep": 0.5}], [])
    read = Results(tmp_path, TINY)
    assert read.runs[:2] == runs and read.runs[2]["keep"] == 0.5
    assert read.final([CELL]) == [runs[1]] and read.seeds(other) == 1
    assert math.isnan(read.evaluations([CELL])[0]["error"])
    read.add(CELL, [{**runs[1], "selected": 1.0}], [])  # in the place of what it had
    again = Results(tmp_path, TINY)
    assert [row["selected"] for row in again.final([CELL])] == [1.0]
    assert len(again.runs) == 2 and not again.history
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".lock", "history.csv", "runs.csv", "study.json"}


def test_programs_that_add_at_the_same_time_lose_nothing(tmp_path):
    cells = [Cell("burgers", width, "adam") for width in range(8)]
    opened = [Results(tmp_path, TINY) for _ in cells]

    def add(results, cell):
        results.add(cell, [{**cell._asdict(), "stage": "final", "seed": 0}], [{**cell._asdict()}])

    with ThreadPoolExecutor() as pool:
        list(pool.map(add, opened, cells))
    read = Results(tmp_path, TINY)
    assert all(read.seeds(cell) == 1 for cell in cells) and len(read.history) == len(cells)


def test_runs_of_another_size_are_not_mixed_in(tmp_path):
    Results(tmp_path, TINY).add(CELL, [{**CELL._asdict(), "stage": "final", "seed": 0}], [])
    grown = dataclasses.replace(TINY, seeds=9, widths=(4, 8))
    assert Results(tmp_path, grown).seeds(CELL) == 1
    longer = dataclasses.replace(TINY, steps=80, rates=(1e-3,))
    with pytest.raises(ConfigError, match="holds a study with other steps, rates; give another"):
        Results(tmp_path, longer)


def test_of_pairs_of_objectives_the_paper_s_two_are_kept():
    kept = {"selected": 0.1, "norm_ratio": 2.0, "stationarity/relative": 0.3, "keep": 0.9}
    kept |= {"cosine/boundary~residual": 0.5, "interaction/residual>boundary": 1.0}
    row = kept | {"cosine/left~residual": 0.5, "interaction/left>boundary": 1.0, "replica": "x"}
    assert _kept(row | {"failure": None}) == kept


@pytest.mark.slow
def test_a_cell_is_its_trials_and_then_its_seeds_at_the_chosen_rate(tmp_path):
    placement = {"progress": False}
    rows, history = studies.train_cell(
        CELL, studies.VARIANTS[CELL.variant], TINY, tmp_path / "cell", **placement
    )
    trials, final = ([r for r in rows if r["stage"] == stage] for stage in ("trial", "final"))
    assert [row["learning_rate"] for row in trials] == list(studies.RATES)
    assert {row["seed"] for row in trials} == {studies.TRIAL_SEED}
    assert [row["seed"] for row in final] == [0, 1]
    best = min(trials, key=lambda row: row["score"])["learning_rate"]
    assert {row["learning_rate"] for row in final} == {best}
    assert {(row["seed"], row["step"]) for row in history} == {
        (seed, step) for seed in (0, 1) for step in range(0, 42, 2)
    }
    pair = {"cosine/boundary~residual", "spread/boundary~residual", "interaction/residual>boundary"}
    assert history[0].keys() == {*CELL._asdict(), "seed", "step", "error", "validation", *pair}
    alone = sweeps.sweep(
        "burgers", ["modsync+dcgd"], {"seed": [1]}, output_dir=tmp_path / "alone", progress=False,
        export="none", width=4, depth=5, steps=40, points={"residual": 16}, sampler="uniform",
        learning_rate=best, chunk=2, eval_every=2, checkpoint_every=40,
        **TINY.settings,
    )  # fmt: skip
    assert final[1]["selected"] == pytest.approx(alone[0]["selected"], rel=1e-4)  # float32


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on(tmp_path):
    command = [
        sys.executable, "-m", "experiments.reproduce", "--what=fig2", "--widths=4", "--seeds=2",
        "--steps=2000", f"--work_dir={tmp_path / 'work'}",
    ]  # fmt: skip

    def output(name):
        return [f"--output_dir={tmp_path / name}"]

    started = subprocess.Popen([*command, *output("killed")])
    while not list((tmp_path / "work").rglob("checkpoints/*")):
        assert started.poll() is None
        time.sleep(0.2)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    subprocess.run([*command, *output("killed")], check=True)
    subprocess.run([*command, *output("whole")], check=True)
    scale = dataclasses.replace(studies.SCALES["small"], steps=2_000)
    one, other = Results(tmp_path / "killed", scale), Results(tmp_path / "whole", scale)
    left_out = {"milliseconds_a_step", "commit"}
    for a, b in zip(one.runs, other.runs, strict=True):
        assert {k: v for k, v in a.items() if k not in left_out} == {
            k: v for k, v in b.items() if k not in left_out
        }
    assert one.history == other.history


def made_up(cells, seeds=3):
    """Results of cells without training."""
    rng = np.random.default_rng(0)
    runs, history = [], []
    for cell in cells:
        for seed in range(seeds):
            known = {**cell._asdict(), "seed": seed}
            errors = dict.fromkeys(("selected", "mean_absolute"), float(np.exp(rng.normal())))
            ended = {"stage": "final", "status": "finished", "learning_rate": 1e-3}
            runs.append({**known, **errors, **ended})
            values = {
                "cosine/boundary~residual": rng.uniform(-1, 1),
                "spread/boundary~residual": 0.1,
            }
            values["interaction/residual>boundary"] = rng.uniform()
            history += [{**known, **values, "step": step} for step in (0, 5, 10)]
    return runs, history


@pytest.mark.parametrize("what", studies.WHAT)
def test_tables_and_figures_are_made_of_the_cells_that_are_trained(what, tmp_path):
    cells = studies.cells(what, dataclasses.replace(TINY, widths=(4, 8)), "paper")
    trained = cells[: len(cells) * 3 // 4]
    results = Results(tmp_path, TINY)
    runs, history = made_up(trained)
    results.runs, results.history = runs, history
    costs = "".join(f"{width},{name},1.1\n" for width in (4, 8) for name in TIMED)
    (tmp_path / "costs.csv").write_text("width,method,over_adam\n" + costs)
    tables = studies.write(what, cells, results, "paper")
    (tmp_path / "costs.csv").unlink()
    made = {path.name for path in tmp_path.iterdir()}
    stem = what if what in ("candidates", "choices", "controls") else f"{what}-paper"
    ends = {"fig4": {"png", "md"}, "fig1": {"png", "md"}, "fig2": {"png"}, "fig3": {"png"}}
    assert made == {f"{stem}.{end}" for end in ends.get(what, {"md"})}
    titles = [title for title in tables if title.endswith(" at equal time")]
    assert titles == ["ModSync over its base at equal time"] * (what == "fig4")
    for table in tables.values():
        assert len({len(line) for line in table}) == 1 and len(table) > 1
    if what == "table1":
        cell = trained[-1]
        (relative, _) = tables.values()
        row = next(line for line in relative if line[0] == cell.variant)
        of = [r["selected"] for r in runs if studies.Cell(r["problem"], 4, r["variant"]) == cell]
        assert f"{np.exp(np.mean(np.log(of))):.2e}"[:4] in row[relative[0].index(cell.problem)]
        assert any("not run" in line for line in relative)


def test_unknown_problems_of_a_figure_are_one_line(tmp_path):
    done = subprocess.run(
        [
            sys.executable, "-m", "experiments.reproduce", "--what=fig2", "--problems=wave",
            f"--output_dir={tmp_path}",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert "fig2 has no problem wave; it has burgers" in done.stderr
