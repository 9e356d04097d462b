"""Question: what does a conflict-averse step cost in a user's own class?

The class has the form that most JAX PINNs have: `u_net` and `r_net` at a point, and one function
`losses(params, batch)` that returns a dictionary. Its own step takes the gradient of the summed
losses and Adam. The other steps are the same with DCGD, five lines changed as in docs/drop_in.md,
once for each way to compute stacked gradients.

Burgers' equation, 1280 residual and 128 initial points, a tanh network of 5×128 (or `--size`),
float32. With K objectives the initial condition is one, and the residual points are split evenly
into K - 1: objectives have points of their own. In the other case, `shared`, the network has K
outputs, and the K losses are their residuals at the same points: they share a forward pass. Steps
are timed in interleaved pairs, and ratios are taken within a round.

Usage: python -m benchmarks.drop_in [--size=5x128] [--counts=2,4,8] [--rounds=31] [--beside=NOTE]
The table is printed and written to benchmarks/results/drop_in_<platform>.json. `--beside` says
what else ran on the machine.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from benchmarks import machine
from benchmarks.step_time import NU, Run, interval, scanned, seconds_per_step
from modsync_jax import aggregators, value_and_objective_grads

RESULTS = Path(__file__).parent / "results"
RESIDUAL, INITIAL = 1280, 128

Params = list[tuple[Array, Array]]
Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Burgers:
    """A PINN as a user would write it, knowing nothing of this package.

    Attributes:
      sizes: units of the layers, inputs and outputs included.
      parts: how many losses the residual points are split into.
    """

    sizes: tuple[int, ...]
    parts: int = 1

    def init(self, key: Array) -> Params:
        """Kernels and biases."""
        keys = jax.random.split(key, len(self.sizes))
        glorot = jax.nn.initializers.glorot_normal()
        pairs = zip(keys, itertools.pairwise(self.sizes), strict=False)
        return [(glorot(key, pair), jnp.zeros(pair[1])) for key, pair in pairs]

    def u_net(self, params: Params, t: Array, x: Array) -> Array:
        """The network's outputs at a point, [outputs]."""
        h = jnp.stack([t, x])
        for w, b in params[:-1]:
            h = jnp.tanh(h @ w + b)
        w, b = params[-1]
        return h @ w + b

    def r_net(self, params: Params, t: Array, x: Array) -> Array:
        """The residuals at a point, [outputs]."""

        def u_x(x: Array) -> tuple[Array, Array]:
            return jax.jvp(lambda x: self.u_net(params, t, x), (x,), (jnp.ones_like(x),))

        (u, slope), (_, curvature) = jax.jvp(u_x, (x,), (jnp.ones_like(x),))
        _, u_t = jax.jvp(lambda t: self.u_net(params, t, x), (t,), (jnp.ones_like(t),))
        return u_t + u * slope - NU * curvature

    def losses(self, params: Params, batch: Batch) -> dict[str, Array]:
        """The initial condition, and the residual on each part of the points."""
        x = batch["initial"]
        u = jax.vmap(self.u_net, (None, 0, 0))(params, jnp.zeros_like(x), x)[:, 0]
        losses = {"ics": jnp.mean((u + jnp.sin(jnp.pi * x)) ** 2)}
        for k, part in enumerate(jnp.split(batch["residual"], self.parts)):
            r = jax.vmap(self.r_net, (None, 0, 0))(params, part[:, 0], part[:, 1])
            losses[f"res{k}"] = jnp.mean(r**2)
        return losses


class BurgersSystem(Burgers):
    """The same with a loss for each output of the network, all at the same points."""

    def losses(self, params: Params, batch: Batch) -> dict[str, Array]:
        """The residual of each output."""
        points = batch["residual"]
        r = jax.vmap(self.r_net, (None, 0, 0))(params, points[:, 0], points[:, 1])
        return {f"res{k}": jnp.mean(r[:, k] ** 2) for k in range(self.sizes[-1])}


def draw(key: Array, parts: int) -> Batch:
    """Points of a step; their number is the largest multiple of `parts` up to 1280."""
    t, x = jax.random.uniform(key, (2, RESIDUAL - RESIDUAL % parts))
    initial = jax.random.uniform(jax.random.fold_in(key, 1), (INITIAL,), minval=-1.0)
    return {"residual": jnp.stack([t, 2 * x - 1], 1), "initial": initial}


def training(
    model: Burgers,
    tx: optax.GradientTransformation,
    grads_of: Callable[[Params, Batch], tuple[Any, Any]],
) -> Run:
    """A loop around a step: `grads_of` returns losses and what `tx` takes."""

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        params, state, key = carry
        key, now = jax.random.split(key)
        _, grads = grads_of(params, draw(now, model.parts))
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, key), None

    params = model.init(jax.random.key(0))
    return scanned(step, (params, jax.tree.map(jnp.copy, tx.init(params)), jax.random.key(1)))


def steps(model: Burgers) -> dict[str, Run]:
    """The class's own step, and ours."""

    def total(params: Params, batch: Batch) -> Array:
        return jnp.sum(jnp.stack(list(model.losses(params, batch).values())))

    dcgd = optax.chain(aggregators.dcgd(), optax.adam(1e-3))
    ours = partial(value_and_objective_grads, model.losses)
    return {
        "own": training(model, optax.adam(1e-3), jax.value_and_grad(total)),
        "split": training(model, dcgd, ours()),
        "vmap": training(model, dcgd, ours(strategy="vmap")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", default="5x128")
    parser.add_argument("--counts", default="2,4,8", help="K, the numbers of objectives")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--beside", default="nothing", help="what else ran on the machine")
    args = parser.parse_args()
    depth, width = map(int, args.size.split("x"))
    rows = []
    print(f"{'points':8}{'K':>3}{'step':>7}{'ms':>9}{'over own':>22}")
    for case, count in itertools.product(("own", "shared"), map(int, args.counts.split(","))):
        hidden = (width,) * depth
        model = (
            Burgers((2, *hidden, 1), count - 1)
            if case == "own"
            else BurgersSystem((2, *hidden, count))
        )
        with jax.default_matmul_precision("highest"):
            times = seconds_per_step(steps(model), args.rounds)
        for name, seconds in times.items():
            ratio = interval([t / own for t, own in zip(seconds, times["own"], strict=True)])
            row = {"points": case, "objectives": count, "step": name}
            row |= {"milliseconds": 1e3 * statistics.median(seconds)}
            rows.append(row | {"over_own": ratio[0], "over_own_95": ratio[1:]})
            low, high = ratio[1:]
            line = f"{case:8}{count:3}{name:>7}{rows[-1]['milliseconds']:9.2f}"
            print(f"{line}{ratio[0]:9.3f} [{low:.3f}, {high:.3f}]", flush=True)
    path = RESULTS / f"drop_in_{jax.default_backend()}.json"
    content = {"machine": machine.describe() | {"beside": args.beside}, "size": args.size}
    path.write_text(json.dumps(content | {"rows": rows}, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
