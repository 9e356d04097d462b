"""Question: what does the interaction ratio cost, and what does it depend on?

Burgers' equation, 1,280 samples of the residual, a tanh MLP of 5×128: the products of the gradients
of single samples with the gradient of the conditions. `diagnostics.interactions` takes them from
one directional derivative of all samples' losses. The other ways compute the gradient of every
sample, by `vmap` or by `lax.map`. Every round runs each way once, in random order.

The share of products above ε is then taken for several ε, in single and in double precision, at a
random network and after 1,000 steps of Adam; beside it the share of cosines above 0.01.

Usage: python -m benchmarks.interaction [--rounds=31]
The numbers are written to benchmarks/results/interaction_<platform>.json.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before any array is made

import jax.numpy as jnp  # noqa: E402
from jax import Array  # noqa: E402

from benchmarks import machine  # noqa: E402
from benchmarks.step_time import interval  # noqa: E402
from modsync_jax import diagnostics, problems  # noqa: E402
from modsync_jax.training import TrainConfig, _losses, _step  # noqa: E402

PyTree = Any
RESULTS = Path(__file__).parent / "results"
EPSILONS = (1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4)
COSINE = 0.01
SAMPLES, STEPS = 1280, 1_000


def case(dtype: str) -> tuple[_step.Program, _losses.Losses, Callable[..., Array], Any]:
    """The program of a run, its losses, the losses of single samples, and points."""
    problem = problems.get("burgers")
    config = TrainConfig("sum", width=128, depth=5, points={"residual": SAMPLES}, dtype=dtype)
    network = _step.network_of(problem, config)
    losses = _losses.build(problem, network, config, lambda points: points)
    batch = losses.sample(jax.random.key(0), 1, jnp.dtype(dtype))

    def samples(params: PyTree, points: Array) -> Array:
        residuals = problem.term("residual")(*losses.fields(params), points)
        return sum(jnp.square(r) for r in residuals.values())  # type: ignore[return-value]

    return _step.compiled(_step.build(problem, network, config)), losses, samples, batch


def ways(samples: Callable[..., Array], points: Array) -> dict[str, Callable[..., Array]]:
    """Each way from parameters and a direction to the products, `[N]`."""

    def product(params: PyTree, direction: PyTree, point: Array) -> Array:
        grads = jax.grad(lambda p: samples(p, point[None])[0])(params)
        inner = jax.tree.map(lambda g, d: jnp.sum(g * d), grads, direction)
        return sum(jax.tree.leaves(inner))  # type: ignore[return-value]

    def one_derivative(params: PyTree, direction: PyTree) -> Array:
        return diagnostics.interactions(lambda p: samples(p, points), params, direction)

    def by_vmap(params: PyTree, direction: PyTree) -> Array:
        return jax.vmap(partial(product, params, direction))(points)

    def by_map(params: PyTree, direction: PyTree) -> Array:
        return jax.lax.map(partial(product, params, direction), points)

    return {
        "one directional derivative": jax.jit(one_derivative),
        "vmap of gradients": jax.jit(by_vmap),
        "lax.map of gradients": jax.jit(by_map),
    }


def timed(rounds: int) -> list[dict[str, Any]]:
    """The time of each way, and how far its products are from those of the others."""
    program, losses, samples, batch = case("float32")
    params = program.init(0).params
    direction = jax.grad(losses.trained["boundary"])(params, batch)
    calls = ways(samples, batch["residual"])
    found = {name: call(params, direction) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            start = time.perf_counter()
            jax.block_until_ready(calls[name](params, direction))
            seconds[name].append(time.perf_counter() - start)
    first = next(iter(calls))
    rows = []
    for name in calls:
        ratios = [b / a for a, b in zip(seconds[first], seconds[name], strict=True)]
        apart = jnp.abs(found[name] - found[first]).max() / jnp.abs(found[first]).max()
        rows.append(
            {
                "part": "ways",
                "way": name,
                "milliseconds": 1e3 * interval(seconds[name])[0],
                "over_first": interval(ratios),
                "largest_difference": float(apart),
            }
        )
    return rows


def shares(dtype: str) -> list[dict[str, Any]]:
    """The share of products above each ε, and of cosines."""
    program, losses, samples, batch = case(dtype)
    points, rows = batch["residual"], []
    state = program.init(0)
    for steps in (0, STEPS):
        state = program.advance(state, 0, steps) if steps else state
        params = state.params
        direction = jax.grad(losses.trained["boundary"])(params, batch)
        products = jnp.abs(ways(samples, points)["one directional derivative"](params, direction))
        cosines = diagnostics.interaction_cosines(samples, points, params, direction)
        above = {f"{epsilon:g}": float(jnp.mean(products > epsilon)) for epsilon in EPSILONS}
        cosine = float(jnp.mean(jnp.abs(cosines) > COSINE))
        row = {"dtype": dtype, "steps": steps, "above": above, "cosine_above": cosine}
        rows.append({"part": "shares", **row})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    with jax.default_matmul_precision("highest"):
        found = [*timed(rounds), *shares("float32"), *shares("float64")]
    for row in found:
        print(json.dumps(row))
    path = RESULTS / f"interaction_{jax.default_backend()}.json"
    content = {"machine": machine.describe(), "rows": found}
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
