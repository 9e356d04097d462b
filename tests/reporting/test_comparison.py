"""Comparisons of methods, against means and times worked out by hand."""

import csv
import itertools
import json
import math
import re
import statistics
from urllib.parse import unquote

import numpy as np
import pytest

from modsync_jax import reporting
from modsync_jax.reporting import _comparison, _run

FACTORS = {"sum": (1.0, 4.0), "dcgd": (0.5, 0.5)}
SCORES = {"sum": (0.03, 0.05), "dcgd": (0.02, 0.01)}
KINDS = ("selected", "smallest", "final", "median_of_last_ten")
STEPS = 100.0 * np.arange(12)
FALL = np.geomspace(1, 0.01, 12)


@pytest.fixture
def two_methods(make_run):
    """Two seeds of each method; the errors of one of Adam's are four times the other's."""
    folders = {}
    for method, factors in FACTORS.items():
        folders[method] = []
        for seed, factor in enumerate(factors):
            errors = {
                "relative_l2": {k: factor * (i + 1) / 100 for i, k in enumerate(KINDS)},
                "mean_absolute": dict.fromkeys(KINDS, factor / 1000),
            }
            timing = {
                "steps_per_second": 100.0 * (seed + 1),
                "training_seconds": 99.0,
                "first_chunks_seconds": 1.0,
            }
            folders[method].append(
                make_run(
                    name=f"{method}-{seed}",
                    result={
                        "errors": errors,
                        "seed": seed,
                        "timing": timing,
                        "method": method,
                        "score": SCORES[method][seed],
                    },
                    columns={"test/relative_l2": factor * FALL},
                )
            )
    return folders


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_the_table_holds_geometric_means_spreads_and_times(two_methods, tmp_path):
    target = 0.04
    rows = reporting.write_comparison(two_methods, tmp_path / "out", target=target)
    assert [row.method for row in rows] == ["dcgd", "sum"]  # by score, not as given
    for row, line in zip(rows, read(tmp_path / "out" / "comparison.csv"), strict=True):
        factors = FACTORS[row.method]
        logs = [math.log(f / 100) for f in factors]
        assert row.errors["selected"].mean == pytest.approx(math.exp(statistics.fmean(logs)))
        assert row.errors["selected"].factor == pytest.approx(math.exp(statistics.stdev(logs)))
        assert row.errors["final"].mean == pytest.approx(3 * row.errors["selected"].mean)
        assert row.score.mean == pytest.approx(math.sqrt(math.prod(SCORES[row.method])))
        assert float(line["score"]) == pytest.approx(row.score.mean)
        assert row.absolute.mean == pytest.approx(row.errors["selected"].mean / 10)
        assert row.milliseconds.mean == pytest.approx(math.sqrt(10.0 * 5.0))
        crossings = [STEPS[np.argmax(f * FALL <= target)] for f in factors]
        seconds = [steps / (100.0 * (k + 1)) for k, steps in enumerate(crossings)]
        assert row.seconds_to_target.mean == pytest.approx(math.sqrt(math.prod(seconds)))
        assert float(line["selected"]) == pytest.approx(row.errors["selected"].mean)
        assert float(line["seconds_to_target_spread"]) == pytest.approx(
            row.seconds_to_target.factor
        )
        assert (line["seeds"], line["failed"], line["reached"]) == ("2", "0", "2")
        assert crossings[0] > 0


def test_runs_that_were_selected_by_different_measures_are_not_ranked(make_run, tmp_path):
    folders = {
        "sum": [make_run(name="a")],
        "best": [make_run(name="b", result={"scored_by": "unweighted loss"})],
    }
    with pytest.raises(ValueError, match=r"by unweighted loss and by validation error, .* 'loss'"):
        reporting.write_comparison(folders, tmp_path, target=0.1)


def test_the_difference_between_seeds_is_shown_where_there_are_two(make_run, tmp_path):
    first, second, third, alone = (make_run(name=f"run-{k}") for k in range(4))
    for folder, factor in ((second, 1.1), (third, 1.3)):
        arrays = dict(np.load(folder / "solution.npz"))
        np.savez(folder / "solution.npz", **arrays | {"prediction": factor * arrays["prediction"]})
    folders = {"sum": [first, second, third], "dcgd": [alone]}
    rows = {row.method: row for row in reporting.write_comparison(folders, tmp_path, target=0.1)}
    # 2 (b - a) / (a + b) for the pairs of 1, 1.1, 1.3: 0.0952, 0.261, 0.167.
    assert rows["sum"].between_seeds == pytest.approx(0.4 / 2.4)
    assert math.isnan(rows["dcgd"].between_seeds)
    assert (tmp_path / "comparison.html").read_text().count("<td>1.67e-1</td>") == 1


@pytest.mark.long
def test_times_are_the_measured_ones_if_all_runs_have_them_and_runs_may_end_apart(
    make_run, tmp_path
):
    def run(name, rows, seconds):
        timing = {"steps_per_second": 100.0, "training_seconds": 9.0, "seconds_at_rows": seconds}
        return make_run(name=name, rows=rows, result={"timing": timing})

    measured = [
        run("a", 12, [3.0 + k for k in range(12)]),
        run("b", 9, [5.0 + k for k in range(9)]),
    ]
    resumed = run("c", 12, [None] + [1.0 + k for k in range(11)])
    for name, folders, times in (
        ("all", measured, ([3.0, 14.0], [5.0, 13.0])),
        ("some", [*measured, resumed], ([0.0, 11.0], [0.0, 8.0], [0.0, 11.0])),
    ):
        reporting.write_comparison({"sum": folders}, tmp_path / name, target=1e-9)
        lines = [float(line["seconds"]) for line in read(tmp_path / name / "curves.csv")]
        starts = np.cumsum([0, 12, 9, 12])
        found = [[lines[i], lines[j - 1]] for i, j in itertools.pairwise(starts[: len(times) + 1])]
        np.testing.assert_allclose(found, times, rtol=1e-12)
    runs = {"sum": [_run.read(folder) for folder in measured]}
    figure = _comparison._curves(runs, _comparison._times(runs, True), 1e-9)
    drawn = figure.axes[0].get_lines()[0].get_xydata()
    both = [run.outcome[:9] for run in runs["sum"]]  # the rows that both runs have
    np.testing.assert_allclose(drawn[:, 0], 4.0 + np.arange(9), rtol=1e-12)
    np.testing.assert_allclose(drawn[:, 1], np.sqrt(both[0] * both[1]), rtol=1e-12)


@pytest.mark.long
def test_curves_figures_and_page_are_written(two_methods, tmp_path):
    out = tmp_path / "out"
    reporting.write_comparison(two_methods, out, target=0.04)
    curves = read(out / "curves.csv")
    assert len(curves) == 2 * 2 * 12
    last = curves[-1]
    assert (last["method"], last["seed"], last["step"]) == ("sum", "1", "1100")
    assert float(last["seconds"]) == pytest.approx(1100 / 200)
    assert float(last["error"]) == pytest.approx(4 * 0.01)
    for name in ("solutions", "steps", "time"):
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    page = (out / "comparison.html").read_text()
    title = "heat: dcgd has the lowest validation error of 2 methods, but 2 seeds in common can’t"
    for text in (title, "the\nvalidation error", "s to 0.04", "(seeds dcgd: 1, sum: 0)"):
        assert text in page, text
    assert page.count("data:image/png;base64") == 3
    assert 'class="winner"' not in page


@pytest.mark.long
def test_the_winner_is_marked_where_seeds_support_it(make_run, tmp_path):
    folders = {"sum": [], "dcgd": []}
    for seed, (method, found) in itertools.product(range(3), folders.items()):
        score = {"sum": 0.2, "dcgd": 0.1}[method] * 1.1**seed
        # On the test grid Adam is better: it is not what methods are ranked by.
        errors = {"relative_l2": dict.fromkeys(KINDS, 0.3 if method == "dcgd" else 0.1)}
        errors["mean_absolute"] = errors["relative_l2"]
        result = {"seed": seed, "score": score, "errors": errors}
        found.append(make_run(name=f"{method}-{seed}", result=result))
    rows = reporting.write_comparison(folders, tmp_path, target=0.1)
    assert [row.method for row in rows] == ["dcgd", "sum"]
    page = (tmp_path / "comparison.html").read_text()
    assert "heat: dcgd is the best of 2 methods" in page
    assert '<tr class="winner"><th>★ dcgd</th>' in page and page.count("★") == 1


@pytest.mark.long
def test_runs_without_a_score_are_ranked_by_their_selected_errors(two_methods, tmp_path):
    file = two_methods["dcgd"][0] / "result.json"
    old = json.loads(file.read_text())
    del old["score"], old["scored_by"]
    file.write_text(json.dumps(old))
    rows = reporting.write_comparison(two_methods, tmp_path, target=0.1)
    for row in rows:
        assert row.score == row.errors["selected"]
    page = (tmp_path / "comparison.html").read_text()
    assert "dcgd has the lowest relative L2 error of 2 methods" in page


@pytest.mark.long
def test_the_page_links_to_the_reports_that_exist(make_run, tmp_path):
    run = make_run(name="modsync+dcgd width=8")
    reporting.write_report(run)
    folders = {"modsync+dcgd": [run], "sum": [make_run(name="sum")]}
    reporting.write_comparison(folders, tmp_path / "out", target=0.1)
    page = (tmp_path / "out" / "comparison.html").read_text()
    links = re.findall('<a href="([^"]*)">', page)
    assert len(links) == 1 and "sum (no report)" in page
    assert (tmp_path / "out" / unquote(links[0])).resolve() == run / "report.html"


@pytest.mark.long
def test_failed_runs_and_targets_out_of_reach_are_said(two_methods, tmp_path):
    (two_methods["sum"][1] / "result.json").unlink()
    rows = reporting.write_comparison(two_methods, tmp_path / "out", target=0.007)
    head, dcgd, adam = reporting.as_text(rows, 0.007)
    assert adam[1] == "2, 1 failed" and dcgd[1] == "2"
    assert (rows[1].reached, rows[0].reached) == (0, 2)
    assert adam[head.index("s to 0.007")] == "–"
    assert rows[1].errors["selected"].mean == pytest.approx(0.01)
    rows = reporting.write_comparison(two_methods, tmp_path / "out", target=0.015)
    assert rows[1].reached == 1
    head, _, second = reporting.as_text(rows, 0.015)[:3]
    assert "(1 of 2)" in second[head.index("s to 0.015")]


@pytest.mark.long
def test_without_a_reference_losses_are_compared_without_their_weights(make_run, tmp_path):
    tiny = {"loss": np.full(12, 1e-9)}  # the total loss of very small weights
    folders = {"dcgd": [make_run(reference=False)]}
    folders["weighted"] = [make_run(name="weighted", reference=False, columns=tiny)]
    rows = reporting.write_comparison(folders, tmp_path / "out", target=0.1)
    # The last row of four terms, each half of the one before.
    expected = 0.01 * (1 + 1 / 2 + 1 / 4 + 1 / 8)
    for row in rows:
        assert row.score.mean == pytest.approx(expected)
        assert row.errors["selected"].mean == row.errors["final"].mean == pytest.approx(expected)
        assert row.absolute is None
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "unweighted loss" in page and "mean absolute" not in page


@pytest.mark.long
def test_runs_of_format_1_without_a_reference_have_their_total_loss(make_run, tmp_path):
    rows = reporting.write_comparison(
        {"dcgd": [make_run(reference=False, terms=())]}, tmp_path / "out", target=0.1
    )
    assert rows[0].score.mean == rows[0].errors["selected"].mean == pytest.approx(0.02)
    assert "total loss" in (tmp_path / "out" / "comparison.html").read_text()


@pytest.mark.long
def test_a_method_whose_runs_all_failed_comes_last(make_run, tmp_path):
    folders = {"sum": [tmp_path / "nothing"], "dcgd": [make_run()]}
    rows = reporting.write_comparison(folders, tmp_path / "out", target=0.1)
    assert [row.method for row in rows] == ["dcgd", "sum"]
    assert reporting.as_text(rows, 0.1)[2][:4] == ["sum", "1, 1 failed", "–", "–"]


@pytest.mark.long
def test_nothing_to_compare_and_two_problems_are_errors(two_methods, make_run, tmp_path):
    with pytest.raises(ValueError, match="no run is finished"):
        reporting.write_comparison({"sum": [tmp_path]}, tmp_path, target=0.1)
    other = make_run(name="other", result={"problem": "wave"})
    faster = make_run(name="faster", config={"coefficients": {"diffusivity": 2.0}})
    with pytest.raises(ValueError, match=r"runs are of heat and heat \(diffusivity 2\)"):
        reporting.write_comparison(two_methods | {"faster": [faster]}, tmp_path, target=0.1)
    with pytest.raises(ValueError, match="runs are of heat and wave"):
        reporting.write_comparison({**two_methods, "x": [other]}, tmp_path, target=0.1)
