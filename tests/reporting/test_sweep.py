"""The page of a sweep, against a table made by hand."""

import csv
import itertools
import json
import math
import statistics

import numpy as np
import pytest

from modsync_jax import reporting
from modsync_jax.reporting import _sweep

STEPS = np.array([0.0, 50.0, 100.0])


def error(method, width, seed):
    return {"sum": 1.0, "dcgd": 0.5}[method] / width * (1.0 + seed)


def score(method, width, seed):
    """On validation points: ranks methods and widths the other way round."""
    return 1.0 / error(method, width, seed)


def geometric(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def write(folder, rows):
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(tmp_path):
    rows, groups = [], {}
    for method in ("sum", "dcgd"):
        for width in (8, 64):
            for seed in (0, 1):
                failed = (method, width, seed) == ("sum", 8, 1)
                name = f"{method}-width={width}-seed={seed}"
                value = error(method, width, seed)
                rows.append(
                    {
                        "method": method, "width": width, "seed": seed,
                        "status": "not finite" if failed else "finished",
                        "steps": 100,
                        "failure": "step 3" if failed else "", "replica": name,
                        "score": score(method, width, seed), "selected": value,
                        "final": 2 * value, "loss_selected": 1.0,
                    }
                )  # fmt: skip
                groups.setdefault((method, width), {})[name] = value
    write(tmp_path, rows)
    (tmp_path / "config.json").write_text(json.dumps({"problem": "burgers"}))
    for (method, width), values in groups.items():
        path = tmp_path / "groups" / f"{method}-{width}"
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps({"replicas": list(values)}))
        curves = np.array([[1.0, 0.5, value] for value in values.values()])
        np.savez(path / "metrics.npz", **{"steps": STEPS, "test/relative_l2": curves})
    return tmp_path


def read(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def seeds_of(method, width):
    return [0] if (method, width) == ("sum", 8) else [0, 1]


@pytest.mark.parametrize("scored", [True, False])
def test_configurations_are_ranked_by_geometric_means_of_scores_over_seeds(folder, scored):
    rows = read(folder)
    if not scored:  # as it is for results that are older than scores
        rows[-1]["score"] = ""
    ranked = reporting.configurations(rows)
    expected, scores = {}, {}
    for method, width in itertools.product(("sum", "dcgd"), (8, 64)):
        seeds = seeds_of(method, width)
        name = f"{method} width={width}"
        expected[name] = geometric([error(method, width, seed) for seed in seeds])
        scores[name] = geometric([score(method, width, seed) for seed in seeds])
    by = scores if scored else expected
    assert [c.name for c in ranked] == sorted(by, key=by.get)
    for found in ranked:
        assert found.score.mean == pytest.approx(by[found.name])
        assert found.selected.mean == pytest.approx(expected[found.name])
        assert found.final.mean == pytest.approx(2 * expected[found.name])
        assert found.failed == (found.name == "sum width=8") and found.replicas == 2
    head, first, *_ = reporting.as_table(ranked)
    assert head == ["method", "width", "replicas", "score", "selected", "final"]
    assert first[:3] == (["sum", "8", "2, 1 not finite"] if scored else ["dcgd", "64", "2"])


@pytest.mark.long
def test_the_page_names_the_lowest_score_and_shows_every_axis(folder):
    page = reporting.write_sweep(folder).read_text()
    assert "burgers: sum width=8 has the lowest validation error of 4 configurations" in page
    assert "1 seed in common can’t show that it is the best" in page and "★" not in page
    assert "2, 1 not finite" in page
    for name in ("curves", "selected-width"):
        for kind in ("png", "pdf"):
            assert (folder / "figures" / f"{name}.{kind}").stat().st_size > 1000
    assert not (folder / "figures" / "selected-seed.png").exists()


@pytest.mark.long
def test_any_column_is_drawn_against_any_axis(folder):
    assert reporting.draw_axis(folder, "method", "final").name == "final-method.png"
    with pytest.raises(ValueError, match=r"no column 'depth' .*known: method, width, seed\)"):
        reporting.draw_axis(folder, "depth")
    with pytest.raises(ValueError, match="no column 'speed'"):
        reporting.draw_axis(folder, "width", "speed")
    with pytest.raises(FileNotFoundError, match=r"holds no results\.csv"):
        reporting.draw_axis(folder / "groups", "width")


def test_a_measure_with_a_sign_is_drawn_on_a_linear_scale_with_its_mean_over_seeds(folder):
    rows = [{**row, "cosine/a~b": str(-0.1 * (1 + int(row["seed"])))} for row in read(folder)]
    axis = _sweep._against(rows, "width", "cosine/a~b").axes[0]
    assert axis.get_yscale() == "linear"
    line = next(line for line in axis.get_lines() if line.get_label() == "sum")
    seeds = [1 + int(row["seed"]) for row in rows if row["method"] == "sum" and row["width"] == "8"
             and row["status"] != "not finite"]  # fmt: skip
    assert line.get_ydata()[0] == pytest.approx(-0.1 * np.mean(seeds))


def test_the_best_choice_of_an_axis_is_that_of_the_lowest_score(folder):
    rows = read(folder)
    axis = _sweep._against(rows, "method", "selected").axes[0]
    lines = [line for line in axis.get_lines() if line.get_linestyle() == "-"]
    drawn = {line.get_label(): line.get_ydata()[0] for line in lines}
    for method in ("sum", "dcgd"):
        chosen = min((8, 64), key=lambda w, m=method: score(m, w, 0))
        errors = [error(method, chosen, seed) for seed in seeds_of(method, chosen)]
        assert drawn[method] == pytest.approx(geometric(errors))


def test_the_best_is_marked_and_compared_only_with_those_that_came_as_far(folder):
    rows = []
    for seed in (0, 1, 2):
        for width, factor, status in (
            (8, 1.0, "finished"),
            (16, 2.0, "finished"),
            (32, 0.1, "stopped"),
        ):
            value = factor * (1 + seed / 10)
            rows.append(
                {
                    "method": "dcgd", "width": width, "seed": seed, "status": status,
                    "steps": 100 if status == "finished" else 50, "failure": "",
                    "replica": f"dcgd-width={width}-seed={seed}",
                    "score": value, "selected": value, "final": value,
                }
            )  # fmt: skip
    write(folder, rows)
    path = folder / "groups" / "dcgd-8"
    names = [row["replica"] for row in rows]
    (path / "config.json").write_text(json.dumps({"replicas": names}))
    curves = np.ones((len(names), len(STEPS)))
    np.savez(path / "metrics.npz", **{"steps": STEPS, "test/relative_l2": curves})
    page = reporting.write_sweep(folder).read_text()
    assert "dcgd width=8 is the best of 2 configurations that halving kept" in page
    assert page.count('class="winner"') == page.count("★") == 1
    assert "3 of them stopped early" in page


@pytest.mark.long
def test_without_a_reference_networks_are_ranked_by_their_unweighted_loss(folder):
    rows = [
        {
            "method": "dcgd", "loss_weights.boundary": weight, "seed": 0, "status": "finished",
            "steps": 100, "failure": "", "replica": f"dcgd-{weight}",
            "score": loss, "loss_selected": weight * loss, "loss_final": weight * loss,
        }
        for weight, loss in ((1.0, 0.1), (1e-6, 0.9))
    ]  # fmt: skip
    assert reporting.configurations(rows)[0].point["loss_weights.boundary"] == "1.0"
    write(folder, rows)
    path = folder / "groups" / "dcgd-8"
    (path / "config.json").write_text(json.dumps({"replicas": ["dcgd-1.0", "dcgd-1e-06"]}))
    curves = {"loss": np.ones((2, 3)), "term/residual": np.full((2, 3), 2.0)}
    np.savez(path / "metrics.npz", **{"steps": STEPS, **curves, "term/left": np.full((2, 3), 3.0)})
    page = reporting.write_sweep(folder).read_text()
    assert "boundary=1.0 has the lowest unweighted loss" in page
    losses = _sweep.outcome_of(reporting.evaluations(folder)["dcgd-1.0"])
    np.testing.assert_array_equal(losses, np.full(3, 5.0))


def test_an_axis_of_one_method_is_no_value_of_the_others(folder):
    rows = read(folder)
    for row in rows:
        row["dcgd.c"] = row["width"] if row["method"] == "dcgd" else ""
    axes = ["method", "width", "dcgd.c", "seed"]
    rows = [{name: row[name] for name in axes} | row for row in rows]
    names = [found.name for found in reporting.configurations(rows)]
    dcgd = {"dcgd width=8 dcgd.c=8", "dcgd width=64 dcgd.c=64"}
    assert set(names) == {"sum width=8", "sum width=64", *dcgd}
    none = [{**row, "dcgd.c": row["dcgd.c"] or None} for row in rows]  # as the sweep returns it
    assert [found.name for found in reporting.configurations(none)] == names
    lines = _sweep._against(rows, "dcgd.c", "selected").axes[0].get_lines()
    assert {line.get_label() for line in lines if line.get_linestyle() == "-"} == {"dcgd"}


@pytest.mark.long
@pytest.mark.filterwarnings("error")
def test_a_sweep_in_which_every_network_failed_is_said_to_have(folder):
    write(folder, [{**row, "status": "not finite"} for row in read(folder)])
    page = reporting.write_sweep(folder).read_text()
    assert "burgers: no network is finite" in page and "★" not in page
