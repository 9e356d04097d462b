"""Writes the tables of docs/benchmarks.md from the result files.

Usage: python -m benchmarks.tables
A table stands between `<!-- NAME -->` and `<!-- end -->`, NAME being that of a file in
benchmarks/results/ without its suffix.
"""

import json
import re
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PUBLISHED = {
    ("accuracy_published", "burgers", "dcgd"): "1.04e-2",
    ("accuracy_published", "klein_gordon2d", "dcgd"): "5e-3",
    ("accuracy_pathologies", "helmholtz2d", "M1"): "1.81e-1",
    ("accuracy_pathologies", "helmholtz2d", "M2"): "1.27e-2",
    ("accuracy_pathologies", "helmholtz2d", "M4"): "3.69e-3",
    ("accuracy_pathologies", "klein_gordon2d", "M4"): "2.81e-3",
    ("accuracy_pathologies", "cavity_stream", "M4"): "3.42e-2",
}


def accuracy(name: str, content: dict) -> list[list[str]]:
    """A row per problem and method: geometric means, with their spread as a factor."""
    kinds = ("selected", "smallest", "final", "median_of_last_ten")
    head = ["problem", "method", "seeds", *(kind.replace("_", " ") for kind in kinds)]
    published = any(key[0] == name for key in PUBLISHED)
    rows = [head + ["published"] * published]
    for row in content["table"]:
        seeds = str(row["seeds"]) + (f", {row['failed']} failed" if row["failed"] else "")
        cells = [f"{_scientific(row[k])} (×÷ {row[f'{k}_spread']:.2f})" for k in kinds]
        line = [row["problem"], row["method"], seeds, *cells]
        if published:
            line.append(PUBLISHED.get((name, row["problem"], row["method"]), ""))
        rows.append(line)
    return rows


def step_time(name: str, content: dict) -> list[list[str]]:
    """A row per size and method."""
    rows = [["size", "method", "ms", "over Adam (95%)", "times faster than PyTorch", "of GEMM"]]
    for row in content["rows"]:
        low, high = row["over_adam_95"]
        faster = row.get("times_faster_than_pytorch")
        rows.append(
            [
                row["size"],
                row["method"],
                f"{row['milliseconds']:.2f}",
                f"{row['over_adam']:.3f} ({low:.3f}–{high:.3f})",
                f"{faster:.2f}" if faster else "",
                f"{row['share_of_gemm']:.0%}",
            ]
        )
    return rows


def table(name: str) -> str:
    """The table of a result file as Markdown."""
    content = json.loads((RESULTS / f"{name}.json").read_text())
    rows = (step_time if name.startswith("step_time") else accuracy)(name, content)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def updated(page: str) -> str:
    """The page with all its tables made anew."""
    pattern = re.compile(r"<!-- (?P<name>\w+) -->\n.*?<!-- end -->", re.DOTALL)

    def made(match: re.Match) -> str:
        return f"<!-- {match['name']} -->\n\n{table(match['name'])}\n\n<!-- end -->"

    return pattern.sub(made, page)


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
    print(f"written to {PAGE}")
