"""One loop for every problem and method: `solve` trains, `load` reads a finished run."""

import dataclasses
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from modsync_jax import citations, methods, networks, problems, reporting
from modsync_jax._names import unknown
from modsync_jax.problems import AnyUnknown, Problem
from modsync_jax.training import (
    _balance,
    _estimate,
    _intervals,
    _measure,
    _memory,
    _optimizers,
    _schedule,
    _signals,
    _step,
    _warm,
)
from modsync_jax.training._config import DEFAULT_METHOD, FORMAT, ConfigError, TrainConfig
from modsync_jax.training._folder import Row, RunError, RunFolder, read_config
from modsync_jax.training._phases import Kept
from modsync_jax.training._progress import Meter
from modsync_jax.training._solution import Solution, load
from modsync_jax.training._state import TrainState, weights_of

AUTO = "auto"  # the method that a diagnosis recommends


class Interrupted(RunError):
    """A run was told to stop (Ctrl-C, SIGTERM); its state is saved."""


class NonFinite(RunError):
    """A loss or an update of a run was not finite; the last good state is saved."""


def solve(
    problem: Problem | str,
    method: str | optax.GradientTransformation = DEFAULT_METHOD,
    *,
    optimizer: str | optax.GradientTransformation = "adam",
    network: nn.Module | str = "mlp",
    init: Solution | str | os.PathLike | None = None,
    output_dir: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = True,
    report: bool = True,
    **settings: Any,
) -> Solution:
    """Trains a network on a problem.

    Args:
      problem: a `Problem`, the name of one, or `file.py:name`.
      method: the way from gradients to one direction. Either a name such as
        `"lra(alpha=0.5)+dcgd"`, see `modsync_jax.methods`, or an optax transformation of stacked
        gradients such as `optax.chain(balancing.norm_balance(2), aggregators.dcgd())`. `"auto"`
        diagnoses the problem first, and trains by the method that `diagnose_problem` recommends.
      optimizer: the optimiser after the method: a name that `TrainConfig.optimizer` allows, or any
        optax optimiser.
      network: the name of a network of `modsync_jax.networks`, with the settings `width`, `depth`,
        ...; or your own Flax module from points `[..., d]` to values `[..., m]`.
      init: a solution, or the folder of a run, whose network is the first one: for continuation in
        a coefficient, or to go on with another problem, method or a wider network.
      output_dir: the folder for configuration, metrics, checkpoints, figures and report; None
        writes nothing.
      resume: continue the run in `output_dir`. It ends with the same bits as a run that was never
        stopped. Larger `steps`, or longer or further phases in `then`, make it longer.
      progress: show progress on standard error.
      report: draw the figures and the report into `output_dir`.
      **settings: fields of `modsync_jax.training.TrainConfig`, such as `steps=20_000`; and
        `preset="best"` for the recipe that reaches the lowest errors here, see docs/accuracy.md.

    Returns:
      The solution with the best parameters: those with the lowest error on validation points, or
      with the lowest unweighted loss if there is no reference or `selection="loss"`.

    Raises:
      ConfigError: on a setting that is not allowed.
      RunError: on a folder that can't be used or written.
      NonFinite: when a loss or an update is not finite; the last good state is saved.
      Interrupted: when the run was told to stop; its state is saved.
    """
    spec = problem if isinstance(problem, str) else problem.name
    own = None if isinstance(network, str) else network
    given = {"method": method, "optimizer": optimizer, "network": network}
    named = {name: value for name, value in given.items() if isinstance(value, str)}
    if method == AUTO:
        named["method"] = method = _chosen(problem, output_dir, resume, own, {**named, **settings})
    config = TrainConfig.from_settings({**named, **settings})
    config = config.with_numbers(_transformations(method=method, optimizer=optimizer))
    problem, config = problem_of(problem, config)
    check_fits(problem, config)
    built = _step.network_of(problem, config)
    identity = identity_of(spec, problem, config, built if own is None else None)
    model = built if own is None else own
    weighed = _balance.weighed(config, _balance.factors(problem, model, config))
    program = _step.build(problem, model, weighed)
    check_memory(program, problem, config)
    identity["init"] = "a solution" if isinstance(init, Solution) else init and str(init)
    if resume and output_dir is None:
        raise RunError("resume needs output_dir, the folder of the run to continue")
    compiled = _step.compiled(program)
    # Signals are collected before the folder exists: an exception in JAX or Orbax may be lost.
    with (
        jax.default_matmul_precision(config.matmul_precision),
        _signals.collected(_say) as stopped,
    ):
        folder = None
        if output_dir is not None:
            folder = _opened(output_dir, identity, config, resume)
        finished = folder is not None and (folder.path / "result.json").exists()
        if not finished:
            start = _start(compiled, model, problem, config, init)
            solution = _train(
                problem, model, compiled, weighed, start, folder, resume, progress, stopped
            )
    if folder is not None:
        if finished:
            solution = load(folder.path, network=own)
        else:
            finish(folder, problem, config, solution, identity)
    if report and folder is not None and not (folder.path / "report.html").exists():
        with folder.writing():
            reporting.write_report(folder.path)
    return solution


def _chosen(
    problem: Problem | str,
    output_dir: str | os.PathLike | None,
    resume: bool,
    network: nn.Module | None,
    settings: Mapping[str, Any],
) -> str:
    """Returns the method that a diagnosis recommends, or that a run by it goes on with."""
    from modsync_jax.training import _diagnose  # which needs this module

    if network is not None or "optimizer" not in settings:
        raise ConfigError(
            "method='auto' needs a network and an optimizer by name; give a method for those of "
            "your own, or call modsync_jax.diagnose"
        )
    if resume and output_dir is not None:
        return read_config(output_dir)["method"]
    method = _diagnose.method_for(problem, output_dir, settings)
    _say(f"the diagnosis recommends {method}")
    return method


def _start(
    program: _step.Program,
    network: nn.Module,
    problem: Problem,
    config: TrainConfig,
    init: Solution | str | os.PathLike | None,
) -> TrainState:
    """Returns the first state of a run."""
    if init is None:
        return program.init(config.seed)
    solution = init if isinstance(init, Solution) else load(init)
    random = weights_of(program.init(config.seed).params)
    masked = _optimizers.indexed(config).kept is not None
    params = _warm.started(random, network, problem, solution, masked=masked)
    return program.init(config.seed, params)


def _transformations(**given: Any) -> dict[str, Any]:
    """Returns the settings for a method and an optimiser that are given as transformations."""
    objects = {name: value for name, value in given.items() if not isinstance(value, str)}
    for name, value in objects.items():
        if not isinstance(value, optax.GradientTransformation):
            raise ConfigError(
                f"{name} is of type {type(value).__name__}; it must be a name or an optax "
                "transformation"
            )
    wrap: dict[str, Any] = {"method": partial(methods.Method, {}), "optimizer": _optimizers.Own}
    return {name: wrap[name](value) for name, value in objects.items()}


def _opened(
    output_dir: str | os.PathLike, identity: Mapping[str, Any], config: TrainConfig, resume: bool
) -> RunFolder:
    """Opens the run's folder. A run that is extended counts as unfinished again."""
    compared_here = ("steps", "then", "phases", "init", "time_limit")
    folder = RunFolder(output_dir, identity, resume=resume, leave_out=compared_here)
    entries = read_config(folder.path)
    began = entries.get("init")
    if began and identity["init"] is None and folder.latest() is None:
        raise RunError(
            f"{folder.path} started from {began}; give init again, because no checkpoint was saved"
        )
    stored = config.with_numbers({name: entries[name] for name in ("steps", "then")})
    same_time = entries.get("time_limit", 0.0) == config.time_limit
    if stored.phases == config.phases and same_time:
        return folder
    done = folder.latest() or 0
    _check_growth(folder, stored, config, done)
    if config.schedule == "cosine" and config.steps > stored.steps:
        _say(
            f"the cosine schedule now ends at step {config.steps}, not {stored.steps}: the rate "
            "rises again, which a run of so many steps from the start does not do"
        )
    for name in ("result.json", "report.html"):  # before the settings change, in case of a kill
        (folder.path / name).unlink(missing_ok=True)
    folder.write("config.json", {"format": FORMAT, **identity, "init": began})
    return folder


def _check_growth(folder: RunFolder, stored: TrainConfig, config: TrainConfig, done: int) -> None:
    """Raises a `RunError` unless the settings extend what is left of the stored run's phases."""
    present = _schedule.phase_of(stored, done)
    for index, before in enumerate(stored.phases):
        after = config.phases[index] if index < len(config.phases) else None
        if after == before:
            continue
        what = f"{folder.path} holds a run of {_written(stored)}"
        if index < present:
            raise RunError(
                f"{what} that has come to phase {present + 1}, after {stored.ends[index]} steps; "
                "only its later phases can be longer: leave the others as they are, or start in "
                "another folder"
            )
        same = after is not None and dataclasses.replace(after, steps=before.steps) == before
        if after is None or not same or after.steps < before.steps:
            raise RunError(
                f"{what}; its phases can be longer, and more can follow, but {_written(config)} "
                "has others: resume it as it is, or start in another folder"
            )


def _written(config: TrainConfig) -> str:
    return f"steps={config.steps}" + (f" then={config.then}" if config.then else "")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def finish(
    folder: RunFolder,
    problem: Problem,
    config: TrainConfig,
    solution: Solution,
    identity: Mapping[str, Any],
) -> None:
    """Writes the files of a finished run; `result.json`, which marks it as finished, comes last."""
    arrays = _measure.on_grid(problem, solution) | _measure.drawn(problem, config)
    folder.write_arrays("solution.npz", arrays)
    folder.write_arrays(
        "layers.npz", _measure.layers(solution.trained, _optimizers.indexed(config))
    )
    used = [phase.name for phase in config.phases]
    kept = [phase.settings for phase in config.phases if isinstance(phase.settings, Kept)]
    cited = ("rad", "r3", "momentum", "sketch")
    used += [name for name in cited for each in kept if getattr(each, name, 0)]
    folder.write_text("references.bib", citations.of_run(identity, used))
    folder.write("result.json", solution.result)


def _train(
    problem: Problem,
    network: nn.Module,
    program: _step.Program,
    config: TrainConfig,
    state: TrainState,
    folder: RunFolder | None,
    resumes: bool,
    progress: bool,
    stopped: Sequence[int],
) -> Solution:
    """Trains until the end, or until a signal is in `stopped`."""
    references = _measure.references(problem, config)
    rows: list[Row] = []
    if folder is not None:
        saved = folder.latest(_say)
        if saved is None and resumes:
            _say(f"{folder.path}: no checkpoint was saved yet; starting at step 0")
        rows = folder.rewind(-1 if saved is None else saved)
        if saved is not None:
            state = folder.restore(saved, _state_in(program, config, saved))
    step = int(state.step)
    clock = _measure.Clock()
    label = f"{problem.name} {config.trained_by}"
    limit = config.time_limit
    shown, estimated = dict[str, float](), 0.0  # an estimate, and when it was made

    def estimate(state: TrainState) -> float | None:
        """The error of the parameters selected so far, without a reference."""
        params = program.export(state.best_params)
        if not _estimate.possible(config, params):
            return None
        found = float(program.estimate(params))
        return found if math.isfinite(found) else None

    with Meter(label, config.total_steps, step, limit=limit, enabled=progress) as meter:
        meter.line(_measure.headline(problem, config))

        def record(state: TrainState) -> TrainState:
            state, values = program.evaluate(state, references)
            row = {name: jax.device_get(values[name]).item() for name in reporting.in_order(values)}
            if folder is not None:
                folder.append(row)
            rows.append(row)
            clock.mark(int(row["step"]))
            meter.row(row | shown, clock.rate)
            return state

        if not rows:
            state = record(state)
        if stopped:
            raise Interrupted(_how_to_resume(step, config, folder))
        for chunk in _schedule.chunks(config, step):
            if chunk.begins and chunk.phase:
                state = program.begin(state, chunk.phase)
            with clock.measure((chunk.phase, chunk.steps), chunk.steps):
                state = program.advance(state, chunk.phase, chunk.steps)
                healthy = bool(state.healthy)
            meter.advance(int(state.step))
            over = 0 < config.time_limit <= clock.elapsed
            if healthy and (chunk.evaluates or over):
                state = record(state)
            if folder is not None and (chunk.saves or over or stopped or not healthy):
                folder.save(int(state.step), state)
            due = chunk.saves and clock.elapsed > _estimate.GROWTH * estimated
            if progress and healthy and due:
                found, estimated = estimate(state), clock.elapsed
                shown = {} if found is None else {"estimate": found}
            if not healthy:
                kept = f"; the last good state is in {folder.path}" if folder is not None else ""
                broke = _measure.what_broke(int(state.step), state.losses, program.objectives)
                where = _measure.where_it_broke(problem, *program.residuals(state, chunk.phase))
                advice = "try a smaller learning_rate, or warmup_steps"
                if where and not state.step:
                    advice = "see whether the equation or a condition can be computed there"
                raise NonFinite(f"{broke}{where}{kept}; {advice}")
            if stopped and chunk.end < config.total_steps:
                raise Interrupted(_how_to_resume(chunk.end, config, folder))
            if over:
                break
    trained = state.best_params
    result = _measure.summary(problem, config, rows, state, clock)
    if (found := estimate(state)) is not None:
        result["estimate"] = {"relative_l2": found, "reliability": _estimate.RELIABILITY}
    params = program.export(trained)
    if intervals := _intervals.of(problem, network, config, params):
        result["intervals"] = {name: list(ends) for name, ends in intervals.items()}
    return Solution(network, problem.coordinates, params, trained, result, rows)


def _state_in(program: _step.Program, config: TrainConfig, step: int) -> TrainState:
    """Returns a state with the arrays of the phase that a run is in after `step` steps."""
    state = program.init(config.seed)
    for phase in range(1, _schedule.phase_of(config, step) + 1):
        state = program.begin(state, phase)
    return state


def problem_of(given: Problem | str, config: TrainConfig) -> tuple[Problem, TrainConfig]:
    """Returns the problem, and the configuration with the coefficients to make it again."""
    if isinstance(given, Problem):
        if config.coefficients:
            raise ConfigError(
                "coefficients are for a problem by name; the problem given has its own: make "
                f"{given.name!r} with {', '.join(config.coefficients)}"
            )
        made_with = {
            name: str(value) if isinstance(value, AnyUnknown) else float(value)
            for name, value in given.coefficients.items()
        }
        return given, config.with_numbers({"coefficients": made_with})
    try:
        return problems.get(given, **config.coefficients), config
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_fits(problem: Problem, config: TrainConfig) -> None:
    """Raises a `ConfigError` if settings do not fit the problem or the state of JAX."""
    if config.widest_dtype == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ConfigError(
            f"{_wants_float64(config)}, but JAX has 64-bit types switched off; call "
            "jax.config.update('jax_enable_x64', True) first"
        )
    try:
        groups = problem.objective_terms(config.objectives)
        jax.eval_shape(lambda: problem.sample(jax.random.key(0), config.points))
        methods.build(config.method, optax.identity(), num_objectives=len(groups))
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from None
    if "relu" in config.activation.split("/"):
        _say(
            "warning: a relu network has no second derivatives; equations that have some can't be "
            "solved with it: take tanh or another smooth activation"
        )
    if config.causal and "t" not in problem.coordinates:
        raise ConfigError(
            f"causal={config.causal:g} needs a coordinate named t; {problem.name} has "
            f"{', '.join(problem.coordinates)}"
        )
    for name in config.periods:
        if name not in problem.coordinates:
            raise ConfigError(f"periods: {unknown('coordinate', name, problem.coordinates)}")
    for name in config.loss_weights:
        if name not in groups:
            raise ConfigError(f"loss_weights: {unknown('objective', name, groups)}")


def _wants_float64(config: TrainConfig) -> str:
    if config.dtype == "float64":
        return "dtype is 'float64'"
    phase = next(p for p in config.phases if p.settings.dtype == "float64")
    return f"the phase {phase.name} runs in float64"


def _at(function: Callable[..., Any], phase: int) -> Callable[[TrainState], Any]:
    return lambda state: function(state, phase)


def check_memory(program: _step.Program, problem: Problem, config: TrainConfig) -> None:
    """Raises a `ConfigError` if a run needs more memory than the device has.

    The size of the state and of one layer's values at the points of an evaluation decides clear
    cases. Otherwise step and evaluation are compiled, and their memory is read from the compiler.
    """
    there = _memory.limit()
    states = [jax.eval_shape(program.init, config.seed)]
    for phase in range(1, len(config.phases)):
        states.append(jax.eval_shape(_at(program.begin, phase), states[-1]))
    points = _measure.like_references(problem, config)
    evaluated = sum(len(at) for at, _ in points.values())
    at_once = max(evaluated, *problem.points.values(), *config.points.values())
    values = at_once * config.width * jnp.dtype(config.widest_dtype).itemsize
    needed = float(max(map(_memory.of_arrays, states)) + values)
    needed += _jacobian_bytes(problem, config, states[-1])
    if 0.02 * there < needed < there:
        lowered = _step.compiled(program)
        calls = [lowered.evaluate.lower(states[-1], points)]  # type: ignore[attr-defined]
        for phase, state in enumerate(states):
            calls.append(lowered.advance.lower(state, phase, 1))  # type: ignore[attr-defined]
        needed = max(_memory.of_program(call.compile()) for call in calls)
    if needed > there:
        raise ConfigError(
            f"this run needs {needed / 2**30:.3g} GiB and the device has {there / 2**30:.3g}; take "
            "a smaller width or depth, fewer points at once (block_points), or lbfgs or "
            "gauss-newton(cg=100) in place of a dense second-order phase"
        )


def _jacobian_bytes(problem: Problem, config: TrainConfig, state: TrainState) -> int:
    """The least bytes of the largest Jacobian of a run: one row for each point of a batch."""
    points = sum({**problem.points, **config.points}.values())
    weights = sum(leaf.size for leaf in jax.tree.leaves(weights_of(state.params)))
    row = weights * jnp.dtype(config.widest_dtype).itemsize
    needed = 0
    for settings in (phase.settings for phase in config.phases):
        if isinstance(settings, Kept) and settings.needs_jacobian:
            needed = max(needed, settings.points * points * row)
    return needed


def identity_of(
    spec: str, problem: Problem, config: TrainConfig, model: networks.Network | None
) -> dict[str, Any]:
    """Returns the content of `config.json`: enough to resume the run and to rebuild its network."""
    fields = [] if model is None else [f.name for f in dataclasses.fields(model)]
    ours = [name for name in fields if name not in ("parent", "name", "param_dtype")]
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        "problem": spec,
        "coordinates": problem.coordinates,
        "outputs": problem.outputs,
        "source": problem.source,
        **settings,
        "method": str(config.method),
        "optimizer": str(config.optimizer),
        "phases": [(phase.name, phase.steps) for phase in config.phases],
        "architecture": {name: getattr(model, name) for name in ours} if model else None,
    }


def _how_to_resume(step: int, config: TrainConfig, folder: RunFolder | None) -> str:
    done = f"stopped at step {step} of {config.total_steps}"
    if folder is None:
        return f"{done}; nothing is saved without output_dir"
    return f"{done}; continue with: python -m experiments.train --output_dir={folder.path} --resume"
