"""Question: what does a sweep of 10,000 networks cost on machines that we do not have?

The answer comes from a model, `benchmarks.cost_model`, and these parts check it, one at a time:

  cpu      the model against XLA's counts, and steps of sweeps against this CPU's product rate
  tpu      the model against compilation ahead of time for a pod of 256 TPU v5e (needs libtpu)
  compile  seconds to compile the step of a sweep on this CPU, by the number of networks
  host     checkpoints and results: bytes and time for each network
  plan     hours of a sweep by the model, beside those of this CPU by the times of `cpu`
  room     the number of networks that fit in a device's memory, by the model

Burgers' equation, ModSync+DCGD, float32. Steps are those of `modsync_jax.sweeps`.

Usage: python -m benchmarks.scaling --part=cpu
The rows are printed and written to benchmarks/results/scaling_<part>.json.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh

from benchmarks import cost_model, machine, step_time
from experiments import _program
from modsync_jax import problems
from modsync_jax.sweeps import _grid, _group, _replicas
from modsync_jax.training import _folder, _measure, _memory, _schedule

RESULTS = Path(__file__).parent / "results"
METHOD = "modsync+dcgd"
TOPOLOGY = "v5e:16x16"
ASKED = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-256",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
# Depth, width, networks, devices that share the points of one: one to forty networks on a chip.
PODS = [
    *((3, 50, count, 1) for count in (256, 1024, 4096, 10240)),
    *((5, 128, count, 1) for count in (256, 10240)),
    (5, 512, 256, 1),
    (3, 50, 1024, 4),
]
REPLICAS, STEPS = 10_000, 20_000
PLANNED = (("v5e-256 pod", "TPU v5e", 256), ("8 H100", "H100", 8), ("1 H100", "H100", 1))
SHARE = 0.5  # assumed share of an accelerator's published rates
ROUNDS = 15
GEMM_FLOPS = 2 * 5120 * 512**2

Row = dict[str, Any]


def tpu_mesh(point_devices: int = 1) -> Mesh:
    """The description of a pod, for which this machine compiles programs."""
    from jax.experimental import topologies

    # libtpu would ask a cloud's metadata server for these, which other machines can't reach.
    for name, value in ASKED.items():
        os.environ.setdefault(name, value)
    devices = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices
    return Mesh(np.array(devices).reshape(-1, point_devices), ("replicas", "points"))


def trainer(
    depth: int,
    width: int,
    replicas: int,
    mesh: Mesh,
    strategy: str,
    method: str = METHOD,
    **settings: Any,
) -> _group.Trainer:
    """The trainer of a sweep over seeds, not compiled yet."""
    shared = {"depth": depth, "width": width, "steps": STEPS, **settings}
    found = _grid.replicas([method], {"seed": range(replicas)}, shared)
    (group,) = _grid.groups(found)
    burgers = problems.get("burgers")
    return _group.Trainer(group, lambda config: burgers, mesh, strategy)


def step(made: _group.Trainer) -> tuple[Any, float]:
    """The compiled steps of a sweep, and the seconds of the compilation."""
    like, chunk = made.like(), next(_schedule.chunks(made.group.config))
    start = time.perf_counter()
    with jax.default_matmul_precision("highest"):
        compiled = made.compiled(like, chunk)
    return compiled, time.perf_counter() - start


def counted(made: _group.Trainer, compiled: Any, networks: int) -> Row:
    """XLA's figures for a compiled step, per network of a device, and their ratio to the model.

    XLA counts the operations of a loop's body once. With `vmap` the body has all networks of a
    device, with `map` only one.
    """
    config, together = made.group.config, networks if made.strategy == "vmap" else 1
    depth, width = config.depth, config.width
    lane = 1 if made.mesh.devices.flat[0].platform == "cpu" else 128
    model = {
        "flops": cost_model.flops(depth, width),
        "traffic": cost_model.traffic(depth, width),
        "state": cost_model.state(depth, width, lane=lane),
        "work": cost_model.work(depth, width),
    }
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    found = {
        "flops": cost["flops"] / together,
        "traffic": cost["bytes accessed"] / together,
        "state": memory.argument_size_in_bytes / networks,
        "work": memory.temp_size_in_bytes / together,
    }
    row: Row = {"size": f"{depth}x{width}", "networks": networks, "strategy": made.strategy}
    for name, value in found.items():
        row |= {name: value, f"{name}_of_model": value / model[name]}
    return row | {"bytes_needed": _memory.of_program(compiled)}


def cpu() -> Row:
    """The model against XLA's counts, and against times of a sweep that has all cores."""
    mesh = _replicas.make_mesh()
    cores = mesh.shape["replicas"]
    gemm, rows = products(mesh), []
    for depth, width, steps in ((3, 50, 60), (5, 128, 8), (5, 512, 1)):
        one = trainer(depth, width, 1, Mesh(mesh.devices[:1], mesh.axis_names), "map")
        row = counted(one, step(one)[0], 1)
        counts: dict[str, Any] = dict.fromkeys(("chunk", "eval_every", "checkpoint_every"), steps)
        made = trainer(depth, width, cores, mesh, "map", **counts)
        step(made)
        chunk = next(_schedule.chunks(made.group.config))
        state = made.run(made.start(), chunk)
        times, shares = [], []
        for _ in range(ROUNDS):
            rate = cores * GEMM_FLOPS / timed(gemm)
            start = time.perf_counter()
            state = jax.block_until_ready(made.run(state, chunk))
            times.append((time.perf_counter() - start) / (steps * cores))
            shares.append(step_time.flops(depth, width) / times[-1] / rate)
        row["milliseconds"] = 1e3 * min(times)  # other load on the machine can only make it longer
        row["share_of_gemm"], *row["share_of_gemm_95"] = step_time.interval(shares)
        rows.append(row)
    return {"devices": cores, "rows": rows}


def products(mesh: Mesh) -> Callable[[], Any]:
    """A product of `GEMM_FLOPS` on each device at once."""
    count = mesh.shape["replicas"]
    shapes = ((count, 5120, 512), (count, 512, 512))
    factors = tuple(jnp.ones(shape) for shape in shapes)
    factors = jax.device_put(factors, _replicas.sharding(mesh))
    both = _replicas.over_replicas(lambda ab, _: ab[0] @ ab[1], mesh, "map")
    call = jax.jit(lambda ab: both(ab, ()))
    return lambda: call(factors)


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call, the best of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return min(times)


def tpu() -> Row:
    """The model against the figures of a compiler for TPU; nothing runs."""
    rows = []
    for depth, width, replicas, shared in PODS:
        mesh = tpu_mesh(shared)
        made = trainer(depth, width, replicas, mesh, "vmap")
        compiled, seconds = step(made)
        row = counted(made, compiled, replicas // mesh.shape["replicas"])
        row |= {"point_devices": shared, "replicas": replicas, "compile_seconds": seconds}
        rows.append(row)
        print(json.dumps(row), flush=True)
    return {"topology": TOPOLOGY, "libtpu": metadata.version("libtpu"), "rows": rows}


def compilation() -> Row:
    """Seconds to compile the steps of a sweep by the number of networks."""
    mesh, rows = _replicas.make_mesh(), []
    for strategy, replicas in itertools.product(("map", "vmap"), (2, 64, 2048)):
        made = trainer(3, 50, replicas, mesh, strategy)
        rows.append({"strategy": strategy, "replicas": replicas, "seconds": step(made)[1]})
    return {"rows": rows}


def host() -> Row:
    """The host's work beside the steps: checkpoints and results."""
    mesh = _replicas.make_mesh()
    return {"rows": [files(mesh, 3, 50, 1024), files(mesh, 5, 128, 256)]}


def files(mesh: Mesh, depth: int, width: int, replicas: int) -> Row:
    """Bytes of a checkpoint, and seconds of each operation on the state, per network."""
    made = trainer(depth, width, replicas, mesh, "map", chunk=1)
    state = made.run(made.start(), next(_schedule.chunks(made.group.config)))
    # As after the last step, every row of the metrics is filled, here with the first one.
    full = {name: jnp.repeat(c[:, :1], c.shape[1], 1) for name, c in state.metrics.items()}
    state = jax.block_until_ready(state._replace(metrics=full))
    with tempfile.TemporaryDirectory() as path:
        folder = _folder.RunFolder(Path(path) / "group", {}, resume=False)
        folder.save(0, state)  # the first save also sets up the folder
        seconds = {
            "save": seconds_of(lambda: folder.save(1, state)),
            "check": seconds_of(folder.latest),
            "restore": seconds_of(lambda: folder.restore(1, made.like())),
        }
        checkpoint = (folder.path / "checkpoints" / "1").rglob("*")
        size = sum(file.stat().st_size for file in checkpoint if file.is_file())

    def results() -> None:
        arrays, clock = jax.device_get(state), _measure.Clock()
        for index in range(replicas):
            _group._outcome(made, index, _group.member(arrays, index), "", clock)

    seconds["results"] = seconds_of(results)
    row = {"size": f"{depth}x{width}", "replicas": replicas, "bytes": size / replicas}
    row["model_bytes"] = cost_model.state(depth, width)
    return row | {name: value / replicas for name, value in seconds.items()}


def seconds_of(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def plan() -> Row:
    """Hours of a sweep: on accelerators by the model, on this CPU by its measured times."""
    measured = json.loads((RESULTS / "scaling_cpu.json").read_text())
    rows = []
    for depth, width in ((3, 50), (5, 128)):
        for name, kind, devices in PLANNED:
            each = -(-REPLICAS // devices)
            limits = cost_model.seconds(cost_model.MACHINES[kind], depth, width)
            hours = each * STEPS * max(limits) / SHARE / 3600
            row = {"size": f"{depth}x{width}", "machine": name, "each": each, "hours": hours}
            rows.append(row | dict(zip(("by_products", "by_traffic"), limits, strict=True)))
        (row,) = (r for r in measured["rows"] if r["size"] == f"{depth}x{width}")
        hours = REPLICAS * STEPS * row["milliseconds"] / 3.6e6
        name = f"this CPU, {measured['devices']} cores"
        rows.append({"size": row["size"], "machine": name, "hours": hours})
    return {"replicas": REPLICAS, "steps": STEPS, "share": SHARE, "rows": rows}


def room() -> Row:
    """The number of networks that train on a device at once, by the model."""
    rows = [
        {"width": width}
        | {
            f"{name} {depth}": cost_model.room(kind, depth, width)
            for name, kind in cost_model.MACHINES.items()
            for depth in (3, 5)
        }
        for width in (16, 50, 128, 256, 512, 1024)
    ]
    return {"rows": rows}


PARTS = {
    "cpu": cpu, "tpu": tpu, "compile": compilation, "host": host, "plan": plan, "room": room
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--part", choices=tuple(PARTS), required=True)
    part = parser.parse_args().part
    # As in `experiments.sweep`, every core of a CPU is a device.
    _program.define_device()
    _program.define_replicas()
    flags.FLAGS(["scaling", "--platform=cpu"])
    _program.prepare_device("float32", replicas=True)
    with jax.default_matmul_precision("highest"):
        content = {"machine": machine.describe()} | PARTS[part]()
    for row in content["rows"]:
        print(json.dumps(row))
    path = RESULTS / f"scaling_{part}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
