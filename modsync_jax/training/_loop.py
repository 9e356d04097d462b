"""One loop for every problem and method: `solve` trains, `load` reads a finished run."""

import dataclasses
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
from flax import linen as nn

from modsync_jax import citations, networks, problems, reporting, transform
from modsync_jax._names import unknown
from modsync_jax.problems import Problem
from modsync_jax.training import _measure, _signals, _step
from modsync_jax.training._config import ConfigError, TrainConfig
from modsync_jax.training._folder import RunError, RunFolder
from modsync_jax.training._progress import Meter
from modsync_jax.training._schedule import chunks
from modsync_jax.training._solution import Solution, load


class Interrupted(RunError):
    """A run that was told to stop (Ctrl-C, SIGTERM); its state is saved."""


class NonFinite(RunError):
    """A run whose loss or update was not finite; the last good state is saved."""


def solve(
    problem: Problem | str,
    method: str = "modsync+dcgd",
    *,
    network: nn.Module | str = "mlp",
    output_dir: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = True,
    report: bool = True,
    **settings: Any,
) -> Solution:
    """Trains a network on a problem.

    Args:
      problem: a `Problem`, the name of one, or `file.py:name`.
      method: how gradients become updates; see `modsync_jax.methods.names()`.
      network: one of `modsync_jax.networks` by name, with the settings `width`, `depth`, ...; or
        a Flax module of your own, from points `[..., d]` to values `[..., m]`.
      output_dir: folder for configuration, metrics, checkpoints, figures and report; None writes
        nothing.
      resume: continue the run in `output_dir`; it ends with the same bits as one never stopped.
      progress: show progress on standard error.
      report: draw the figures and the report into `output_dir`.
      **settings: fields of `modsync_jax.training.TrainConfig`, such as `steps=20_000`.

    Returns:
      The solution with the best parameters: those of the lowest error on validation points where
      there is a reference, else of the lowest total loss.

    Raises:
      ConfigError: on a setting that is not allowed.
      RunError: on a folder that can't be used or written.
      NonFinite: when a loss or an update is not finite; the last good state is saved.
      Interrupted: when the run was told to stop; its state is saved.
    """
    spec = problem if isinstance(problem, str) else problem.name
    own = None if isinstance(network, str) else network
    kind = {"network": network} if isinstance(network, str) else {}
    config = TrainConfig.from_settings({"method": method, **kind, **settings})
    problem, config = problem_of(problem, config)
    check_fits(problem, config)
    built = _step.network_of(problem, config)
    identity = identity_of(spec, problem, config, built if own is None else None)
    folder = RunFolder(output_dir, identity, resume=resume) if output_dir is not None else None
    if resume and folder is None:
        raise RunError("resume needs output_dir, the folder of the run to continue")
    if folder is not None and (folder.path / "result.json").exists():
        solution = load(folder.path, network=own)
    else:
        with jax.default_matmul_precision(config.matmul_precision):
            solution = _train(problem, built if own is None else own, config, folder, progress)
        if folder is not None:
            finish(folder, problem, config, solution, identity)
    if report and folder is not None and not (folder.path / "report.html").exists():
        reporting.write_report(folder.path)
    return solution


def finish(
    folder: RunFolder,
    problem: Problem,
    config: TrainConfig,
    solution: Solution,
    identity: Mapping[str, Any],
) -> None:
    """Writes what a finished run adds to its folder; `result.json`, which says so, last."""
    arrays = _measure.on_grid(problem, solution) | _measure.drawn(problem, config)
    folder.write_arrays("solution.npz", arrays)
    folder.write_arrays("layers.npz", _measure.layers(solution))
    folder.write_text("references.bib", citations.of_run(identity))
    folder.write("result.json", solution.result)


def _train(
    problem: Problem,
    network: nn.Module,
    config: TrainConfig,
    folder: RunFolder | None,
    progress: bool,
) -> Solution:
    program = _step.compiled(_step.build(problem, network, config))
    references = _measure.references(problem, config)
    state, rows = program.init(config.seed), []
    if folder is not None:
        saved = folder.latest(partial(print, file=sys.stderr, flush=True))
        rows = folder.rewind(-1 if saved is None else saved)
        if saved is not None:
            like = state if saved <= config.steps else program.start_polish(state)
            state = folder.restore(saved, like)
    step = int(state.step)
    clock = _measure.Clock()
    label = f"{problem.name} {config.method}"
    with (
        Meter(label, config.total_steps, step, enabled=progress) as meter,
        _signals.collected(meter.line) as stopped,
    ):
        meter.line(_measure.headline(problem, config))

        def record(state: _step.TrainState) -> _step.TrainState:
            state, values = program.evaluate(state, references)
            row = {name: jax.device_get(values[name]).item() for name in _measure.in_order(values)}
            if folder is not None:
                folder.append(row)
            rows.append(row)
            meter.row(row, clock.rate)
            return state

        if not rows:
            state = record(state)
        for chunk in chunks(config, step):
            if chunk.start == config.steps:
                state = program.start_polish(state)
            count = chunk.end - chunk.start
            with clock.measure((chunk.polish, count), count):
                state = (program.polish if chunk.polish else program.advance)(state, count)
                healthy = bool(state.healthy)
            meter.advance(int(state.step))
            if healthy and chunk.evaluates:
                state = record(state)
            if folder is not None and (chunk.saves or stopped or not healthy):
                folder.save(int(state.step), state)
            if not healthy:
                kept = f"; the last good state is in {folder.path}" if folder is not None else ""
                broke = _measure.what_broke(int(state.step), state.losses, program.objectives)
                raise NonFinite(f"{broke}{kept}; try a smaller learning_rate, or warmup_steps")
            if stopped and chunk.end < config.total_steps:
                raise Interrupted(_how_to_resume(chunk.end, config, folder))
    trained = state.best_params
    result = _measure.summary(problem, config, rows, state, clock)
    params = transform.export(trained)
    return Solution(network, problem.coordinates, params, trained, result, rows)


def problem_of(given: Problem | str, config: TrainConfig) -> tuple[Problem, TrainConfig]:
    """The problem, and the configuration with the coefficients to make it again."""
    if isinstance(given, Problem):
        if config.coefficients:
            raise ConfigError(
                "coefficients are for a problem by name; the problem given has its own: make "
                f"{given.name!r} with {', '.join(config.coefficients)}"
            )
        made_with = {name: float(value) for name, value in given.coefficients.items()}
        return given, dataclasses.replace(config, coefficients=made_with)
    try:
        return problems.get(given, **config.coefficients), config
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_fits(problem: Problem, config: TrainConfig) -> None:
    """Raises a `ConfigError` where settings do not fit a problem or the state of JAX."""
    if config.dtype == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ConfigError(
            "dtype is 'float64', but JAX has 64-bit types switched off; call "
            "jax.config.update('jax_enable_x64', True) first"
        )
    try:
        groups = problem.objective_terms(config.objectives)
        jax.eval_shape(lambda: problem.sample(jax.random.key(0), config.points))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for name in config.periods:
        if name not in problem.coordinates:
            raise ConfigError(f"periods: {unknown('coordinate', name, problem.coordinates)}")
    for name in config.loss_weights:
        if name not in groups:
            raise ConfigError(f"loss_weights: {unknown('objective', name, groups)}")


def identity_of(
    spec: str, problem: Problem, config: TrainConfig, model: networks.Network | None
) -> dict[str, Any]:
    """What `config.json` holds: enough to resume the run and to rebuild its network."""
    fields = [] if model is None else [f.name for f in dataclasses.fields(model)]
    ours = [name for name in fields if name not in ("parent", "name", "param_dtype")]
    return {
        "problem": spec,
        "coordinates": problem.coordinates,
        "outputs": problem.outputs,
        "source": problem.source,
        **dataclasses.asdict(config),
        "architecture": {name: getattr(model, name) for name in ours} if model else None,
    }


def _how_to_resume(step: int, config: TrainConfig, folder: RunFolder | None) -> str:
    done = f"stopped at step {step} of {config.total_steps}"
    if folder is None:
        return f"{done}; nothing is saved without output_dir"
    return f"{done}; continue with: python -m experiments.train --output_dir={folder.path} --resume"
