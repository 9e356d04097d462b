"""Question: what is left of the conflict of losses once the metric is right?

Each part is a set of runs, on six problems, with two objectives and with each condition apart:

- `cosines`: cosines of the objectives' gradients on fresh points while a network trains by Adam,
  SOAP or SSBroyden: in the Euclidean metric, in the optimiser's own preconditioner, and in the
  Gauss-Newton metric P = JᵀJ + λI for four λ, relative to the largest diagonal entry of JᵀJ.
- `race`: Gauss-Newton steps -P⁻¹ Σ w_k g_k, with the weights of a method for the Gramian
  g_iᵀ P⁻¹ g_j, from the random start and after 2,000 Adam steps by the same method. The sum has
  all weights 1, and is the Levenberg-Marquardt method.
- `starts`: the recipe after 2,000 Adam steps by a method, and after none, in the same time.
- `weights`: the recipe, with loss weights by the traces of tangent kernels, and with conditions
  that count 1, 10 or 100 times instead.

In the other parts objectives are weighed by traces as in the recipe.

Nothing but the held-out, unweighted loss selects parameters.

Usage: python -m benchmarks.metric [--parts=a,b] [--problems=a,b] [--minutes=1] [--seeds=0,1,2]
       [--cores=1]
Finished runs are in benchmarks/results/metric.json and are not run again.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

_STARTED = time.time()  # before anything slow is imported

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax import Array  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

import modsync_jax  # noqa: E402
from modsync_jax import aggregators, optimizers, problems, reporting  # noqa: E402
from modsync_jax.networks import Network  # noqa: E402
from modsync_jax.problems import Problem  # noqa: E402
from modsync_jax.training import (  # noqa: E402
    PRESETS,
    Solution,
    TrainConfig,
    _balance,
    _losses,
    _measure,
    _phases,
    _step,
)

from . import machine, rows  # noqa: E402

PyTree = Any
RESULTS = Path(__file__).parent / "results" / "metric.json"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
_AFTER = ", after Adam"
PROBLEMS = ("burgers", "klein_gordon2d", "convection", "wave", "reaction", "helmholtz2d")
GROUPINGS = ("grouped", "each")
WEIGHTS: dict[str, Callable[[Array], Array]] = {
    "sum": aggregators.sum_weights,
    "dcgd": aggregators.dcgd_weights,
    "config": aggregators.config_weights,
    "upgrad": aggregators.upgrad_weights,
}
DAMPINGS = (1e-3, 1e-6, 1e-9, 1e-12)
_STARTS = ("none", *WEIGHTS, "modsync+dcgd")
_STEPS = 2_000  # of a first phase
_NETWORK: dict[str, Any] = {"width": 16, "depth": 3}
_BATCHES = 8  # fresh batches for a mean cosine
_TRAINERS = ("adam", "soap", "ssbroyden")
_MARKS = (0, 10, 100, 1_000, 4_000)  # steps after which cosines are measured
_REDRAW, _CHUNK = 10, 5  # steps of Gauss-Newton
_KEPT = 40  # rows of a run's history
_LEFT = 1_000  # iterations after a first phase from which errors at equal iterations are compared


def main() -> None:
    """Runs what is missing, each run in a process of its own."""
    runs, cores = rows.asked(__doc__, _one, minutes=1.0, seeds=3, part=PARTS, problem=PROBLEMS)
    wanted = (
        {"part": run["part"], "problem": run["problem"], "seed": run["seed"], **settings}
        for run in runs
        for settings in PARTS[run["part"]][1](run["minutes"])
    )
    rows.fill("benchmarks.metric", RESULTS, wanted, cores, _line)
    pictures()


def pictures() -> None:
    """Draws the figures of the finished runs."""
    done = rows.load(RESULTS)
    reporting.save_figure(partial(draw_cosines, done), IMAGES / "metric_cosines", pdf=False)
    raced = [row for row in done if row["part"] == "race" and row["objectives"] == "grouped"]
    names = [f"{name}{after}" for after in ("", _AFTER) for name in WEIGHTS]
    reporting.save_figure(
        partial(rows.draw, raced, column, names), IMAGES / "metric_race", pdf=False
    )


def column(row: rows.Row) -> str:
    """What a run is called beside the others of its part."""
    if row["part"] == "race":
        return row["method"] + (_AFTER if row["start"] != "none" else "")
    if row["part"] == "starts":
        return row["start"]
    return f"{row['weight']:g}" if row["weight"] else "by traces"


def title(name: str) -> str:
    """How readers know the metric of a cosine."""
    fixed = {"euclidean": "Euclidean", "optimiser": "its preconditioner"}
    return fixed.get(name) or f"P, λ = {name.removeprefix('P ')}"


def draw_cosines(found: list[rows.Row]) -> Figure:
    """Draws cosines of two objectives against steps, means over problems and seeds."""
    figure = Figure(figsize=(11, 3.2))
    panels = figure.subplots(1, len(_TRAINERS), sharey=True)
    chosen = [row for row in found if row["part"] == "cosines" and row["objectives"] == "grouped"]
    names = list(dict.fromkeys(name for row in chosen for name in row["marks"]["0"]))
    for axis, trainer in zip(panels, _TRAINERS, strict=True):
        runs = [row["marks"] for row in chosen if row["trainer"] == trainer]
        for color, name in enumerate(names):
            if not runs or name not in runs[0]["0"]:
                continue
            means = [np.mean([run[str(mark)][name] for run in runs]) for mark in _MARKS]
            axis.plot(range(len(_MARKS)), means, "o-", color=f"C{color}", label=title(name))
        axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        axis.set_title(f"trained by {_phases.TITLES[trainer]}")
        axis.set_xticks(range(len(_MARKS)), [f"{mark:,}" for mark in _MARKS])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    figure.supxlabel("steps")
    figure.supylabel("cosine of the two gradients")
    return figure


def _one(part: str, **run: Any) -> dict[str, Any]:
    jax.config.update("jax_enable_x64", True)
    return PARTS[part][0](**run) | {"machine": machine.describe()}


def over_random_start(found: list[rows.Row], start: str) -> list[float]:
    """Ratios of errors to those of the random start after as many iterations of the recipe.

    Args:
      found: rows of `starts`.
      start: the start whose rows count, where at least `_LEFT` iterations followed it.
    """
    ratios = []
    for row in found:
        left = row["steps"] - _STEPS
        if row["start"] != start or left < _LEFT:
            continue
        same = ("problem", "objectives", "seed", "cores")
        for other in found:
            if other["start"] == "none" and all(other.get(name) == row.get(name) for name in same):
                last = other["steps"] / PRESETS["best"]["eval_every"]  # evaluations after the first
                kept = np.round(np.linspace(0, last, len(other["history"])))
                before = kept * PRESETS["best"]["eval_every"] <= left
                score = np.where(np.isfinite(other["scores"]), other["scores"], np.inf)
                selected = np.argmin(np.where(before, score, np.inf))
                ratios.append(row["errors"]["selected"] / other["history"][selected])
    return ratios


def _line(row: rows.Row) -> str:
    long = ("seconds", "scores", "history", "marks", "pairs", "machine", "steps")
    return " ".join(f"{name}={value}" for name, value in row.items() if name not in long)


# --------------------------------------------------------------------------- cosines


def cosines(problem: str, seed: int, objectives: str, trainer: str) -> dict[str, Any]:
    """Cosines in several metrics at marks of a training, means over fresh batches."""
    found, network, config = _task(problem, seed, objectives)
    losses = _losses.build(found, network, config, lambda points: points)
    key = jax.random.key(seed)
    sample = partial(_drawn, losses)
    params = _step.build(found, network, config).init(seed).params
    tx = {
        "adam": lambda: optax.adam(1e-3),
        "soap": lambda: optimizers.soap(3e-3),
        "ssbroyden": optimizers.ssbroyden,
    }[trainer]()

    def total(params: PyTree, batch: Any) -> Array:
        return jnp.stack([loss(params, batch) for loss in losses.trained.values()]).sum()

    def first_order(carry: Any, step: Array) -> Any:
        params, state = carry
        batch = sample(jax.random.fold_in(key, step), 1)
        updates, state = tx.update(jax.grad(total)(params, batch), state, params)
        return (optax.apply_updates(params, updates), state), None

    def second_order(carry: Any, step: Array) -> Any:
        params, state = carry
        batch = sample(jax.random.fold_in(key, step // 100 * 100), 2)
        value, grad = jax.value_and_grad(total)(params, batch)
        of_batch = partial(total, batch=batch)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=of_batch)
        return (optax.apply_updates(params, updates), state), None

    step = second_order if trainer == "ssbroyden" else first_order
    advance = jax.jit(lambda carry, steps: jax.lax.scan(step, carry, steps)[0])
    fresh = jax.jit(partial(_cosines, losses, sample, trainer))
    carry, marks = (params, tx.init(params)), {}
    for start, end in itertools.pairwise((0, *_MARKS)):
        carry = advance(carry, jnp.arange(start, end))
        values = fresh(*carry, jax.random.fold_in(jax.random.key(seed + 1_000), end))
        marks[end] = {name: rows.digits(value.tolist()) for name, value in values.items()}
    names = losses.names
    pairs = [f"{a}~{b}" for a, b in itertools.combinations(names, 2)]
    return {"pairs": pairs, "marks": marks}


def _cosines(
    losses: _losses.Losses, sample: Any, trainer: str, params: PyTree, state: Any, key: Array
) -> dict[str, Array]:
    """Cosines [P] of the pairs of objectives in each metric, means over fresh batches."""

    def gradients_of(key: Array) -> Array:
        batch = sample(key, 1)
        grads = [jax.grad(losses.trained[name])(params, batch) for name in losses.names]
        return jnp.stack([ravel_pytree(grad)[0] for grad in grads])

    keys = jax.random.split(key, _BATCHES + 1)
    stacks = jax.lax.map(gradients_of, keys[1:])
    _, rows_of = losses.jacobian(params, sample(keys[0], 2))
    product = rows_of.T @ rows_of
    metrics: dict[str, Callable[[Array], Array]] = {"euclidean": lambda stack: stack}
    if trainer != "ssbroyden":
        _, unravel = ravel_pytree(params)
        own = optimizers.metric(state, params)
        assert own is not None
        metrics["optimiser"] = lambda s: jax.vmap(lambda g: ravel_pytree(g)[0])(
            own(jax.vmap(unravel)(s))
        )
    for damping in DAMPINGS:
        damped = product + damping * jnp.diag(product).max() * jnp.eye(len(product))
        factor = jnp.linalg.cholesky(damped)
        metrics[f"P {damping:g}"] = partial(_solved, factor)

    def cosine(metric: Callable[[Array], Array], stack: Array) -> Array:
        gramian = stack @ metric(stack).T
        norms = jnp.sqrt(jnp.diag(gramian))
        return (gramian / jnp.outer(norms, norms))[jnp.triu_indices(len(gramian), 1)]

    return {
        name: jax.lax.map(partial(cosine, metric), stacks).mean(0)
        for name, metric in metrics.items()
    }


def _solved(factor: Array, stack: Array) -> Array:
    return jax.scipy.linalg.cho_solve((factor, True), stack.T).T


# --------------------------------------------------------------------------- race


def race(
    problem: str, seed: int, objectives: str, method: str, start: str, minutes: float
) -> dict[str, Any]:
    """Gauss-Newton steps whose objectives are weighted by a method in the metric."""
    found, network, config = _task(problem, seed, objectives)
    program = _step.build(found, network, config)
    losses = _losses.build(found, network, config, lambda points: points)
    if start == "none":
        params = program.init(seed).params
    else:
        params = _first_phase(problem, seed, objectives, start).trained
    sample = partial(_drawn, losses)
    key, held_out = jax.random.split(jax.random.key(seed + 1))
    points, true = _measure.references(found, config)["test"]
    groups = found.objective_terms(objectives)
    fixed = sample(held_out, 4)
    owners = _owners(losses, params, sample(key, 2), groups)

    @jax.jit
    def advance(carry: Any, batch: Any) -> Any:
        step = partial(damped_step, losses, WEIGHTS[method], owners, batch)
        return jax.lax.fori_loop(0, _CHUNK, lambda _, carry: step(*carry), carry)

    @jax.jit
    def measure(params: PyTree) -> tuple[Array, Array]:
        u, unknowns = losses.fields(params)
        error = found.observed(u, unknowns, points) - true
        score = jnp.stack([loss(params, fixed) for loss in losses.terms.values()]).sum()
        return score, jnp.linalg.norm(error) / jnp.linalg.norm(true)

    carry, history = (params, jnp.zeros(()), jnp.full((), 2.0)), []
    for count in itertools.count():
        score, error = map(float, measure(carry[0]))
        history.append((round(time.time() - _STARTED, 2), score, error))
        if history[-1][0] >= 60 * minutes:
            break
        drawn = jax.random.fold_in(key, count * _CHUNK // _REDRAW)
        carry = jax.block_until_ready(advance(carry, sample(drawn, 2)))
    seconds, scores, errors = zip(*history, strict=True)
    steps = (len(history) - 1) * _CHUNK
    return {"steps": steps, **rows.history(seconds, errors, scores, _KEPT)}


def damped_step(
    losses: _losses.Losses,
    weights_fn: Callable[[Array], Array],
    owners: Array,
    batch: Any,
    params: PyTree,
    damping: Array,
    growth: Array,
) -> tuple[PyTree, Array, Array]:
    """One trial of -P⁻¹ Σ w_k g_k; damping by Nielsen's rule, as `optimizers.gauss_newton` has it.

    Args:
      losses: what can be asked of the losses.
      weights_fn: from the Gramian [K, K] to weights [K].
      owners: each residual's objective, [K, M] of 0 and 1.
      batch: the points.
      params: the parameters.
      damping: λ, or 0 before the first step.
      growth: the factor of λ when a step fails.
    """
    x, unravel = ravel_pytree(params)
    r, jacobian = losses.jacobian(params, batch)
    product = jacobian.T @ jacobian
    damping = jnp.where(damping > 0, damping, 1e-3 * jnp.diag(product).max())
    factor = jnp.linalg.cholesky(product + damping * jnp.eye(len(product)))
    gradients = (owners * r) @ jacobian  # half of each
    moved = _solved(factor, gradients)
    step = -weights_fn(gradients @ moved.T) @ moved
    after = losses.residuals(unravel(x + step), batch)
    value, new, linear = r @ r, after @ after, r + jacobian @ step
    gain = (value - new) / (value - linear @ linear)
    good = (gain > 1e-4) & (new < value)  # False with NaN: a failed factorisation
    shrink = jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3)
    x = jnp.where(good, x + step, x)
    damping = damping * jnp.where(good, shrink, growth)
    growth = jnp.where(good, 2.0, jnp.minimum(2 * growth, 2.0**10))
    return unravel(x), damping, growth


def _owners(
    losses: _losses.Losses, params: PyTree, batch: Any, groups: dict[str, tuple[str, ...]]
) -> Array:
    """Which objective each residual belongs to, [K, M]; terms stand in the order of their names."""

    def size(term: str) -> int:
        return jax.eval_shape(losses.residuals, params, {term: batch[term]}).size

    sizes = {term: size(term) for term in sorted(batch)}
    ones = [
        jnp.concatenate([jnp.full(n, float(term in groups[name])) for term, n in sizes.items()])
        for name in losses.names
    ]
    return jnp.stack(ones)


# --------------------------------------------------------------------------- recipes


def starts(problem: str, seed: int, objectives: str, start: str, minutes: float) -> dict[str, Any]:
    """The recipe after Adam steps by a method, or after none."""
    first: dict[str, Any] = {"objectives": objectives}
    if start != "none":
        first |= {**PRESETS["modsync-paper"], "method": start}
        first |= {"steps": _STEPS, "schedule": "cosine"}
    return _recipe(problem, seed, minutes, **first)


def weights(problem: str, seed: int, weight: float, minutes: float) -> dict[str, Any]:
    """The recipe, or with a weight of the conditions that isn't 0 in the place of its balance."""
    by_hand = {"balance": 0.0, "loss_weights": {"residual": 1 / weight}} if weight else {}
    return _recipe(problem, seed, minutes, **by_hand)


def _recipe(problem: str, seed: int, minutes: float, **changes: Any) -> dict[str, Any]:
    limit = 60 * minutes - (time.time() - _STARTED)
    settings: dict[str, Any] = {"preset": "best", "time_limit": limit, "progress": False}
    solution = modsync_jax.solve(problem, seed=seed, **settings | changes)
    return rows.of_solution(solution, _STARTED, _KEPT)


def _first_phase(problem: str, seed: int, objectives: str, method: str) -> Solution:
    return modsync_jax.solve(
        problem,
        method,
        seed=seed,
        objectives=objectives,
        balance=PRESETS["best"]["balance"],
        **_shares(problem, objectives),
        steps=_STEPS,
        schedule="cosine",
        dtype="float64",
        selection="loss",
        progress=False,
        **_NETWORK,
    )


def _task(problem: str, seed: int, objectives: str) -> tuple[Problem, Network, TrainConfig]:
    """A problem, a network, and settings with loss weights as the recipe has them."""
    settings = {"objectives": objectives, **_NETWORK, **_shares(problem, objectives)}
    balance = PRESETS["best"]["balance"]
    config = TrainConfig(dtype="float64", seed=seed, balance=balance, **settings)
    found = problems.get(problem)
    network = _step.network_of(found, config)
    return found, network, _balance.weighed(config, _balance.factors(found, network, config))


def _shares(problem: str, objectives: str) -> dict[str, Any]:
    """Loss weights under which conditions apart count as much together as grouped ones."""
    names = problems.get(problem).conditions
    share = 1 / len(names)
    return {"loss_weights": dict.fromkeys(names, share)} if objectives == "each" else {}


def _drawn(losses: _losses.Losses, key: Array, times: int) -> Any:
    return losses.sample(key, times, jnp.float64)


# --------------------------------------------------------------------------- parts


def _of_cosines(minutes: float) -> Iterator[dict[str, Any]]:
    for objectives, trainer in itertools.product(GROUPINGS, _TRAINERS):
        yield {"objectives": objectives, "trainer": trainer}


def _of_race(minutes: float) -> Iterator[dict[str, Any]]:
    for objectives, method in itertools.product(GROUPINGS, WEIGHTS):
        for start in ("none", method):
            yield {"objectives": objectives, "method": method, "start": start, "minutes": minutes}


def _of_starts(minutes: float) -> Iterator[dict[str, Any]]:
    for objectives, start in itertools.product(GROUPINGS, _STARTS):
        yield {"objectives": objectives, "start": start, "minutes": minutes}


def _of_weights(minutes: float) -> Iterator[dict[str, Any]]:
    for weight in (0.0, 1.0, 10.0, 100.0):
        yield {"weight": weight, "minutes": minutes}


PARTS: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[float], Iterator[Any]]]] = {
    "cosines": (cosines, _of_cosines),
    "race": (race, _of_race),
    "starts": (starts, _of_starts),
    "weights": (weights, _of_weights),
}

if __name__ == "__main__":
    main()
