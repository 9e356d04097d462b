"""The memory of a device, and the memory that a program needs, before it starts."""

import math
import os
from typing import Any

import jax

PyTree = Any


def limit() -> float:
    """Usable bytes of each device: nine tenths of its memory."""
    facts = jax.local_devices()[0].memory_stats()
    if facts and "bytes_limit" in facts:
        return 0.9 * facts["bytes_limit"]
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0.9 * host / jax.local_device_count()


def of_arrays(tree: PyTree) -> int:
    """Bytes of arrays, which may be given as descriptions."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def of_program(compiled: Any) -> int:
    """Bytes that a compiled function takes on each device."""
    sizes = compiled.memory_analysis()
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes
        + sizes.temp_size_in_bytes
    )
