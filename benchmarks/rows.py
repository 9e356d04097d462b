"""Results of many runs: each in a process of its own, and a line of a JSON file.

A benchmark that was stopped goes on where it was.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def load(path: Path) -> list[Row]:
    """Returns the rows of a file; none if there is no file."""
    return json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []


def fill(
    module: str, path: Path, wanted: Iterable[Mapping[str, Any]], show: Callable[[Row], str]
) -> None:
    """Runs what is missing in a file, and adds a row for each run.

    Args:
      module: `python -m module --one=<a run as JSON>` ends with a line of JSON, what it found.
      path: the file.
      wanted: the runs, as the settings by which a row is known.
      show: what to print about a row.
    """
    for run in wanted:
        if any(run.items() <= row.items() for row in load(path)):
            continue
        command = [sys.executable, "-m", module, f"--one={json.dumps(run)}"]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = {**run, **json.loads(ended.stdout.splitlines()[-1])}
        lines = ",\n".join(map(json.dumps, [*load(path), row]))  # as others left it meanwhile
        path.write_text(f'{{"rows": [\n{lines}\n]}}\n', encoding="utf-8")
        print(show(row), flush=True)
