"""Question: how does a step's cost grow when the same points are split among more objectives?

Burgers' equation at 5×128 (or `--size`), 1260 residual and 126 initial points a step, float32. With
K objectives, the initial condition is one, and the residual points are split evenly into K - 1
others. This is the most expensive way to add objectives, because every product of the network gets
smaller by K - 1. Times are divided by those of the same method at K = 2, in rounds that run every
case once. Adam on the summed loss of the same objectives runs for comparison.

Usage: python -m benchmarks.objectives [--size=5x128] [--counts=2,4,8] [--rounds=31]
The table is printed and written to benchmarks/results/objectives_<platform>.json.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import machine
from benchmarks.step_time import NU, Run, interval, scanned, seconds_per_step
from modsync_jax import loss_indexed, methods, value_and_objective_grads
from modsync_jax.calculus import Field, partials
from modsync_jax.networks import MLP

RESULTS = Path(__file__).parent / "results"
RESIDUAL, INITIAL = 1260, 126
METHODS = ("sum", "dcgd", "config", "cagrad", "modsync+dcgd")

PyTree = Any


def objectives(network: MLP, count: int) -> dict[str, Callable[[PyTree, dict], jax.Array]]:
    """The initial condition, and the residual on each part of the points."""
    apply: Callable[[PyTree, jax.Array], Any] = network.apply

    def field(params: PyTree) -> Field:
        return Field(partial(apply, params), ("t", "x"), takes_jets=True)

    def residual(params: PyTree, points: jax.Array) -> jax.Array:
        def at(x: jax.Array) -> jax.Array:
            u, u_x, linear = partials(field(params), x, "", "x", {"t": 1.0, "xx": -NU})
            return linear + u * u_x

        return jnp.mean(jax.vmap(at)(points) ** 2)

    def on_part(k: int, params: PyTree, batch: dict) -> jax.Array:
        return residual(params, batch["residual"][k])

    def initial(params: PyTree, batch: dict) -> jax.Array:
        x = batch["initial"]
        values = jax.vmap(field(params))(jnp.stack([jnp.zeros_like(x), x], 1))
        return jnp.mean((values[:, 0] + jnp.sin(jnp.pi * x)) ** 2)

    made: dict[str, Callable[[PyTree, dict], jax.Array]] = {"initial": initial}
    for k in range(count - 1):
        made[f"residual{k}"] = partial(on_part, k)
    return made


def training(method: str, depth: int, width: int, count: int) -> Run:
    """A user's own loop around our transforms, which draws points in the scan."""
    network = MLP(depth=depth, width=width)
    params: PyTree = network.init(jax.random.key(0), jnp.zeros(2))
    given: Any = objectives(network, count)
    kind = methods.indexed(method)
    given = loss_indexed.objectives(given, kind)
    params = loss_indexed.begin(params, kind, count)
    tx = methods.build(method, optax.adam(1e-3), num_objectives=count)
    losses_and_grads = value_and_objective_grads(given)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        params, state, key = carry
        key, draw = jax.random.split(key)
        t, x = jax.random.uniform(draw, (2, RESIDUAL))
        points = jnp.stack([t, 2 * x - 1], 1).reshape(count - 1, -1, 2)
        start = jax.random.uniform(jax.random.fold_in(draw, 1), (INITIAL,), minval=-1.0)
        losses, grads = losses_and_grads(params, {"residual": points, "initial": start})
        updates, state = tx.update(grads, state, params, losses=losses, key=draw)
        return (optax.apply_updates(params, updates), state, key), None

    return scanned(step, (params, jax.tree.map(jnp.copy, tx.init(params)), jax.random.key(1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", default="5x128")
    parser.add_argument("--counts", default="2,4,8", help="K; K - 1 must divide 1260")
    parser.add_argument("--rounds", type=int, default=31)
    args = parser.parse_args()

    depth, width = map(int, args.size.split("x"))
    counts = [int(count) for count in args.counts.split(",")]
    rows = []
    print(f"{'method':16}{'K':>3}{'ms':>9}{'over K=' + str(counts[0]):>22}")
    for method in METHODS:
        runs = {str(count): training(method, depth, width, count) for count in counts}
        with jax.default_matmul_precision("highest"):
            times = seconds_per_step(runs, args.rounds)
        fewest = times[str(counts[0])]
        for count in counts:
            own = times[str(count)]
            ratio = interval([t / f for t, f in zip(own, fewest, strict=True)])
            ms = 1e3 * statistics.median(own)
            rows.append({"method": method, "objectives": count, "milliseconds": ms})
            rows[-1] |= {"over_fewest": ratio[0], "over_fewest_95": ratio[1:]}
            low, high = ratio[1:]
            print(
                f"{method:16}{count:3}{ms:9.2f}{ratio[0]:9.3f} [{low:.3f}, {high:.3f}]", flush=True
            )
    path = RESULTS / f"objectives_{jax.default_backend()}.json"
    content = {"machine": machine.describe(), "size": args.size, "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
