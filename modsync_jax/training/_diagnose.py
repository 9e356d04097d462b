"""The diagnosis of a problem: a short, plain training, and a page about what it shows."""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array

from modsync_jax import diagnostics, gradients, reporting, transform
from modsync_jax.diagnostics import Bounds, Diagnosis
from modsync_jax.problems import Problem, points_of
from modsync_jax.training import _balance, _loop, _losses, _measure, _optimizers, _step
from modsync_jax.training._config import ConfigError, TrainConfig
from modsync_jax.training._folder import (
    DIAGNOSIS,
    RunFolder,
    read_config,
    read_metrics,
    read_result,
)
from modsync_jax.training._presets import expanded
from modsync_jax.training._solution import Solution, load
from modsync_jax.training._state import TRAIN

PyTree = Any
_SAMPLES = 128  # of a term, for tangent kernels and for cosines of single points
_THRESHOLD_STEPS, _THRESHOLD_RATE = 500, 1e-3  # with which thresholds are learnt
_ABLATIONS = ("ablation", "ablation_random")
LEFT_OUT = ("method", "steps", "then", "selection", "time_limit", "measures")
"""Settings of `TrainConfig` that a diagnosis does not take."""


def diagnose_problem(
    problem: Problem | str,
    *,
    steps: int = 1_000,
    output_dir: str | os.PathLike | None = None,
    bounds: Bounds = Bounds(),  # noqa: B008, it is frozen
    **settings: Any,
) -> Diagnosis:
    """Trains the plain sum of a problem's losses for a while, and names the regime they are in.

    Args:
      problem: a `Problem`, the name of one, or `file.py:name`.
      steps: the steps to watch, at least 10.
      output_dir: the folder for `diagnosis.json`, `diagnosis.npz`, figures and `diagnosis.html`;
        None writes nothing.
      bounds: where regimes begin.
      **settings: fields of `TrainConfig` but those in `LEFT_OUT`.

    Raises:
      ConfigError: on a setting that is not allowed, fewer than two objectives, or a training that
        is not finite.
      RunError: on a folder that can't be written.
    """
    for name in LEFT_OUT:
        if name in settings:
            raise ConfigError(
                f"a diagnosis trains the plain sum for its own steps; leave out {name}"
            )
    settings = _taken(settings)
    spec = problem if isinstance(problem, str) else problem.name
    config = TrainConfig.from_settings({**settings, "method": "sum"})
    found, config = _loop.problem_of(problem, config)
    _loop.check_fits(found, config)
    network = _step.network_of(found, config)
    losses = _losses_of(found, network, config)
    dtype, key = jnp.dtype(config.dtype), jax.random.key(config.seed)
    folder = None
    if output_dir is not None:
        folder = RunFolder(output_dir, {"diagnosis": spec, "steps": steps}, resume=False)
    with jax.default_matmul_precision(config.matmul_precision):
        first = config.phases[0]
        try:
            diagnosis = diagnostics.diagnose(
                losses.trained,
                _step.random_params(found, network, key, dtype),
                lambda key: losses.sample(key, 1, dtype),
                steps=steps,
                optimizer=_optimizers.weights_optimizer(config, first, first=True),
                key=jax.random.fold_in(key, TRAIN),
                bounds=bounds,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from None
    if folder is not None:
        count = len(diagnosis.rows)
        marks = [steps // count * (k + 1) for k in range(count)]
        given = {n: v for n, v in settings.items() if v != getattr(TrainConfig(), n, None)}
        facts = {
            "problem": spec,
            "trained_by": config.trained_by,
            "marks": marks,
            "shown": marks[-1],
        }
        _write(folder, facts, given, diagnosis, bounds, found, network, config)
    return diagnosis


def diagnose_run(
    run: str | os.PathLike,
    *,
    output_dir: str | os.PathLike | None = None,
    bounds: Bounds = Bounds(),  # noqa: B008, it is frozen
) -> Diagnosis:
    """Names the regime in which a finished run was, by any method and in any phases.

    Rows of first-order phases stand for all batches since the row before, those of second-order
    phases for one batch. The pictures are of the run's selected network.

    Args:
      run: the folder of a run by a network of the package.
      output_dir: as in `diagnose_problem`.
      bounds: where regimes begin.

    Raises:
      ConfigError: on fewer than two objectives, or a run without the measure `norm_ratio`.
      RunError: on a folder that can't be read or written.
    """
    stored, result, solution = read_config(run), read_result(run), load(run)
    config = TrainConfig.from_stored(stored)
    found, config = _loop.problem_of(stored["problem"], config)
    rows = [row for row in read_metrics(run) if row["step"]]
    names = tuple(sorted(found.objective_terms(config.objectives)))
    needed = ["norm_ratio", *(f"spread/{pair}" for *_, pair in diagnostics.pairs(names))]
    if len(names) < 2 or any(column not in rows[-1] for column in needed):
        raise ConfigError(
            f"{run} has one objective, or no measure norm_ratio; a diagnosis needs a run with "
            "--measures=norm_ratio"
        )
    try:
        diagnosis = diagnostics.judged(rows, names, solution.params, bounds)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if output_dir is not None:
        folder = RunFolder(output_dir, {"diagnosis": str(run)}, resume=False)
        marks = [int(row["step"]) for row in rows]
        facts = {
            "problem": stored["problem"],
            "trained_by": result["trained_by"],
            "marks": marks,
            "shown": result["selected_step"],
            "second_order": config.phases[-1].freezes,
        }
        plain = dataclasses.replace(config, method="sum", then="", steps=1, warmup_steps=0)
        given = {"objectives": config.objectives}
        _write(folder, facts, given, diagnosis, bounds, found, solution.network, plain)
    return diagnosis


def _losses_of(problem: Problem, network: nn.Module, config: TrainConfig) -> _losses.Losses:
    """The losses of a run, with their weights."""
    weighed = _balance.weighed(config, _balance.factors(problem, network, config))
    return _losses.build(problem, network, weighed, lambda points: points)


def _write(
    folder: RunFolder,
    facts: Mapping[str, Any],
    given: Mapping[str, Any],
    diagnosis: Diagnosis,
    bounds: Bounds,
    problem: Problem,
    network: nn.Module,
    config: TrainConfig,
) -> None:
    """Writes the files and the page of a diagnosis."""
    losses, groups = (
        _losses_of(problem, network, config),
        problem.objective_terms(config.objectives),
    )
    params, key = diagnosis.params, jax.random.fold_in(jax.random.key(config.seed), 1)
    dtype = jax.tree.leaves(params)[0].dtype
    with jax.default_matmul_precision(config.matmul_precision):
        arrays = _arrays(losses, groups, params, key, dtype)
        solution = Solution(network, problem.coordinates, params, params, {}, [])
        arrays |= _measure.on_grid(problem, solution)
    size = {"width": config.width, "depth": config.depth, "seed": config.seed}
    found = {
        **facts,
        "settings": {**given, **size},
        "regime": diagnosis.regime,
        "borderline": diagnosis.borderline,
        "method": diagnosis.method,
        "reason": diagnosis.reason,
        "command": command(facts["problem"], diagnosis.method, {**given, **size}),
        "evidence": diagnosis.evidence,
        "bounds": dataclasses.asdict(bounds),
        "objectives": diagnosis.names,
        "weights": sum(leaf.size for leaf in jax.tree.leaves(diagnosis.params["network"])),
        "error": _error(arrays),
        "modules": _modules(arrays, diagnosis.names),
        "rows": diagnosis.rows,
        "versions": _measure.versions(),
    }
    folder.write_arrays("diagnosis.npz", arrays)
    folder.write("diagnosis.json", found)
    with folder.writing():
        reporting.write_diagnosis(folder.path)


def _error(arrays: Mapping[str, np.ndarray]) -> float | None:
    """The relative L2 error on the test grid, of all quantities together."""
    if "reference" not in arrays:
        return None
    wrong, true = arrays["prediction"] - arrays["reference"], arrays["reference"]
    return float(np.linalg.norm(wrong) / np.linalg.norm(true))


def _modules(arrays: Mapping[str, np.ndarray], names: tuple[str, ...]) -> dict[str, Any]:
    """The share of the weights that one loss alone needs, and the losses with a mask of no use."""
    rise = {kind: [float(arrays[f"module/{kind}/{n}|{n}"]) for n in names] for kind in _ABLATIONS}
    learnt, random = (rise[kind] for kind in _ABLATIONS)
    useless = [n for n, a, b in zip(names, learnt, random, strict=True) if not a < b]
    return {"single": float(arrays["module/single"]), "no_better_than_random": useless}


def _taken(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a diagnosis takes, those of a preset among them."""
    try:
        return without_left_out(expanded(settings))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def without_left_out(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that a diagnosis takes."""
    return {name: value for name, value in settings.items() if name not in LEFT_OUT}


def method_for(
    problem: Problem | str, output_dir: str | os.PathLike | None, settings: Mapping[str, Any]
) -> str:
    """The method of a run by `auto`: that of its folder's diagnosis, which is made if need be.

    Args:
      problem: as in `solve`.
      output_dir: the run's folder; the diagnosis goes into `diagnosis/` there.
      settings: those of the run.

    Raises:
      ConfigError, RunError: as `diagnose_problem`.
    """
    taken = _taken(settings)
    if output_dir is None:
        return diagnose_problem(problem, **taken).method
    folder = Path(output_dir) / DIAGNOSIS
    if not (folder / "diagnosis.html").exists():
        shutil.rmtree(folder, ignore_errors=True)  # one that was stopped
        return diagnose_problem(problem, output_dir=folder, **taken).method
    return json.loads((folder / "diagnosis.json").read_text())["method"]


def command(problem: str, method: str, settings: Mapping[str, Any]) -> str:
    """The command line that trains a problem by a method with some settings."""

    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return ",".join(f"{name}={number:g}" for name, number in value.items())
        return str(value)

    flags = {"problem": problem, "method": f"'{method}'" if "(" in method else method, **settings}
    shown = (f"--{name}={text(value)}" for name, value in flags.items())
    return " ".join(["python -m experiments.train", *shown])


def _arrays(
    losses: _losses.Losses,
    groups: Mapping[str, tuple[str, ...]],
    params: PyTree,
    key: Array,
    dtype: Any,
) -> dict[str, np.ndarray]:
    """What the network at the end of the training shows, for pictures."""
    names, keys = losses.names, jax.random.split(key, 3)
    batch = losses.sample(keys[0], 1, dtype)
    few = jax.tree.map(lambda x: x[:_SAMPLES], batch)

    def spectrum(name: str, params: PyTree) -> Array:
        """The eigenvalues of an objective's tangent kernel, largest first."""
        own = {part: points_of(few, part) for part in groups[name]}
        kernel = diagnostics.tangent_kernel(lambda p: losses.residuals(p, own), params)
        return jnp.linalg.eigvalsh(kernel)[::-1]

    @jax.jit
    def of_network(params: PyTree) -> dict[str, Any]:
        values, grads = gradients.value_and_objective_grads(losses.trained)(params, batch)
        seen = losses.snapshot(params, batch, values, grads, False, None)
        steps, along = diagnostics.slices(losses.trained, seen, batch)
        return {
            "layer": diagnostics.MEASURES["layer_cosine"](seen),
            "histogram": diagnostics.histograms(seen),
            "slice/steps": steps,
            "slice/losses": along,
            "spectrum": {name: spectrum(name, params) for name in names},
        }

    @jax.jit
    def of_modules(params: PyTree) -> dict[str, Array]:
        thresholds = diagnostics.learnt_thresholds(
            losses.trained,
            params,
            lambda step: losses.sample(jax.random.fold_in(keys[1], step), 1, dtype),
            len(names),
            steps=_THRESHOLD_STEPS,
            kind=transform.thresholds(optax.adam(_THRESHOLD_RATE)),
        )
        kept = diagnostics.supports(params, thresholds)
        row = diagnostics.modularity(kept, names)
        return row | diagnostics.ablation(losses.trained, params, kept, keys[2], batch)

    found = {**jax.device_get(of_network(params)), "module": jax.device_get(of_modules(params))}
    flat = {"objectives": np.array(names), "edges": np.asarray(diagnostics.EDGES)}
    for kind, value in found.items():
        if isinstance(value, Mapping):
            flat |= {f"{kind}/{name}": np.asarray(v, np.float64) for name, v in value.items()}
        else:
            flat[kind] = np.asarray(value, np.float64)
    return flat
