import base64
import json
import struct
from html.parser import HTMLParser

import numpy as np
import pytest

from modsync_jax import reporting
from modsync_jax.reporting import _report, _run

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser sees: balanced tags, text, and what is loaded from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.text, self.cells = [], [], [], "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("th", "td"):
            self.cells.append(data)


def _write(folder):
    path = reporting.write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def _check_figures(folder, names):
    files = {path.name for path in (folder / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in names for kind in ("png", "pdf")}
    for name in names:
        png = (folder / "figures" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG\r\n\x1a\n") and png.endswith(b"IEND\xaeB`\x82")
        width, height = struct.unpack(">II", png[16:24])
        assert 800 <= width <= 1600 and 400 <= height <= 4000
        pdf = (folder / "figures" / f"{name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF") and pdf.rstrip().endswith(b"%%EOF") and len(pdf) > 5000


@pytest.mark.long
def test_the_report_is_one_file_with_every_figure(make_run):
    folder = make_run(then=300)
    page = _write(folder)
    names = ["solution", "slices", "residuals", "history", "cosine", "sparsity", "layers", "points"]
    _check_figures(folder, names)
    assert not list(folder.glob(".*"))
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    head = "data:image/png;base64,"
    assert all(source.startswith(head) for source in page.sources)
    images = [base64.b64decode(source.removeprefix(head)) for source in page.sources]
    assert images == [(folder / "figures" / f"{name}.png").read_bytes() for name in names]
    assert "url(" not in (folder / "report.html").read_text()


def test_the_report_holds_the_numbers_of_the_run(make_run):
    kinds = {"selected": 0.00912345, "smallest": 0.00812345, "final": 0.0234567}
    kinds["median_of_last_ten"] = 0.0345678
    errors = {"relative_l2": kinds, "mean_absolute": dict.fromkeys(kinds, 0.00123456)}
    folder = make_run(result={"errors": errors, "unknowns": {"viscosity": 0.0031415}})
    page = _write(folder)
    row = page.cells.index("relative L2 error")
    assert page.cells[row + 1 : row + 5] == ["9.12e-3", "8.12e-3", "0.0235", "0.0346"]
    assert "median of last 10" in page.cells
    pairs = dict(zip(page.cells, page.cells[1:], strict=False))
    assert pairs["validation error"] == "0.0100"
    assert pairs["unknown viscosity"] == "3.14e-3"
    assert pairs["trainable parameters"] == "5,301"
    assert pairs["speed after those"] == "321 steps/s"
    assert "jax 0.6.0" in pairs["versions"] and pairs["device"] == "1 × cpu (cpu)"
    assert pairs["beta"] == "0.3"
    assert "A book, 1822" in page.text
    assert f"modsync_jax.load({json.dumps(str(folder))})" in page.text


@pytest.mark.long
def test_text_of_the_run_is_escaped(make_run):
    name = "<script>alert('&')</script>"
    config = {"source": name, "problem": name, "note": {"<i>": name}}
    page = _write(make_run(config=config, result={"problem": name, "device": name}))
    assert "script" not in page.tags and "i" not in page.tags
    assert page.text.count(name) >= 4


@pytest.mark.long
@pytest.mark.parametrize(
    "case",
    [
        {"reference": False, "layers": 0},
        {"rows": 2},
        {"objectives": ("residual",), "config": {"architecture": None}},
    ],
    ids=["plain, no reference", "two rows", "one objective, own network"],
)
def test_runs_that_lack_something_are_reported_with_what_they_have(make_run, case):
    folder = make_run(**case)
    page = _write(folder)
    known = ["residuals"] if case.get("reference", True) else []
    masked = ["sparsity", "layers"] if case.get("layers") != 0 else []
    _check_figures(folder, ["solution", "slices", *known, "history", "cosine", *masked, "points"])
    assert ("relative L2 error" in page.text) == case.get("reference", True)
    assert ("network=network" in page.text) == ("config" in case)


@pytest.mark.long
@pytest.mark.filterwarnings("error")
def test_a_run_that_was_never_finite_is_reported(make_run):
    names = ["loss", "loss/residual", "grad_norm/residual", "cosine/boundary~residual"]
    nan = np.full(12, np.nan)
    columns = dict.fromkeys([*names, "test/relative_l2", "test/mean_absolute"], nan)
    page = _write(make_run(columns=columns, result={"selected_step": 0}))
    assert "not finite in 12 of 12 evaluations (100%), first at step 0" in page.text
    assert "relative L2 error not finite" in page.text


@pytest.mark.long
def test_runs_of_format_1_are_reported_without_what_they_lack(make_run):
    folder = make_run(terms=())
    page = _write(folder)
    _check_figures(folder, ["solution", "slices", "history", "cosine", "sparsity"])
    assert "validation error" not in page.cells


@pytest.mark.long
def test_a_median_of_fewer_than_ten_says_of_how_many(make_run):
    page = _write(make_run(rows=7))
    assert "median of last 7" in page.cells


def test_loss_weights_are_among_the_facts_where_there_are_any(make_run):
    folder = make_run()
    plain = dict(_report._facts(_run.read(folder)))
    result = json.loads((folder / "result.json").read_text())
    weights = {"boundary": 796.1, "residual": 0.5}
    (folder / "result.json").write_text(json.dumps(result | {"loss_weights": weights}))
    facts = dict(_report._facts(_run.read(folder)))
    assert facts.pop("loss weights") == "boundary 796, residual 0.500"
    assert facts == plain


@pytest.mark.long
def test_the_same_run_gives_the_same_bytes(make_run):
    folder = make_run(layers=0, rows=2)
    reporting.write_report(folder)
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    reporting.write_report(folder)
    assert first == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
