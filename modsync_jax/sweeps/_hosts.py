"""Several hosts: a process on each runs the same program, and all processes take the same steps.

Facts such as files, free memory and signals may differ from host to host. So process 0 decides
(`from_primary`), or all processes are asked (`any_of`), and everything that follows is the same
everywhere. Process 0 alone writes our files and shows progress. All processes write checkpoints,
into a folder that all of them see. With a single process these functions change nothing.
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
    """Whether this process writes files and shows progress."""
    return jax.process_index() == 0


def from_primary(value: Callable[[], Any]) -> Any:
    """Calls `value` in process 0 alone and returns its result, through JSON, in every process."""
    text = json.dumps(value()).encode() if is_primary() else b""
    size = _of_each(np.int32(len(text)))[0]
    return json.loads(_of_each(np.frombuffer(text.ljust(size), np.uint8))[0].tobytes())


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return bool(_of_each(np.bool_(flag)).any())


def fetch(arrays: PyTree) -> PyTree:
    """Arrays on the devices of all hosts as NumPy arrays, whole, in every process."""

    def fetched(leaf: Any) -> np.ndarray:
        if leaf.is_fully_addressable:
            return np.asarray(leaf)
        everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec())
        whole = jax.jit(_unchanged, out_shardings=everywhere)(leaf)
        # Waits for all devices: a transfer in progress could mix with the next one.
        return np.asarray(jax.block_until_ready(whole))

    return jax.tree.map(fetched, arrays)


def place(values: PyTree, sharding: Sharding) -> PyTree:
    """Places arrays that every process holds whole on the devices of all hosts."""

    def placed(leaf: Any) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(placed, values)


def _unchanged(array: jax.Array) -> jax.Array:  # a named function, so that it is compiled once
    return array


def _of_each(value: np.ndarray | np.generic) -> np.ndarray:
    """Returns the values of all processes, equal in shape and dtype, `[processes, ...]`."""
    devices = np.array(jax.devices()).reshape(jax.process_count(), -1)
    by_process = NamedSharding(Mesh(devices, ("processes", "own")), PartitionSpec("processes"))
    return fetch(jax.make_array_from_process_local_data(by_process, np.asarray(value)[None]))


class SharedFolder(RunFolder):
    """The folder of a run by all processes; process 0 alone locks it and writes our files.

    Arguments and errors are those of `RunFolder`; process 0 raises the folder's errors.
    """

    def __init__(self, path: str | os.PathLike, config: Mapping[str, Any], *, resume: bool) -> None:
        self.path = Path(path)
        if is_primary():
            super().__init__(path, config, resume=resume)
        from_primary(lambda: "the folder is there")

    def latest(self, say: Callable[[str], None] = lambda text: None) -> int | None:
        manager = self._checkpoints  # all processes write it together
        return from_primary(partial(newest_whole, self.path, manager, say))

    def _note_checksum(self, step: int) -> None:
        if is_primary():
            super()._note_checksum(step)
