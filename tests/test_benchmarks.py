"""The tables of the documentation are those of the result files."""

import pytest

from benchmarks import tables


@pytest.mark.parametrize("path", tables.PAGES, ids=lambda path: path.name)
def test_the_pages_show_what_the_result_files_hold(path):
    page = path.read_text()
    assert page.count("<!-- end -->") >= 1
    assert page == tables.updated(page), "run python -m benchmarks.tables"


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
