"""One loop for every problem and method: `solve` trains, `load` reads a finished run."""

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from modsync_jax import citations, networks, problems, reporting, transform
from modsync_jax._names import unknown
from modsync_jax.problems import Problem
from modsync_jax.training import _measure, _signals, _step
from modsync_jax.training._config import ConfigError, TrainConfig
from modsync_jax.training._folder import RunError, RunFolder
from modsync_jax.training._progress import Meter
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
    problem = _problem(problem)
    own = None if isinstance(network, str) else network
    kind = {"network": network} if isinstance(network, str) else {}
    config = TrainConfig.from_settings({"method": method, **kind, **settings})
    _check_fits(problem, config)
    built = _network(problem, config)
    identity = {"problem": spec} | _identity(problem, config, built if own is None else None)
    folder = RunFolder(output_dir, identity, resume=resume) if output_dir is not None else None
    if resume and folder is None:
        raise RunError("resume needs output_dir, the folder of the run to continue")
    if folder is not None and (folder.path / "result.json").exists():
        solution = load(folder.path, network=own)
    else:
        with jax.default_matmul_precision(config.matmul_precision):
            solution = _train(problem, own or built, config, folder, progress)
        if folder is not None:
            folder.write_arrays("solution.npz", _measure.on_grid(problem, solution))
            folder.write_text("references.bib", citations.of_run(identity))
            folder.write("result.json", solution.result)
    if report and folder is not None and not (folder.path / "report.html").exists():
        reporting.write_report(folder.path)
    return solution


def _train(
    problem: Problem,
    network: nn.Module,
    config: TrainConfig,
    folder: RunFolder | None,
    progress: bool,
) -> Solution:
    program = _step.build(problem, network, config)
    references = _measure.references(problem, config)
    state, rows = program.init(config.seed), []
    if folder is not None:
        saved = folder.latest()
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
            row = {name: jax.device_get(values[name]).item() for name in _in_order(values)}
            if folder is not None:
                folder.append(row)
            rows.append(row)
            meter.row(row, clock.rate)
            return state

        if not rows:
            state = record(state)
        while step < config.total_steps:
            if step == config.steps:
                state = program.start_polish(state)
            training = step < config.steps
            end = config.steps if training else config.total_steps
            count = min(config.chunk - step % config.chunk, end - step)
            with clock.measure((training, count), count):
                state = (program.advance if training else program.polish)(state, count)
                healthy = bool(state.healthy)
            step = int(state.step)
            meter.advance(step)
            if healthy and (step % config.eval_every == 0 or step == end):
                state = record(state)
            due = step % config.checkpoint_every == 0 or step == end
            if folder is not None and (due or stopped or not healthy):
                folder.save(step, state)
            if not healthy:
                raise NonFinite(_what_broke(state, program.objectives, folder))
            if stopped and step < config.total_steps:
                raise Interrupted(_how_to_resume(step, config, folder))
    trained = state.best_params
    result = _measure.summary(problem, config, rows, state, clock)
    params = transform.export(trained)
    return Solution(network, problem.coordinates, params, trained, result, rows)


def _in_order(names: Iterable[str]) -> list[str]:
    """The columns of `metrics.csv` in the order of their kinds."""
    kinds = ["step", "loss", "grad_norm", "cosine", "test", "validation", "keep", "threshold"]
    return sorted(names, key=lambda name: kinds.index(name.partition("/")[0]))


def _problem(given: Problem | str) -> Problem:
    if isinstance(given, Problem):
        return given
    try:
        return problems.get(given)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _check_fits(problem: Problem, config: TrainConfig) -> None:
    if config.dtype == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ConfigError(
            "dtype is 'float64', but JAX has 64-bit types switched off; call "
            "jax.config.update('jax_enable_x64', True) first"
        )
    try:
        groups = problem.groups(config.objectives)
        jax.eval_shape(lambda: problem.sample(jax.random.key(0), config.points))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for name in config.periods:
        if name not in problem.coordinates:
            raise ConfigError(f"periods: {unknown('coordinate', name, problem.coordinates)}")
    for name in config.loss_weights:
        if name not in groups:
            raise ConfigError(f"loss_weights: {unknown('objective', name, groups)}")


def _network(problem: Problem, config: TrainConfig) -> networks.Network:
    scaled = {"auto": problem.standardize, "yes": True, "no": False}[config.standardize]
    periods = tuple(config.periods.get(name, 0.0) for name in problem.coordinates)
    return networks.NETWORKS[config.network](
        width=config.width,
        depth=config.depth,
        outputs=len(problem.outputs),
        activation=config.activation,
        shift=problem.domain.mean if scaled else (),
        scale=problem.domain.std if scaled else (),
        periods=periods if any(periods) else (),
        fourier_features=config.fourier_features,
        fourier_scale=config.fourier_scale,
        factorized=config.factorized,
        adaptive=config.adaptive,
        param_dtype=jnp.dtype(config.dtype),
    )


def _identity(
    problem: Problem, config: TrainConfig, model: networks.Network | None
) -> dict[str, Any]:
    """What `config.json` holds: enough to resume the run and to rebuild its network."""
    fields = [] if model is None else [f.name for f in dataclasses.fields(model)]
    ours = [name for name in fields if name not in ("parent", "name", "param_dtype")]
    return {
        "coordinates": problem.coordinates,
        "outputs": problem.outputs,
        "source": problem.source,
        **dataclasses.asdict(config),
        "architecture": {name: getattr(model, name) for name in ours} if model else None,
    }


def _what_broke(
    state: _step.TrainState, objectives: tuple[str, ...], folder: RunFolder | None
) -> str:
    losses = zip(objectives, state.losses.tolist(), strict=True)
    broken = [f"loss {name!r} is {loss}" for name, loss in losses if not np.isfinite(loss)]
    what = " and ".join(broken) or "all losses are finite, but the update is not"
    kept = f"; the last good state is in {folder.path}" if folder is not None else ""
    return f"step {int(state.step)}: {what}{kept}; try a smaller learning_rate, or warmup_steps"


def _how_to_resume(step: int, config: TrainConfig, folder: RunFolder | None) -> str:
    done = f"stopped at step {step} of {config.total_steps}"
    if folder is None:
        return f"{done}; nothing is saved without output_dir"
    return f"{done}; continue with: python -m experiments.train --output_dir={folder.path} --resume"
