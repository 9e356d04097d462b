"""The files of a sweep: a folder for each group, the results of replicas, exported runs."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from modsync_jax import reporting
from modsync_jax.problems import Problem
from modsync_jax.sweeps import _group, _hosts, _table
from modsync_jax.sweeps._grid import Group, Replica
from modsync_jax.training import Solution, _folder, _loop
from modsync_jax.training._folder import RunFolder
from modsync_jax.transform import export as exported

EXPORTS = ("none", "best", "all")


class Store:
    """The sweep's data on disk: results by replica and stage.

    A stage is the step of a comparison of configurations, or None for the end.

    Args:
      folder: the sweep's folder.
      spec: the problem's name as the user gave it.
      problem: the problem.
      export: the replicas whose runs get a folder of their own.
    """

    def __init__(
        self,
        folder: RunFolder,
        spec: str,
        problem: Problem | str,
        export: str,
    ) -> None:
        self._folder, self._spec, self._problem, self._export = folder, spec, problem, export
        self._results: dict[str, dict[str, Any]] = _hosts.from_primary(self._read)

    def missing(self, replicas: Sequence[Replica], stage: int | None) -> list[Replica]:
        """Returns the replicas that still have to be trained to a stage."""
        done = self._results.get(_file(stage), {})
        held = {replica.name for replica in replicas if replica.name in done}
        if stage is None and self._export == "all":
            held &= set(_hosts.from_primary(lambda: self._exported(replicas)))
        return [replica for replica in replicas if replica.name not in held]

    def scores(self, replicas: Sequence[Replica], stage: int) -> dict[str, float | None]:
        """Returns the score of each replica after a stage, by name; None for a failed replica."""
        done = self._results[_file(stage)]
        return {replica.name: done[replica.name]["score"] for replica in replicas}

    def results(self, replicas: Sequence[Replica]) -> list[Mapping[str, Any]]:
        """Returns each replica's `result` and `failure` at its latest stage."""
        latest: dict[str, Mapping[str, Any]] = {}
        for name in sorted(self._results, key=_order):
            latest |= self._results[name]
        return [latest[replica.name] for replica in replicas]

    def open(self, group: Group) -> _hosts.SharedFolder:
        """Opens the folder of a group, which holds its checkpoints."""
        path = self._folder.path / "groups" / group.folder
        identity = {"replicas": [replica.name for replica in group.replicas]}
        return _hosts.SharedFolder(path, identity, resume=(path / "config.json").exists())

    def inherited(self, group: Group, step: int, like: _group.Batch) -> _group.Batch | None:
        """Returns the replicas' states at the end of a stage, from their groups in that stage."""
        done = self._results.get(_file(step), {})
        homes = [done[r.name]["group"] for r in group.replicas if r.name in done]
        paths = {home: self._folder.path / "groups" / home for home in homes}
        whole = partial(_folder.holds_checkpoint, step=step)
        if len(homes) < len(group.replicas) or not _hosts.from_primary(
            lambda: all(map(whole, paths.values()))
        ):
            return None
        states = {home: _folder.read_checkpoint(path, step, like) for home, path in paths.items()}
        rows = [
            _group.member(states[home], done[replica.name]["index"])
            for home, replica in zip(homes, group.replicas, strict=True)
        ]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)

    def keep(
        self,
        trainer: _group.Trainer,
        folder: RunFolder,
        stage: int | None,
        outcomes: Sequence[_group.Outcome],
    ) -> None:
        """Writes the outcomes of a group; after this its replicas count as trained to the stage."""
        group = trainer.group
        results = {
            replica.name: {
                "result": dict(outcome.result),
                "failure": outcome.failure,
                "score": outcome.score,
                "group": group.folder,
                "index": index,
            }
            for index, (replica, outcome) in enumerate(zip(group.replicas, outcomes, strict=True))
        }
        self._results.setdefault(_file(stage), {}).update(results)
        if stage is None:
            good = [i for i, outcome in enumerate(outcomes) if not outcome.failure]
            best = sorted(good, key=lambda i: outcomes[i].result["score"])[:1]
            for index in {"none": [], "best": best, "all": range(len(outcomes))}[self._export]:
                self._export_run(trainer, group.replicas[index], outcomes[index])
        if _hosts.is_primary():
            columns, steps = _table.columns(outcomes)
            folder.write_arrays("metrics.npz", {"steps": steps, **columns})
            folder.write(_file(stage), results)

    def _read(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for path in sorted((self._folder.path / "groups").glob("*/results*.json")):
            found.setdefault(path.name, {}).update(json.loads(path.read_text()))
        return found

    def _exported(self, replicas: Sequence[Replica]) -> list[str]:
        runs = self._folder.path / "runs"
        ends = ("result.json", "failed.txt")
        return [r.name for r in replicas if any((runs / r.name / end).exists() for end in ends)]

    def _export_run(
        self, trainer: _group.Trainer, replica: Replica, outcome: _group.Outcome
    ) -> None:
        """Writes the run of a replica as `solve` would."""
        path = self._folder.path / "runs" / replica.name
        if _hosts.is_primary():
            shutil.rmtree(path, ignore_errors=True)
        problem, config = _loop.problem_of(self._problem, replica.config)
        identity = _loop.identity_of(self._spec, problem, config, trainer.network)
        run = _hosts.SharedFolder(path, identity, resume=False)
        run.save(int(outcome.state.step), outcome.state)
        if not _hosts.is_primary():
            return
        for row in outcome.rows:
            run.append(row)
        if outcome.failure:
            run.write_text("failed.txt", outcome.failure + "\n")
            return
        best = outcome.state.best_params
        solution = Solution(
            trainer.network, problem.coordinates, exported(best), best, outcome.result, outcome.rows
        )
        _loop.finish(run, problem, config, solution, identity)
        with run.writing():
            reporting.write_report(path)


def _file(stage: int | None) -> str:
    """The file name of a group's results at a stage."""
    return "results.json" if stage is None else f"results-{stage}.json"


def _order(file: str) -> float:
    """The key that sorts results by their stage."""
    step = file.removeprefix("results-").removesuffix(".json")
    return float(step) if step.isdigit() else math.inf
