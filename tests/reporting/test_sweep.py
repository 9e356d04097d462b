"""The page of a sweep, against a table made by hand."""

import csv
import json
import math
import statistics

import numpy as np
import pytest

from modsync_jax import reporting

STEPS = np.array([0.0, 50.0, 100.0])


def error(method, width, seed):
    return {"adam": 1.0, "dcgd": 0.5}[method] / width * (1.0 + seed)


@pytest.fixture
def folder(tmp_path):
    rows, groups = [], {}
    for method in ("adam", "dcgd"):
        for width in (8, 64):
            for seed in (0, 1):
                failed = (method, width, seed) == ("adam", 8, 1)
                name = f"{method}-width={width}-seed={seed}"
                value = error(method, width, seed)
                rows.append(
                    {
                        "method": method, "width": width, "seed": seed,
                        "status": "not finite" if failed else "finished",
                        "steps": 100,
                        "failure": "step 3" if failed else "", "replica": name,
                        "selected": value, "final": 2 * value, "loss_selected": 1.0,
                    }
                )  # fmt: skip
                groups.setdefault((method, width), {})[name] = value
    with (tmp_path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "config.json").write_text(json.dumps({"problem": "burgers"}))
    for (method, width), values in groups.items():
        path = tmp_path / "groups" / f"{method}-{width}"
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps({"replicas": list(values)}))
        curves = np.array([[1.0, 0.5, value] for value in values.values()])
        np.savez(path / "metrics.npz", **{"steps": STEPS, "test/relative_l2": curves})
    return tmp_path


def test_configurations_are_ranked_by_geometric_means_over_seeds(folder):
    with (folder / "results.csv").open(newline="") as file:
        ranked = reporting.configurations(list(csv.DictReader(file)))
    expected = {}
    for method in ("adam", "dcgd"):
        for width in (8, 64):
            seeds = [0] if (method, width) == ("adam", 8) else [0, 1]
            logs = [math.log(error(method, width, seed)) for seed in seeds]
            expected[f"{method} width={width}"] = math.exp(statistics.fmean(logs))
    assert [c.name for c in ranked] == sorted(expected, key=expected.get)
    for found in ranked:
        assert found.selected.mean == pytest.approx(expected[found.name])
        assert found.final.mean == pytest.approx(2 * expected[found.name])
        assert found.failed == (found.name == "adam width=8") and found.replicas == 2
    head, first, *_ = reporting.as_table(ranked)
    assert head == ["method", "width", "replicas", "selected", "final"]
    assert first[:3] == ["dcgd", "64", "2"]


def test_the_page_names_the_best_and_shows_every_axis(folder):
    page = reporting.write_sweep(folder).read_text()
    assert "burgers: dcgd width=64 is the best of 4 configurations" in page
    assert "2, 1 not finite" in page
    for name in ("curves", "selected-width"):
        for kind in ("png", "pdf"):
            assert (folder / "figures" / f"{name}.{kind}").stat().st_size > 1000
    assert not (folder / "figures" / "selected-seed.png").exists()


def test_any_column_is_drawn_against_any_axis(folder):
    assert reporting.draw_axis(folder, "method", "final").name == "final-method.png"
    with pytest.raises(ValueError, match=r"no column 'depth' .*known: method, width, seed\)"):
        reporting.draw_axis(folder, "depth")
    with pytest.raises(ValueError, match="no column 'speed'"):
        reporting.draw_axis(folder, "width", "speed")
    with pytest.raises(FileNotFoundError, match=r"holds no results\.csv"):
        reporting.draw_axis(folder / "groups", "width")
