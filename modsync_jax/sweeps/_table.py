"""The table of a sweep: a row for each replica, as CSV and Parquet."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modsync_jax import reporting
from modsync_jax.sweeps._grid import Replica
from modsync_jax.sweeps._group import Outcome
from modsync_jax.training._folder import RunFolder

Row = dict[str, Any]


def rows(replicas: Sequence[Replica], results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Returns a row for each replica, the grid's columns first; None for axes of other methods."""
    axes = list(dict.fromkeys(name for replica in replicas for name in replica.point))
    return [
        {name: replica.point.get(name) for name in axes}
        | _row(replica, kept["result"], kept["failure"], kept["score"])
        for replica, kept in zip(replicas, results, strict=True)
    ]


def columns(outcomes: Sequence[Outcome]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns the replicas' metrics, `[R, rows]` by column, NaN where missing, and the steps."""
    longest = max((outcome.rows for outcome in outcomes), key=len)
    steps = np.array([row["step"] for row in longest])
    made = {}
    for name in longest[0]:
        made[name] = np.full((len(outcomes), len(steps)), math.nan)
        for index, outcome in enumerate(outcomes):
            made[name][index, : len(outcome.rows)] = [row[name] for row in outcome.rows]
    return made, steps


def write(folder: RunFolder, table: Sequence[Row]) -> None:
    """Writes `results.csv` and `results.parquet`."""
    import pyarrow
    from pyarrow import parquet

    names = list(dict.fromkeys(name for row in table for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    folder.write_text("results.csv", text.getvalue())
    whole = pyarrow.Table.from_pylist([{name: row.get(name) for name in names} for row in table])
    buffer = io.BytesIO()
    parquet.write_table(whole, buffer)
    folder.write_bytes("results.parquet", buffer.getvalue())


def _row(replica: Replica, result: Mapping[str, Any], failure: str, score: float | None) -> Row:
    ended = result["steps"] == replica.config.total_steps
    status = "not finite" if failure else "finished" if ended else "stopped"
    row: Row = {"status": status, "failure": failure, "replica": replica.name}
    row |= {"steps": result["steps"], "score": score}
    errors = result["errors"]
    if errors:
        row |= {kind: errors["relative_l2"][kind] for kind in reporting.ERROR_KINDS}
        row["mean_absolute"] = errors["mean_absolute"]["selected"]
    row |= {f"loss_{kind}": result["loss"][kind] for kind in ("selected", "final")}
    row |= {f"unknown_{name}": value for name, value in result["unknowns"].items()}
    row |= result.get("measured", {})  # older results have none
    rate = result["timing"]["steps_per_second"]
    row |= {
        "keep": result["keep"]["selected"] if result["keep"] else None,
        "selected_step": result["selected_step"],
        "parameters": result["parameters"],
        "milliseconds_a_step": 1e3 / rate if rate else None,
    }
    return row
