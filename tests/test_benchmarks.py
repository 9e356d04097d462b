"""The tables of the documentation are those of the result files."""

from benchmarks import tables


def test_the_page_shows_what_the_result_files_hold():
    page = tables.PAGE.read_text()
    assert page.count("<!-- end -->") >= 3
    assert page == tables.updated(page), "run python -m benchmarks.tables"


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
