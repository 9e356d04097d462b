"""Comparisons of methods, against means and times worked out by hand."""

import csv
import math
import statistics

import numpy as np
import pytest

from modsync_jax import reporting

FACTORS = {"adam": (1.0, 4.0), "dcgd": (0.5, 0.5)}
STEPS = 100.0 * np.arange(12)
FALL = np.geomspace(1, 0.01, 12)


@pytest.fixture
def two_methods(make_run):
    """Two seeds of each method; the errors of one of Adam's are four times the other's."""
    folders = {}
    for method, factors in FACTORS.items():
        folders[method] = []
        for seed, factor in enumerate(factors):
            kinds = ("selected", "smallest", "final", "median_of_last_ten")
            errors = {
                "relative_l2": {k: factor * (i + 1) / 100 for i, k in enumerate(kinds)},
                "mean_absolute": dict.fromkeys(kinds, factor / 1000),
            }
            timing = {
                "steps_per_second": 100.0 * (seed + 1),
                "training_seconds": 99.0,
                "first_chunks_seconds": 1.0,
            }
            folders[method].append(
                make_run(
                    name=f"{method}-{seed}",
                    result={"errors": errors, "seed": seed, "timing": timing, "method": method},
                    columns={"test/relative_l2": factor * FALL},
                )
            )
    return folders


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_geometric_means_spreads_and_times(two_methods, tmp_path):
    target = 0.04
    rows = reporting.write_comparison(two_methods, tmp_path / "out", target=target)
    assert [row.method for row in rows] == ["adam", "dcgd"]
    for row, line in zip(rows, read(tmp_path / "out" / "comparison.csv"), strict=True):
        factors = FACTORS[row.method]
        logs = [math.log(f / 100) for f in factors]
        assert row.errors["selected"].mean == pytest.approx(math.exp(statistics.fmean(logs)))
        assert row.errors["selected"].factor == pytest.approx(math.exp(statistics.stdev(logs)))
        assert row.errors["final"].mean == pytest.approx(3 * row.errors["selected"].mean)
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


def test_curves_figures_and_page_are_written(two_methods, tmp_path):
    out = tmp_path / "out"
    reporting.write_comparison(two_methods, out, target=0.04)
    curves = read(out / "curves.csv")
    assert len(curves) == 2 * 2 * 12
    last = curves[-1]
    assert (last["method"], last["seed"], last["step"]) == ("dcgd", "1", "1100")
    assert float(last["seconds"]) == pytest.approx(1100 / 200)
    assert float(last["error"]) == pytest.approx(0.5 * 0.01)
    for name in ("steps", "time"):
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    page = (out / "comparison.html").read_text()
    for text in ("heat: dcgd is the most accurate of 2 methods", "Relative L2 error", "s to 0.04"):
        assert text in page, text
    assert page.count("data:image/png;base64") == 2


def test_failed_runs_and_targets_out_of_reach_are_said(two_methods, tmp_path):
    (two_methods["adam"][1] / "result.json").unlink()
    rows = reporting.write_comparison(two_methods, tmp_path / "out", target=0.007)
    head, adam, dcgd = reporting.as_text(rows, 0.007)
    assert adam[1] == "2, 1 failed" and dcgd[1] == "2"
    assert (rows[0].reached, rows[1].reached) == (0, 2)
    assert adam[head.index("s to 0.007")] == "–"
    assert rows[0].errors["selected"].mean == pytest.approx(0.01)
    rows = reporting.write_comparison(two_methods, tmp_path / "out", target=0.015)
    assert rows[0].reached == 1
    assert "(1 of 2)" in reporting.as_text(rows, 0.015)[1][-1]


def test_without_a_reference_the_loss_is_compared(make_run, tmp_path):
    folders = {"dcgd": [make_run(reference=False)]}
    rows = reporting.write_comparison(folders, tmp_path / "out", target=0.1)
    assert rows[0].errors["selected"].mean == pytest.approx(0.02)
    assert rows[0].absolute is None
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "Total loss" in page and "mean absolute" not in page


def test_nothing_to_compare_and_two_problems_are_errors(two_methods, make_run, tmp_path):
    with pytest.raises(ValueError, match="no run is finished"):
        reporting.write_comparison({"adam": [tmp_path]}, tmp_path, target=0.1)
    other = make_run(name="other", result={"problem": "wave"})
    faster = make_run(name="faster", config={"coefficients": {"diffusivity": 2.0}})
    with pytest.raises(ValueError, match=r"runs are of heat and heat \(diffusivity 2\)"):
        reporting.write_comparison(two_methods | {"faster": [faster]}, tmp_path, target=0.1)
    with pytest.raises(ValueError, match="runs are of heat and wave"):
        reporting.write_comparison({**two_methods, "x": [other]}, tmp_path, target=0.1)
