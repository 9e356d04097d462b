"""The comparison of methods as a user runs it: once, again, and after a run is lost."""

import csv
import json
import re
import shutil

import pytest

from tests.experiments.test_train import SMALL, program

ARGUMENTS = [
    "--problem=helmholtz2d",
    "--methods=sum,lra+dcgd,m-config",
    "--seeds=0,1",
    "--target=0.9",
    "--eval_every=10",
    "--chunk=10",
    "--checkpoint_every=20",
    *SMALL,
]


def trained(process):
    """The groups that a call trained, from its progress."""
    return {match[1] for match in re.finditer(r"group \d+/\d+ (\S+)", process.stderr)}


@pytest.mark.slow
def test_finished_runs_are_not_run_again_and_a_lost_one_is(tmp_path):
    out = tmp_path / "out"
    first = program("compare", *ARGUMENTS, f"--output_dir={out}")
    assert first.returncode == 0, first.stderr
    assert trained(first) == {"sum", "lra+dcgd", "m-config"}
    assert "lra+dcgd" in first.stdout and f"see {out}/comparison.html" in first.stdout
    with (out / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"sum", "lra+dcgd", "m-config"}
    assert all(row["seeds"] == "2" and row["failed"] == "0" for row in rows)
    bibtex = (out / "runs" / "lra+dcgd-seed=0" / "references.bib").read_text()
    assert "{dcgd," in bibtex and "{lra," in bibtex
    kept = {path: path.read_bytes() for path in out.glob("runs/*/result.json")}
    assert len(kept) == 6

    again = program("compare", *ARGUMENTS, f"--output_dir={out}")
    assert again.returncode == 0 and not trained(again)
    assert kept == {path: path.read_bytes() for path in out.glob("runs/*/result.json")}

    lost = out / "runs" / "sum-seed=1"
    shutil.rmtree(lost)
    third = program("compare", *ARGUMENTS, f"--output_dir={out}")
    assert trained(third) == {"sum-seed=1"}
    others = {path: content for path, content in kept.items() if path.parent != lost}
    assert others == {path: path.read_bytes() for path in others}
    # The same network again: alone on a device it differs in rounding (float32, 20 steps).
    before, after = (
        json.loads(b)["errors"]["relative_l2"]
        for b in (kept[lost / "result.json"], (lost / "result.json").read_bytes())
    )
    assert after == pytest.approx(before, rel=1e-5)


@pytest.mark.long
def test_mistakes_are_one_line(tmp_path):
    for flag, text in {
        "--methods=sum,lra+dcdg": "unknown part 'dcdg'; did you mean 'dcgd'?",
        "--methods=": "method needs values",
        "--seeds=0,x": "seed has the value 'x'; it takes whole numbers, or 0..31",
        "--seed=1": "Unknown command line flag 'seed'",
    }.items():
        process = program("compare", *ARGUMENTS, f"--output_dir={tmp_path / 'out'}", flag)
        assert process.returncode == 2
        lines = process.stderr.strip().splitlines()
        assert len(lines) == 1 and text in lines[0], process.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_lists_are_printed_with_sources():
    process = program("train", "--list_methods", "--list_problems", "--platform=cpu")
    assert process.returncode == 0, process.stderr
    for text in ("nash-mtl", "Navon et al. 2022", "cavity_stream", "Wang, Teng & Perdikaris 2021",
                 "a1=1, a2=4"):  # fmt: skip
        assert text in process.stdout, text
