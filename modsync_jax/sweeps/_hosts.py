"""Several hosts: a process on each runs the same program, and they agree on what they do.

What a process finds out by itself (files, free memory, signals) may differ from host to host. So it
is asked of process 0 (`from_primary`) or of all (`any_of`), and what follows from it is the same
everywhere. Process 0 alone writes our files and shows progress; checkpoints are written by all,
into a folder that all of them see. With one process, all of this is what it would be without.
"""

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from modsync_jax.training._folder import RunFolder, newest_whole

PyTree = Any


def is_primary() -> bool:
    """Whether this process is the one that writes and shows."""
    return jax.process_index() == 0


def from_primary(value: Callable[[], Any]) -> Any:
    """What `value`, called in process 0 alone, returns there, as JSON has it."""
    text = json.dumps(value()).encode() if is_primary() else b""
    size = _of_each(np.int32(len(text)))[0]
    return json.loads(_of_each(np.frombuffer(text.ljust(size), np.uint8))[0].tobytes())


def any_of(flag: bool) -> bool:
    """Whether it is so in any process."""
    return bool(_of_each(np.bool_(flag)).any())


def fetch(arrays: PyTree) -> PyTree:
    """Arrays on the devices of all hosts as NumPy arrays, whole, in every process."""

    def fetched(leaf: Any) -> np.ndarray:
        if leaf.is_fully_addressable:
            return np.asarray(leaf)
        everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec())
        whole = jax.jit(_unchanged, out_shardings=everywhere)(leaf)
        # On all devices: what one still receives could mix with what is sent next.
        return np.asarray(jax.block_until_ready(whole))

    return jax.tree.map(fetched, arrays)


def place(values: PyTree, sharding: Sharding) -> PyTree:
    """Arrays that every process holds whole as arrays on the devices of all hosts."""

    def placed(leaf: Any) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(placed, values)


def _unchanged(array: jax.Array) -> jax.Array:  # a name, so that it is compiled once
    return array


def _of_each(value: np.ndarray | np.generic) -> np.ndarray:
    """The values of all processes, which differ in nothing but numbers, `[processes, ...]`."""
    devices = np.array(jax.devices()).reshape(jax.process_count(), -1)
    by_process = NamedSharding(Mesh(devices, ("processes", "own")), PartitionSpec("processes"))
    return fetch(jax.make_array_from_process_local_data(by_process, np.asarray(value)[None]))


class SharedFolder(RunFolder):
    """The folder of a run of all processes; process 0 alone locks it and writes our files.

    Args and errors are those of `RunFolder`; errors of the folder are raised in process 0.
    """

    def __init__(self, path: str | os.PathLike, config: Mapping[str, Any], *, resume: bool) -> None:
        self.path = Path(path)
        if is_primary():
            super().__init__(path, config, resume=resume)
        from_primary(lambda: "the folder is there")

    def latest(self, say: Callable[[str], None] = lambda text: None) -> int | None:
        manager = self._checkpoints  # which all make together
        return from_primary(partial(newest_whole, self.path, manager, say))

    def _note_checksum(self, step: int) -> None:
        if is_primary():
            super()._note_checksum(step)
