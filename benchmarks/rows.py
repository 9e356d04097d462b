"""Results of many runs: each in a process of its own, and a line of a JSON file.

A benchmark that was stopped goes on where it was. `--cores=1` gives each run one core, and as many
runs as there are cores train at once.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from modsync_jax import problems

Row = dict[str, Any]


# Benchmarks of problems take these by default; `dimensions.py` has those of many dimensions.
MANY_DIMENSIONS = (
    "poisson_nd",
    "heat_nd",
    "allen_cahn_nd",
    "hamilton_jacobi_bellman",
    "black_scholes",
)
PROBLEMS = tuple(name for name in problems.names() if name not in MANY_DIMENSIONS)


def load(path: Path) -> list[Row]:
    """Returns the rows of a file; none if there is no file."""
    return json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []


def asked(
    doc: str,
    one: Callable[..., Row],
    *,
    minutes: float | None = None,
    seeds: int,
    **axes: Iterable[Any],
) -> tuple[list[Row], int]:
    """Reads the command line of a benchmark and returns what it asks for.

    With `--one=<a run as JSON>` it does that run, prints a line of JSON and ends the process.

    Args:
      doc: the benchmark's docstring, whose first line is its question.
      one: from the settings of a run to what it found.
      minutes: the default of `--minutes`; without it there is no such option.
      seeds: the default of `--seeds` is 0, 1, ... below this.
      **axes: the values of `problem`, the option `--problems`, and of other settings, all of the
        type of the first one.

    Returns:
      The product of seeds and axes, as the settings of runs, of which the last axis varies fastest,
      and the number of cores of each run.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    most = len(os.sched_getaffinity(0))
    parser.add_argument("--cores", type=int, default=most, help="of each run; all by default")
    if minutes is not None:
        parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--seeds", default=",".join(map(str, range(seeds))))
    kinds: dict[str, Callable[[str], Any]] = {"seed": int}
    for name, values in axes.items():
        default = list(values)
        kinds[name] = type(default[0])
        parser.add_argument(f"--{name}s", default=",".join(map(str, default)))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    if not 1 <= options["cores"] <= most:
        parser.error(f"--cores is {options['cores']}; this machine has {most}")
    if options["one"]:
        print(json.dumps(one(**json.loads(options["one"]))))
        sys.exit()
    chosen = [[kind(text) for text in options[f"{n}s"].split(",")] for n, kind in kinds.items()]
    limit = {} if minutes is None else {"minutes": options["minutes"]}
    runs = [dict(zip(kinds, values, strict=True)) | limit for values in itertools.product(*chosen)]
    return runs, options["cores"]


def fill(
    module: str,
    path: Path,
    wanted: Iterable[Mapping[str, Any]],
    cores: int,
    show: Callable[[Row], str],
    table: Callable[[Sequence[Row]], list[list[str]]] | None = None,
) -> None:
    """Runs what is missing in a file, and adds a row for each run.

    Args:
      module: `python -m module --one=<a run as JSON>` ends with a line of JSON, what it found.
      path: the file.
      wanted: the runs, as the settings by which a row is known, beside its `cores`.
      cores: the number of cores that each run has for itself.
      show: what to print about a row.
      table: of all rows, to print at the end.

    Raises:
      SystemExit: a run failed; no other is begun.
    """
    there = sorted(os.sched_getaffinity(0))
    shares = [there[k : k + cores] for k in range(0, len(there) - cores + 1, cores)]
    lock, failed = threading.Lock(), threading.Event()

    def settle() -> None:
        os.sched_setaffinity(0, shares.pop())  # of this thread, and of the processes it starts

    def do(run: Mapping[str, Any]) -> None:
        known = {**run, "cores": cores}
        if failed.is_set() or any(known.items() <= row.items() for row in load(path)):
            return
        command = [sys.executable, "-m", module, f"--one={json.dumps(run)}"]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if ended.returncode:
            failed.set()
            raise SystemExit(f"{json.dumps(run)} ended with exit status {ended.returncode}")
        row = {**known, **json.loads(ended.stdout.splitlines()[-1])}
        with lock:
            lines = ",\n".join(map(json.dumps, [*load(path), row]))  # as others left it meanwhile
            new = path.with_suffix(".new")  # a process that ends here leaves the old file whole
            new.write_text(f'{{"rows": [\n{lines}\n]}}\n', encoding="utf-8")
            new.replace(path)
            print(show(row), flush=True)

    pool = ThreadPoolExecutor(len(shares), initializer=settle)
    try:
        list(pool.map(do, wanted))
    finally:
        pool.shutdown(cancel_futures=True)
    for cells in table(load(path)) if table else ():
        print(" | ".join(cells))


def of_solution(solution: Any, started: float, most: int) -> Row:
    """Returns what a row holds of a run that `solve` has just ended.

    Args:
      solution: a `Solution` with `selection="loss"`.
      started: the time from which its seconds count.
      most: as in `history`.
    """
    result, evaluated = solution.result, solution.metrics
    seconds = result["timing"]["seconds_at_rows"]
    late = time.time() - started - seconds[-1]  # before the first step, and after the last
    return {
        **{name: result[name] for name in ("parameters", "loss_weights", "steps")},
        **history(
            [late + at for at in seconds],
            [row["test/relative_l2"] for row in evaluated],
            [row["score"] for row in evaluated],
            most,
        ),
    }


def history(
    seconds: Sequence[float], errors: Sequence[float], scores: Sequence[float], most: int
) -> Row:
    """Returns the errors of a run by what selects them, and at most so many of its evaluations.

    Args:
      seconds: of each evaluation.
      errors: on the test grid.
      scores: the least of them selects, without a reference; not finite for never.
      most: the number of evaluations to keep.
    """
    finite = np.where(np.isfinite(scores), scores, np.inf)  # a NaN would be the least
    kept = sorted({round(k) for k in np.linspace(0, len(errors) - 1, most)})
    return {
        "errors": {
            "selected": float(errors[int(np.argmin(finite))]),
            "smallest": float(np.nanmin(errors)),
            "final": float(errors[-1]),
        },
        "seconds": [round(seconds[k], 2) for k in kept],
        "history": digits(errors[k] for k in kept),
        "scores": digits(scores[k] for k in kept),
    }


def draw(found: Sequence[Row], of: Callable[[Row], str], names: Iterable[str]) -> Figure:
    """Draws the errors of runs against time, a panel for each problem.

    Args:
      found: the runs.
      of: the name of a run's line.
      names: all names, in the order of their styles.
    """
    shown = sorted({run["problem"] for run in found})
    known = {of(run) for run in found}
    styles = itertools.cycle(matplotlib.rcParams["axes.prop_cycle"])
    style = dict(zip((name for name in names if name in known), styles, strict=False))
    across = -(-len(shown) // 3)  # at most three rows
    down = -(-len(shown) // across)
    figure = Figure(figsize=(2.6 * across + 2.2, 2.2 * down + 0.4))
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    lines = {}
    for axis, problem in itertools.zip_longest(axes.flat, shown):
        if problem is None:
            axis.set_axis_off()
            continue
        axis.set_title(problem)
        axis.set_yscale("log")
        for run in (run for run in found if run["problem"] == problem):
            (line,) = axis.plot(run["seconds"], run["history"], **style[of(run)])
            lines[of(run)] = line
    for column in range(across):  # the lowest panel of each column has the numbers below it
        axes[(len(shown) - 1 - column) // across, column].tick_params(labelbottom=True)
    figure.legend([lines[name] for name in style], style, loc="outside right upper")
    figure.supxlabel("seconds from the start of the process")
    figure.supylabel("relative L2 error, test grid")
    return figure


def digits(values: Iterable[float]) -> list[float]:
    """Returns numbers with the four digits that a file keeps."""
    return [float(f"{value:.4g}") for value in values]
