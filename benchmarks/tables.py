"""Writes the tables of docs/ from the result files, and draws the figures of runs against time.

Usage: python -m benchmarks.tables
A table stands between `<!-- NAME -->` and `<!-- end -->`. NAME is the name of a file in
benchmarks/results/ without its suffix, or `across NAME` for a table with one column per size or
method. `NAME of one,another` keeps the rows of these methods, peers or parts. `from PATH` is the
file of a study, such as results/candidates/candidates.md.
"""

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from modsync_jax import reporting
from modsync_jax.training import _phases

from . import diagnosis as diagnosis_runs
from . import dimensions as dimension_runs
from . import estimate as estimate_runs
from . import frontier as frontier_runs
from . import intervals as interval_runs
from . import metric as study

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
PAGES = tuple(page for page in sorted(DOCS.rglob("*.md")) if "<!-- end -->" in page.read_text())
PUBLISHED = {
    ("accuracy_published", "burgers", "dcgd"): "1.04e-2",
    ("accuracy_published", "klein_gordon2d", "dcgd"): "5e-3",
    ("accuracy_causes", "klein_gordon2d", "M4, a weight per condition"): "2.81e-3",
    ("accuracy_pathologies", "helmholtz2d", "M1"): "1.81e-1",
    ("accuracy_pathologies", "helmholtz2d", "M2"): "1.27e-2",
    ("accuracy_pathologies", "helmholtz2d", "M4"): "3.69e-3",
    ("accuracy_pathologies", "klein_gordon2d", "M4"): "2.81e-3",
    ("accuracy_pathologies", "cavity_stream", "M4"): "3.42e-2",
}


def accuracy(name: str, content: dict) -> list[list[str]]:
    """A row per problem and method: geometric means, with their spread as a factor."""
    kinds = reporting.ERROR_KINDS
    head = ["problem", "method", "seeds", *(kind.replace("_", " ") for kind in kinds)]
    published = any(key[0] == name for key in PUBLISHED)
    rows = [head + ["published"] * published]
    for row in content["table"]:
        seeds = str(row["seeds"]) + (f", {row['failed']} failed" if row["failed"] else "")
        line = [row["problem"], row["method"], seeds, *(_error(row, kind) for kind in kinds)]
        if published:
            line.append(PUBLISHED.get((name, row["problem"], row["method"]), ""))
        rows.append(line)
    return rows


def step_time(name: str, content: dict) -> list[list[str]]:
    """A row per size and method, without columns that no row has."""
    optional = {
        "times_faster_than_pytorch": "times faster than PyTorch",
        "share_of_gemm": "of GEMM",
    }
    shown = [key for key in optional if any(key in row for row in content["rows"])]
    rows = [["size", "method", "ms", "over Adam (95%)", *(optional[key] for key in shown)]]
    for row in content["rows"]:
        low, high = row["over_adam_95"]
        ratio = f"{row['over_adam']:.3f} ({low:.3f}–{high:.3f})"
        line = [row["size"], row["method"], f"{row['milliseconds']:.2f}", ratio]
        for key in shown:
            style = ".0%" if key == "share_of_gemm" else ".2f"
            line.append(format(row[key], style) if key in row else "")
        rows.append(line)
    return rows


def memory(name: str, content: dict) -> list[list[str]]:
    """A row per size, number of points and block, with both methods side by side."""
    cases: dict[tuple, dict[str, dict]] = {}
    for row in content["rows"]:
        key = (f"{row['depth']}x{row['width']}", row["points"], row["block_points"])
        cases.setdefault(key, {})[row["method"]] = row
    methods = list(next(iter(cases.values())))
    head = [f"{method}: {what}" for method in methods for what in ("GB", "ns a point")]
    rows = [["size", "points", "in blocks of", *head, f"GB over {methods[0]}"]]
    for (size, points, block), by_method in cases.items():
        line = [size, f"{points:,}", "all" if block == points else f"{block:,}"]
        for row in by_method.values():
            run = row["milliseconds"] is not None
            time = f"{1e6 * row['milliseconds'] / points:,.0f}" if run else "not run"
            line += [f"{row['gigabytes']:.2f}", time]
        used = [by_method[method]["gigabytes"] for method in methods]
        rows.append([*line, f"{used[-1] / used[0]:.2f}"])
    return rows


def _checked(row: dict, name: str, unit: float) -> str:
    value = row[name] / unit
    figure = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{figure} ({row[f'{name}_of_model']:.2f})"


def _count(name: str, row: dict) -> str:
    return f"{row[name]:,}"


Cells = Mapping[str, Callable[[dict], str]]
SCALING: Mapping[str, Cells] = {
    "scaling_cpu": {
        "size": lambda row: row["size"],
        "MFLOP": lambda row: _checked(row, "flops", 1e6),
        "MB moved": lambda row: _checked(row, "traffic", 1e6),
        "MB between steps": lambda row: _checked(row, "state", 1e6),
        "MB meanwhile": lambda row: _checked(row, "work", 1e6),
        "of GEMM (95%)": lambda row: "{:.0%} ({:.0%}–{:.0%})".format(
            row["share_of_gemm"], *row["share_of_gemm_95"]
        ),
        "ms a step": lambda row: f"{row['milliseconds']:.2f}",
    },
    "scaling_tpu": {
        "size": lambda row: row["size"],
        "networks a chip": lambda row: str(row["networks"]),
        "chips that share them": lambda row: str(row["point_devices"]),
        "MFLOP": lambda row: _checked(row, "flops", 1e6),
        "MB moved": lambda row: _checked(row, "traffic", 1e6),
        "MB between steps": lambda row: _checked(row, "state", 1e6),
        "MB meanwhile": lambda row: _checked(row, "work", 1e6),
        "compiled in": lambda row: f"{row['compile_seconds']:.0f} s",
    },
    "scaling_compile": {
        "mapping": lambda row: row["strategy"],
        "networks": lambda row: f"{row['replicas']:,}",
        "seconds": lambda row: f"{row['seconds']:.1f}",
    },
    "scaling_host": {
        "size": lambda row: row["size"],
        "checkpoint, kB": lambda row: f"{row['bytes'] / 1e3:.0f}",
        "model, kB": lambda row: f"{row['model_bytes'] / 1e3:.0f}",
        "save, ms": lambda row: f"{1e3 * row['save']:.2f}",
        "check, ms": lambda row: f"{1e3 * row['check']:.2f}",
        "restore, ms": lambda row: f"{1e3 * row['restore']:.2f}",
        "result, ms": lambda row: f"{1e3 * row['results']:.2f}",
    },
    "scaling_plan": {
        "size": lambda row: row["size"],
        "machine": lambda row: row["machine"],
        "networks a device": lambda row: f"{row['each']:,}" if "each" in row else "",
        "µs a step by products": lambda row: _micro(row.get("by_products")),
        "by traffic": lambda row: _micro(row.get("by_traffic")),
        "hours": lambda row: f"{row['hours']:.2g}" if row["hours"] < 10 else f"{row['hours']:.0f}",
    },
    "scaling_room": {
        "width": lambda row: str(row["width"]),
        **{
            f"{machine}, {depth} layers": partial(_count, f"{machine} {depth}")
            for machine in ("TPU v5e", "H100")
            for depth in (3, 5)
        },
    },
}


def _micro(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e6 * seconds:.0f}"


def scaling(name: str, content: dict) -> list[list[str]]:
    """A row per case, with the columns of `SCALING`."""
    cells = SCALING[name]
    return [[*cells], *([cell(row) for cell in cells.values()] for row in content["rows"])]


def objectives(name: str, content: dict) -> list[list[str]]:
    """A row per method and number of objectives."""
    rows = [["method", "objectives", "ms", "over the fewest (95%)"]]
    for row in content["rows"]:
        low, high = row["over_fewest_95"]
        ratio = f"{row['over_fewest']:.2f} ({low:.2f}–{high:.2f})"
        line = [row["method"], str(row["objectives"]), f"{row['milliseconds']:.2f}", ratio]
        rows.append(line)
    return rows


def drop_in(name: str, content: dict) -> list[list[str]]:
    """A row per case and number of objectives: the own step, and both strategies over it."""
    cases: dict[tuple, dict[str, dict]] = {}
    for row in content["rows"]:
        cases.setdefault((row["points"], row["objectives"]), {})[row["step"]] = row
    rows = [["losses", "K", "own step, ms", "split, over own (95%)", "vmap, over own (95%)"]]
    words = {"own": "points of their own", "shared": "a shared forward pass"}
    for (points, count), by_step in cases.items():
        line = [words[points], str(count), f"{by_step['own']['milliseconds']:.2f}"]
        for name in ("split", "vmap"):
            low, high = by_step[name]["over_own_95"]
            line.append(f"{by_step[name]['over_own']:.2f} ({low:.2f}–{high:.2f})")
        rows.append(line)
    return rows


def jets(name: str, content: dict) -> list[list[str]]:
    """A row per problem: the times of both ways and their ratio at each size."""
    sizes = list(dict.fromkeys(row["size"] for row in content["rows"]))
    rows = [["problem", *(f"{size}: ms, nested, times faster (95%)" for size in sizes)]]
    for problem in dict.fromkeys(row["problem"] for row in content["rows"]):
        line = [f"`{problem}`"]
        for row in (row for row in content["rows"] if row["problem"] == problem):
            low, high = row["times_faster_95"]
            gain = f"**{row['times_faster']:.2f}** ({low:.2f}–{high:.2f})"
            line.append(f"{row['jets']:.2f}, {row['nested']:.2f}, {gain}")
        rows.append(line)
    return rows


def replicas(name: str, content: dict) -> list[list[str]]:
    """A row per way to train many networks, from both parts."""
    rows = [["what", "networks", "way", "time", "times faster"]]
    for row in content["steady"]:
        low, high = row["times_faster_95"]
        time = f"{row['milliseconds']:.2f} ms a network's step"
        gain = f"{row['times_faster']:.2f} ({low:.2f}–{high:.2f})"
        rows.append(["steps alone", str(row["networks"]), row["way"], time, gain])
    for row in content["programs"]:
        what = f"{row['calls']} commands" if row["calls"] > 1 else "1 command"
        time, gain = f"{row['seconds']:.0f} s", f"{row['times_faster']:.2f}"
        rows.append([what, str(row["networks"]), f"`{row['way']}`", time, gain])
    return rows


def frontier(name: str, content: dict) -> list[list[str]]:
    """A row per problem: geometric means of the peers' errors, with their spread."""
    known = {row["peer"] for row in content["rows"]}
    peers = [peer for peer in frontier_runs.PEERS if peer in known]
    cases: dict[tuple, dict[str, list[dict]]] = {}
    for row in content["rows"]:
        found = cases.setdefault((row["problem"], row["minutes"], row["cores"]), {})
        found.setdefault(row["peer"], []).append(row)
    also = [peer for peer in peers if peer == "recipe"]  # has a column of its smallest errors
    head = ["problem", "minutes", "cores", "weights", "seeds", *peers]
    rows = [head + [f"{peer}, smallest" for peer in also]]
    for (problem, minutes, cores), by_peer in sorted(cases.items()):
        weights = sorted({run["parameters"] for found in by_peer.values() for run in found})
        line = [f"`{problem}`", f"{minutes:g}", str(cores), "–".join(f"{n:,}" for n in weights)]
        line.append("–".join(sorted({str(len(found)) for found in by_peer.values()})))
        line += [_geometric(by_peer.get(peer, []), "selected") for peer in peers]
        rows.append(line + [_geometric(by_peer.get(peer, []), "smallest") for peer in also])
    return rows


def estimate(name: str, content: dict) -> list[list[str]]:
    """A row per run: each estimate of its error over the error, and how many are near it."""
    titles = {"step": "step", "score": "loss", "step weighed": "step, weighed", "noise": "noise"}
    rows = [["problem", "error", *titles.values()]]
    for row in content["rows"]:
        problem, ratios = row["run"].split("-")[1], [row["estimates"][k] for k in titles]
        cells = [f"{ratio / row['error']:.2g}" for ratio in ratios]
        rows.append([f"`{problem}`", _scientific(row["error"]), *cells])
    counts = [str(estimate_runs.near(content["rows"], name)) for name in titles]
    return [*rows, ["within a factor of three", "", *counts]]


def intervals(name: str, content: dict) -> list[list[str]]:
    """A row per problem with an unknown coefficient."""
    return interval_runs.table(content["rows"])


def dimensions(name: str, content: dict) -> list[list[str]]:
    """A row per problem in many dimensions and way of its second derivatives."""
    return dimension_runs.table(content["rows"])


def metric(file: str, content: dict) -> list[list[str]]:
    """One part of the study of metrics."""
    found = content["rows"]
    if found[0]["part"] == "cosines":
        return _cosines(found)
    columns = list(dict.fromkeys(map(study.column, found)))
    if found[0]["part"] == "weights":
        columns.sort(key=lambda name: name != "by traces")  # what the others are compared with
    cases: dict[tuple[str, str], dict[str, list[dict]]] = {}
    for row in found:
        case = cases.setdefault((row["problem"], row.get("objectives", "each")), {})
        case.setdefault(study.column(row), []).append(row)
    rows = [["problem", "objectives", *columns]]
    for (problem, objectives), case in sorted(cases.items()):
        cells = [_geometric(case.get(name, []), "selected") for name in columns]
        rows.append([f"`{problem}`", objectives, *cells])
    ratios = [_ratios([*cases.values()], name, columns[0]) for name in columns]
    rows.append([f"over `{columns[0]}`", "", *ratios])
    if found[0]["part"] == "starts":
        equal = [_range(study.over_random_start(found, name)) for name in columns[1:]]
        rows.append(["the same at equal iterations of the recipe", "", "", *equal])
    return rows


def interaction(file: str, content: dict) -> list[list[str]]:
    """A row per way to the products, or per network: the share of products above each ε."""
    found = content["rows"]
    if found[0]["part"] == "ways":
        rows = [["way", "time, ms", "over the first (95%)", "largest difference, relative"]]
        for row in found:
            middle, low, high = row["over_first"]
            ratio = f"{middle:.3g} ({low:.3g}–{high:.3g})"
            difference = f"{row['largest_difference']:.0e}"
            rows.append([row["way"], f"{row['milliseconds']:.2f}", ratio, difference])
        return rows
    above = list(found[0]["above"])
    rows = [["precision", "Adam steps", *(f"above {name}" for name in above), "cosine above 0.01"]]
    for row in found:
        shares = [f"{row['above'][name]:.1%}" for name in above]
        rows.append([row["dtype"], f"{row['steps']:,}", *shares, f"{row['cosine_above']:.1%}"])
    return rows


def measures(file: str, content: dict) -> list[list[str]]:
    """A row per choice of measures: the time of a step over that of a step without any."""
    found = content["rows"]
    sizes = list(dict.fromkeys(row["size"] for row in found))
    rows = [["measures", *(f"{size.replace('x', '×')}, over none (95%)" for size in sizes)]]
    for name in dict.fromkeys(row["measures"] for row in found):
        line = [name if " " in name or name == "none" else f"`{name}`"]
        for row in (row for row in found if row["measures"] == name):
            low, high = row["over_none_95"]
            line.append(f"{row['over_none']:.3f} ({low:.3f}–{high:.3f})")
        rows.append(line)
    return rows


def diagnosis(file: str, content: dict) -> list[list[str]]:
    """A row per problem: its evidence and regimes, and what methods do to the error there."""
    battery = json.loads((RESULTS / "accuracy_battery.json").read_text())["table"]
    errors = {(row["problem"], row["method"]): row["selected"] for row in battery}
    rows = [["problem", "ratio", "lasting", "rms cosine", "regime in each seed", "`lra`", "`dcgd`"]]
    of: dict[str, list[dict]] = {}
    for row in content["rows"]:
        of.setdefault(row["problem"], []).append(row)

    def seen(name: str, kind: str) -> list[float]:
        return [row["evidence"][kind] for row in of[name]]

    def ratio(name: str) -> float:
        return reporting.spread(seen(name, "norm_ratio")).mean

    for name in sorted(of, key=ratio, reverse=True):
        plain = errors.get((name, "sum"))
        over = [f"{errors[name, m] / plain:.2g}" if plain else "" for m in ("lra", "dcgd")]
        mark = " (held back)" if name in diagnosis_runs.HELD_BACK else ""
        regimes = Counter(row["regime"] for row in of[name])
        found = ", ".join(f"{k} ({n})" if len(regimes) > 1 else k for k, n in regimes.items())
        ratios, lasting = seen(name, "norm_ratio"), statistics.fmean(seen(name, "lasting"))
        rms = statistics.fmean(seen(name, "rms_cosine"))
        between = f"{ratio(name):.2g} ({min(ratios):.2g} to {max(ratios):.2g})"
        rows.append([f"`{name}`{mark}", between, f"{lasting:.0%}", f"{rms:.2f}", found, *over])
    return rows


def widths(file: str, content: dict) -> list[list[str]]:
    """A row per width and method: errors, cosines and their spread, shares of felt points."""
    head = ["width", "method", "seeds", "relative L2", "mean cosine", "between batches"]
    rows = [[*head, "above 1e-12", "above 0.001", "cosine above 0.01"]]
    of: dict[tuple[int, str], list[dict]] = {}
    for row in sorted(content["rows"], key=lambda row: row["width"]):
        of.setdefault((row["width"], row["method"]), []).append(row)
    for (width, method), runs in of.items():
        cosine = statistics.fmean(value for run in runs for value in run["cosines"][1:])
        spreads = [value for run in runs for value in run.get("spread", [])[1:]]
        shares = (
            f"{statistics.fmean(run['share'][kind] for run in runs):.1%}"
            for kind in ("1e-12", "0.001", "cosine")
        )
        line = [str(width), f"`{method}`", str(len(runs)), _range([run["error"] for run in runs])]
        spread = f"{statistics.fmean(spreads):.2f}" if spreads else ""
        rows.append([*line, f"{cosine:+.2f}", spread, *shares])
    return rows


def _ratios(cases: list[dict[str, list[dict]]], column: str, reference: str) -> str:
    """The geometric mean of the ratios to a reference, and the smallest and largest of them."""

    def mean(runs: list[dict]) -> float:
        return reporting.spread([run["errors"]["selected"] for run in runs]).mean

    both = [case for case in cases if case.get(column) and case.get(reference)]
    found = [mean(case[column]) / mean(case[reference]) for case in both]
    return "" if column == reference else _range(found)


def _range(found: list[float]) -> str:
    """The geometric mean, and the smallest and the largest."""
    if not found:
        return ""
    return f"{reporting.spread(found).mean:.2g} ({min(found):.2g} to {max(found):.2g})"


def _cosines(found: list[dict]) -> list[list[str]]:
    """A row per optimiser and metric: the mean cosine of two objectives, and of the worst pair."""
    rows = [["trained by", "metric", *(f"{int(mark):,} steps" for mark in found[0]["marks"])]]
    for trainer in dict.fromkeys(row["trainer"] for row in found):
        runs = [row for row in found if row["trainer"] == trainer]
        for name in runs[0]["marks"]["0"]:
            line = [_phases.TITLES[trainer], study.title(name)]
            for mark in runs[0]["marks"]:
                of = {
                    kind: [min(r["marks"][mark][name]) for r in runs if r["objectives"] == kind]
                    for kind in ("grouped", "each")
                }
                line.append(" / ".join(f"{statistics.fmean(v):+.2f}" for v in of.values()))
            rows.append(line)
    return rows


def _geometric(runs: list[dict], kind: str) -> str:
    return str(reporting.spread([run["errors"][kind] for run in runs])) if runs else ""


def examples(name: str, content: dict) -> list[list[str]]:
    """A row per page of a diagnosis: the regime and the numbers that decided."""
    rows = [["page", "losses", "regime", "ratio", "lasting", "rms cosine", "method", "error"]]
    for row in content["rows"]:
        seen = row["evidence"]
        numbers = [
            f"{seen['norm_ratio']:.3g}",
            f"{seen['lasting']:.0%}",
            f"{seen['rms_cosine']:.2f}",
        ]
        page = f"[{row['name']}](examples/{row['name']}/README.md)"
        error = _scientific(row["error"])
        count = str(len(row["objectives"]))
        rows.append([page, count, row["regime"], *numbers, f"`{row['method']}`", error])
    return rows


KINDS = {
    "examples": examples,
    "diagnosis": diagnosis,
    "frontier": frontier,
    "estimate": estimate,
    "dimensions": dimensions,
    "intervals": intervals,
    "interaction": interaction,
    "measures": measures,
    "metric": metric,
    "step_time": step_time,
    "memory": memory,
    "accuracy": accuracy,
    "objectives": objectives,
    "drop_in": drop_in,
    "jets": jets,
    "replicas": replicas,
    "scaling": scaling,
    "widths": widths,
}


def across(content: dict) -> list[list[str]]:
    """A row per method with the step's ratio to Adam by size, or per problem with errors."""
    if "table" in content:
        cells = {
            (r["problem"], r["method"]): _error(r, "selected") + _failures(r)
            for r in content["table"]
        }
        first = "problem"
    else:
        cells = {(r["method"], r["size"]): f"{r['over_adam']:.2f}" for r in content["rows"]}
        first = "method"
    rows, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    return [
        [first, *columns],
        *([row, *(cells.get((row, c), "") for c in columns)] for row in rows),
    ]


def table(name: str) -> str:
    """The table of a marker as Markdown."""
    if name.startswith("from "):
        return (DOCS.parent / name.removeprefix("from ")).read_text().strip()
    called, _, kept = name.partition(" of ")
    file = called.removeprefix("across ")
    content = json.loads((RESULTS / f"{file}.json").read_text())
    if kept:
        names = kept.split(",")
        kinds = ("part", "peer", "method")
        of = [next(row[kind] for kind in kinds if kind in row) for row in content["rows"]]
        content["rows"] = [
            row for row, kind in zip(content["rows"], of, strict=True) if kind in names
        ]
    if file != called:
        rows = across(content)
    else:
        rows = next(make for kind, make in KINDS.items() if file.startswith(kind))(file, content)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def updated(page: str) -> str:
    """The page with all its tables rewritten."""
    pattern = re.compile(
        r"<!-- (?P<name>(across )?\w+( of [^>]+)?|from [^ >]+) -->\n.*?<!-- end -->", re.DOTALL
    )

    def made(match: re.Match) -> str:
        return f"<!-- {match['name']} -->\n\n{table(match['name'])}\n\n<!-- end -->"

    return pattern.sub(made, page)


def _error(row: Mapping[str, Any], kind: str) -> str:
    """The geometric mean of an error over the seeds that did not fail, and its spread."""
    several = row["seeds"] - row["failed"] > 1
    return _scientific(row[kind]) + (f" (×÷ {row[f'{kind}_spread']:.2f})" if several else "")


def _failures(row: Mapping[str, Any]) -> str:
    some = 0 < row["failed"] < row["seeds"]
    return f", {row['failed']} of {row['seeds']} failed" if some else ""


def _scientific(value: float) -> str:
    if not math.isfinite(value):
        return "failed"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(updated(path.read_text()))
        print(f"written to {path}")
    frontier_runs.pictures()
    study.pictures()
