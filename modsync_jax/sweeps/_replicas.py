"""One program for many replicas: mapped on each device, sharded over devices.

Replicas are independent, so each device works on its own share without communication. A second axis
of the mesh can share the points of each replica; XLA inserts the communication for it.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from modsync_jax._names import unknown

PyTree = Any

STRATEGIES = ("auto", "vmap", "map")


def make_mesh(point_devices: int = 1) -> Mesh:
    """All devices as a mesh with the axes `replicas` and `points`.

    Args:
      point_devices: the number of devices that share the points of one replica.

    Raises:
      ValueError: when it does not divide the number of devices; when it is above 1 on a JAX older
        than 0.7, which can't place arrays inside `shard_map`; or when the processes of several
        hosts have different numbers of devices.
    """
    devices = np.array(jax.devices())
    own, processes = jax.local_device_count(), jax.process_count()
    if own * processes != len(devices):
        raise ValueError(
            f"this process has {own} of {len(devices)} devices; each of the {processes} processes "
            "must have as many (--cpu_devices sets how many on CPUs)"
        )
    if point_devices > 1 and jax.__version_info__ < (0, 7):
        raise ValueError(
            f"point_devices is {point_devices}; sharing points needs JAX 0.7 or newer, this is "
            f"{jax.__version__}"
        )
    if point_devices < 1 or len(devices) % point_devices:
        raise ValueError(
            f"point_devices is {point_devices}; it must divide the number of devices, "
            f"{len(devices)}"
        )
    return Mesh(devices.reshape(-1, point_devices), ("replicas", "points"))


def strategy_of(name: str) -> str:
    """Resolves `auto`: `map`, one replica after the other, on CPUs, and `vmap` elsewhere.

    Batched small products are slower than single ones on a CPU, but they fill a GPU or TPU.

    Raises:
      ValueError: on another name.
    """
    if name not in STRATEGIES:
        raise unknown("strategy", name, STRATEGIES)
    if name != "auto":
        return name
    return "map" if jax.default_backend() == "cpu" else "vmap"


def over_replicas(function: Callable[..., PyTree], mesh: Mesh, strategy: str) -> Callable:
    """Turns a function of one replica into a function of many.

    Args:
      function: `(replica, shared) -> result`, pytrees.
      mesh: from `make_mesh`.
      strategy: `vmap`, or `map` to compute the replicas of a device one after the other.

    Returns:
      `(replicas, shared) -> results`, where leaves of `replicas` and `results` have a leading axis
      `[R]`, sharded over `replicas`; R must be a multiple of the mesh's first axis.
    """
    own, everywhere = PartitionSpec("replicas"), PartitionSpec()

    def on_one_device(replicas: PyTree, shared: PyTree) -> PyTree:
        def one(replica: PyTree) -> PyTree:
            return function(replica, shared)

        return jax.vmap(one)(replicas) if strategy == "vmap" else jax.lax.map(one, replicas)

    return jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(own, everywhere),
        out_specs=own,
        axis_names={"replicas"},
        check_vma=False,
    )


def place_points(mesh: Mesh, points: PyTree) -> PyTree:
    """Spreads points, arrays `[N, ...]`, over the devices of a replica inside `over_replicas`.

    If N is no multiple of the number of devices, an array stays whole on each of them.
    """
    count = mesh.shape["points"]

    def placed(leaf: jax.Array) -> jax.Array:
        if count == 1 or len(leaf) % count:
            return leaf
        here = jax.sharding.get_abstract_mesh()  # it knows the axes that are already mapped
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(here, PartitionSpec("points")))

    return jax.tree.map(placed, points)


def sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays with a leading axis of replicas."""
    return NamedSharding(mesh, PartitionSpec("replicas"))


def everywhere(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that every device has whole."""
    return NamedSharding(mesh, PartitionSpec())
