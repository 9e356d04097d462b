"""Question: what does each method's step cost, against Adam, PyTorch and the hardware's limit?

Burgers' equation, 1280 residual and 126 condition points drawn anew every step, tanh networks of
3×50, 5×128 and 5×512, float32. Every round runs each method once, in random order. A ratio is taken
within its round, and the result is the median over the rounds with its 95% interval (order
statistics). A turn holds whole periods of the methods that refresh their loss weights now and then.
The same rounds run two peers: a plain JAX loop (nested jvp, summed gradient, optax Adam) and
PyTorch with the package `conflictfree` (ConFIG, torch Adam, the same points).

FLOPs are the algorithmic minimum: 9 matrix products of the hidden layer's size per residual point
and pair of hidden layers (the value, u_x, and u_t - ν u_xx as one, forward and twice backward) and
3 per condition point, 2 width² FLOPs each. With separate derivatives they are 12 and 3. GEMM is a
5120×512 by 512×512 float32 product.

A second study, `pathologies`, times Wang et al.'s models on Helmholtz 2D (4×50 modified MLP, 128
points a term): learning-rate annealing against Adam on the same network, M4 against M3. A third,
`adapters`, times per-loss adapters, and a fourth, `widths`, what docs/studies/protocol.md compares;
its ratios stand in results/small/costs.csv too, for the tables at equal time.

Usage: python -m benchmarks.step_time [--study=burgers] [--sizes=3x50,5x128,5x512]
           [--methods=sum,dcgd,...] [--rounds=31] [--no-torch]
Adam is always among the methods. The table is printed and written to
benchmarks/results/step_time_<study>_<platform>.json.
"""

import argparse
import itertools
import json
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks import machine
from modsync_jax import methods, problems
from modsync_jax.problems import Problem
from modsync_jax.training import TrainConfig, _step

RESULTS = Path(__file__).parent / "results"
RESIDUAL, INITIAL, SIDE = 1280, 42, 42
NU = 0.01 / math.pi

METHODS = [name for name, part in methods.PARTS.items() if part.kind != "beside"]
METHODS += [f"modsync+{base}" for base in ("sum", "dcgd", "dcgd-avg", "dcgd-proj", "config")]

# Steps between those that cost more; 2 otherwise, because M-ConFIG alternates between objectives.
PERIODS = {"ntk": 100, "lra": 10}

Run = Callable[[int], None]  # runs this many steps and waits for them


class Study(NamedTuple):
    """The cases to time, and whether the peers run too."""

    problem: str
    settings: Mapping[str, Any]
    sizes: str
    methods: str
    peers: bool


STUDIES = {
    "burgers": Study("burgers", {}, "3x50,5x128,5x512", ",".join(METHODS), peers=True),
    "pathologies": Study(
        "helmholtz2d",
        {"network": "modified-mlp", "standardize": "yes", "points": {"residual": 128}},
        "4x50",
        "sum,lra,dcgd,lra+dcgd",
        peers=False,
    ),
    "adapters": Study("burgers", {}, "5x128", "sum,adapters", peers=False),
    "widths": Study(
        "burgers",
        {"points": {"residual": 256}},
        "5x8,5x16,5x32,5x64,5x128,5x256",
        "sum,dcgd,dcgd-proj,pcgrad,cagrad,modsync+dcgd,modsync+dcgd-proj",
        peers=False,
    ),
}
COSTS = Path(__file__).parents[1] / "results" / "small" / "costs.csv"


def ours(problem: Problem, config: TrainConfig) -> tuple[Run, float]:
    """Our loop, and the seconds of its compilation."""
    program = _step.compiled(_step.build(problem, _step.network_of(problem, config), config))
    state = program.init(0)
    start = time.perf_counter()
    advance: Any = program.advance
    advance.lower(state, 0, 1).compile()
    seconds = time.perf_counter() - start
    holder = [state]

    def run(steps: int) -> None:
        holder[0] = jax.block_until_ready(program.advance(holder[0], 0, steps))

    return run, seconds


def scanned(body: Callable[[Any, None], tuple[Any, None]], state: Any) -> Run:
    """Steps of `body` in one program, which donates its state from call to call."""
    advance = jax.jit(
        lambda carry, steps: jax.lax.scan(body, carry, None, length=steps)[0],
        static_argnums=1,
        donate_argnums=0,
    )
    holder = [state]

    def run(steps: int) -> None:
        holder[0] = jax.block_until_ready(advance(holder[0], steps))

    return run


def plain_jax(depth: int, width: int) -> Run:
    """A hand-written JAX PINN: one summed loss, nested jvp, Adam."""
    sizes = [2, *[width] * depth, 1]
    keys = jax.random.split(jax.random.key(0), len(sizes))
    xavier = jax.nn.initializers.glorot_normal()
    pairs = zip(keys, itertools.pairwise(sizes), strict=False)
    params = [(xavier(key, pair), jnp.zeros(pair[1])) for key, pair in pairs]
    tx = optax.adam(1e-3)

    def u(params: list, t: jax.Array, x: jax.Array) -> jax.Array:
        h = jnp.stack([t, x])
        for w, b in params[:-1]:
            h = jnp.tanh(h @ w + b)
        w, b = params[-1]
        return (h @ w + b)[0]

    def residual(params: list, t: jax.Array, x: jax.Array) -> jax.Array:
        def u_x(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            return jax.jvp(lambda x: u(params, t, x), (x,), (1.0,))

        (value, d), (_, dd) = jax.jvp(u_x, (x,), (1.0,))
        _, u_t = jax.jvp(lambda t: u(params, t, x), (t,), (1.0,))
        return u_t + value * d - NU * dd

    def loss(params: list, key: jax.Array) -> jax.Array:
        k = jax.random.split(key, 4)
        t, x = jax.random.uniform(k[0], (2, RESIDUAL))
        total = jnp.mean(jax.vmap(residual, (None, 0, 0))(params, t, 2 * x - 1) ** 2)
        x = 2 * jax.random.uniform(k[1], (INITIAL,)) - 1
        start = jax.vmap(u, (None, 0, 0))(params, jnp.zeros(INITIAL), x)
        total += jnp.mean((start + jnp.sin(jnp.pi * x)) ** 2)
        for side, key in ((-1.0, k[2]), (1.0, k[3])):
            t = jax.random.uniform(key, (SIDE,))
            total += jnp.mean(jax.vmap(u, (None, 0, 0))(params, t, jnp.full(SIDE, side)) ** 2)
        return total

    def body(carry: tuple, _: None) -> tuple:
        params, state, key = carry
        key, draw = jax.random.split(key)
        grads = jax.grad(loss)(params, draw)
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(params, updates), state, key), None

    return scanned(body, (params, tx.init(params), jax.random.key(1)))


def pytorch(depth: int, width: int) -> Run:
    """PyTorch with `conflictfree`: one backward pass per loss, ConFIG, Adam."""
    import torch
    from conflictfree.grad_operator import ConFIG_update
    from conflictfree.utils import apply_gradient_vector, get_gradient_vector

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layers: list[torch.nn.Module] = []
    for inside, outside in zip([2, *[width] * (depth - 1)], [width] * depth, strict=True):
        layers += [torch.nn.Linear(inside, outside), torch.nn.Tanh()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1)).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def field(t: "torch.Tensor", x: "torch.Tensor") -> "torch.Tensor":
        return net(torch.stack([t, x], 1))[:, 0]

    def uniform(count: int, low: float) -> "torch.Tensor":
        return low + (1 - low) * torch.rand(count, device=device)

    def residual_loss() -> "torch.Tensor":
        t = uniform(RESIDUAL, 0.0).requires_grad_()
        x = uniform(RESIDUAL, -1.0).requires_grad_()
        u = field(t, x)
        u_t, u_x = torch.autograd.grad(u.sum(), (t, x), create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        return ((u_t + u * u_x - NU * u_xx) ** 2).mean()

    def boundary_loss() -> "torch.Tensor":
        x = uniform(INITIAL, -1.0)
        loss = ((field(torch.zeros_like(x), x) + torch.sin(torch.pi * x)) ** 2).mean()
        for side in (-1.0, 1.0):
            t = uniform(SIDE, 0.0)
            loss = loss + (field(t, torch.full_like(t, side)) ** 2).mean()
        return loss

    def step() -> None:
        grads = []
        for loss in (boundary_loss, residual_loss):
            optimizer.zero_grad()
            loss().backward()
            grads.append(get_gradient_vector(net))
        apply_gradient_vector(net, ConFIG_update(grads))
        optimizer.step()

    def run(steps: int) -> None:
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def products_alone(depth: int, width: int) -> Run:
    """The matrix products that `flops` counts, with nothing between them: a lower bound of a step.

    Three arrays of residual points and one of condition points pass forward, then backward, and the
    weights take the sum of their outer products, so that no step repeats the one before.
    """
    counts = (RESIDUAL, RESIDUAL, RESIDUAL, INITIAL + 2 * SIDE)
    keys = jax.random.split(jax.random.key(0), depth - 1 + len(counts))
    pairs = zip(keys, counts, strict=False)
    inputs = [jax.random.normal(key, (width, count)) for key, count in pairs]  # no two alike
    keys = keys[len(counts) :]
    weights = tuple(jax.random.normal(key, (width, width)) / width**0.5 for key in keys)

    def body(weights: tuple, _: None) -> tuple:
        arrays, kept = inputs, []
        for w in weights:
            kept.append(arrays)
            arrays = [w @ x for x in arrays]
        moved = []
        for w, before in zip(weights[::-1], kept[::-1], strict=True):
            gradient = sum(g @ x.T for g, x in zip(arrays, before, strict=True))
            moved.append(w - 1e-9 * gradient)
            arrays = [w.T @ g for g in arrays]
        # The first layer's own backward product must not be left out.
        moved[-1] += 1e-9 * sum(g.max() for g in arrays)
        return tuple(moved[::-1]), None

    return scanned(body, weights)


def gemm_rate() -> float:
    """FLOP/s of a 5120×512 by 512×512 float32 product, best of 30."""
    a = jax.random.normal(jax.random.key(0), (5120, 512))
    b = jax.random.normal(jax.random.key(1), (512, 512))
    product = jax.jit(lambda a, b: jnp.dot(a, b, precision="highest"))
    jax.block_until_ready(product(a, b))
    best = math.inf
    for _ in range(30):
        start = time.perf_counter()
        jax.block_until_ready(product(a, b))
        best = min(best, time.perf_counter() - start)
    return 2 * 5120 * 512 * 512 / best


def flops(depth: int, width: int) -> float:
    """The algorithmic minimum of a step's gradient, as in the module's docstring."""
    conditions = INITIAL + 2 * SIDE
    return (depth - 1) * 2 * width**2 * (9 * RESIDUAL + 3 * conditions)


def interval(values: list[float]) -> tuple[float, float, float]:
    """Median and its 95% confidence interval by order statistics."""
    ordered, n = sorted(values), len(values)
    half = 1.96 * math.sqrt(n) / 2
    low, high = max(math.floor(n / 2 - half), 0), min(math.ceil(n / 2 + half), n - 1)
    return statistics.median(ordered), ordered[low], ordered[high]


def seconds_per_step(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds per step of every run in every round."""
    counts = {}
    for name, run in runs.items():  # enough steps for a turn of 0.15 s or a little more
        run(2)
        start = time.perf_counter()
        run(2)
        seconds, period = (time.perf_counter() - start) / 2, PERIODS.get(name, 2)
        counts[name] = period * max(1, round(0.15 / seconds / period))
    jax.clear_caches()  # a process may map only so many compiled programs
    for name, run in runs.items():
        run(counts[name])
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(runs), len(runs)):
            start = time.perf_counter()
            runs[name](counts[name])
            times[name].append((time.perf_counter() - start) / counts[name])
    return times


def measure(
    study: Study, depth: int, width: int, chosen: list[str], rounds: int, with_torch: bool
) -> list[dict]:
    """One row for each method at one size."""
    runs: dict[str, Run] = {}
    compiled = {}
    for name in chosen:
        config = TrainConfig(method=name, depth=depth, width=width, **study.settings)
        runs[name], compiled[name] = ours(problems.get(study.problem), config)
    if study.peers:
        runs["plain jax (adam)"] = plain_jax(depth, width)
        runs["products alone"] = products_alone(depth, width)
    if with_torch:
        runs["pytorch conflictfree"] = pytorch(depth, width)
    times = seconds_per_step(runs, rounds)
    rows = []
    for name in runs:
        ratio = interval([t / a for t, a in zip(times[name], times["sum"], strict=True)])
        median = statistics.median(times[name])
        row = {"size": f"{depth}x{width}", "method": name, "milliseconds": 1e3 * median}
        row |= {"over_adam": ratio[0], "over_adam_95": ratio[1:], "compile_s": compiled.get(name)}
        if with_torch:
            pairs = zip(times["pytorch conflictfree"], times[name], strict=True)
            speedup = interval([p / t for p, t in pairs])
            row |= {"times_faster_than_pytorch": speedup[0], "times_faster_95": speedup[1:]}
        if study.peers:
            row["flops_per_second"] = flops(depth, width) / median
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--study", choices=tuple(STUDIES), default="burgers")
    parser.add_argument("--sizes", help="those of the study by default")
    parser.add_argument("--methods", help="those of the study by default")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--no-torch", action="store_true")
    args = parser.parse_args()

    study = STUDIES[args.study]
    chosen = list(dict.fromkeys(["sum", *(args.methods or study.methods).split(",")]))
    with_torch = study.peers and not args.no_torch
    rows = []
    facts = machine.describe() | {"gemm_before": gemm_rate()}
    with jax.default_matmul_precision("highest"):
        for size in (args.sizes or study.sizes).split(","):
            depth, width = map(int, size.split("x"))
            rows += measure(study, depth, width, chosen, args.rounds, with_torch)
            jax.clear_caches()
    facts["gemm_after"] = gemm_rate()
    gemm = max(facts["gemm_before"], facts["gemm_after"])
    head = f"{'size':7}{'method':24}{'ms':>9}{'over adam':>22}{'than torch':>12}{'of GEMM':>9}"
    print(json.dumps(facts), head, sep="\n")
    for row in rows:
        low, high = row["over_adam_95"]
        line = f"{row['size']:7}{row['method']:24}{row['milliseconds']:9.2f}"
        line += f"{row['over_adam']:9.3f} [{low:.3f}, {high:.3f}]"
        if with_torch:
            line += f"{row['times_faster_than_pytorch']:11.2f}×"
        if study.peers:
            row["share_of_gemm"] = row["flops_per_second"] / gemm
            line += f"{row['share_of_gemm']:9.0%}"
        print(line)
    path = RESULTS / f"step_time_{args.study}_{jax.default_backend()}.json"
    path.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    print(f"written to {path}")
    if args.study == "widths":
        lines = [
            f"{row['size'].split('x')[1]},{row['method']},{row['over_adam']:.4f}" for row in rows
        ]
        COSTS.write_text("\n".join(["width,method,over_adam", *lines]) + "\n")


if __name__ == "__main__":
    main()
