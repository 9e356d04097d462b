"""A model of the cost of one network's training step: operations, memory and traffic.

Burgers' equation (two inputs, one output, two losses), tanh networks, float32. Everything is
arithmetic on shapes; `benchmarks.scaling` compares it with compiled programs and measured times.

Three arrays run through the layers for every residual point: the value, u_x and u_t - ν u_xx.
"""

import math
from typing import NamedTuple

from benchmarks import step_time

INPUTS, OBJECTIVES, CARRIED = 2, 2, 3
POINTS = step_time.RESIDUAL + step_time.INITIAL + 2 * step_time.SIDE
FLOAT = 4  # bytes
METRICS_ROWS = 41  # rows of 20,000 steps, one every 500

# Elementwise operations per unit and point, forward and backward: XLA's count at 3×50 on a CPU
# without the products. It is the only fitted figure of this page.
ELEMENTWISE = 56
# Arrays of a layer that the backward pass needs, per unit and residual point: the activation, and
# the carried arrays before and after it. LIVE: the cotangents and the activation of the current
# layer.
SAVED, LIVE = 1 + 2 * (CARRIED - 1), CARRIED + 1
# Arrays of a layer that go through memory when nothing stays on the chip, per unit and point.
# Products: three read and three written forward, the same for the cotangents, and six read for the
# gradient of the kernel. Activations: three read and three written forward; backward, three
# cotangents and the saved arrays read, and three written.
MOVED = 6 * CARRIED + 2 * CARRIED + 2 * CARRIED + SAVED
# The same per weight: kernels in each product, the gradients of both losses, the update, Adam.
MOVED_PER_WEIGHT = 20


class Machine(NamedTuple):
    """The published figures of a device.

    Attributes:
      peak: rate of products in full float32 precision, FLOP/s.
      bandwidth: bandwidth of its memory, bytes/s.
      memory: size of its memory, bytes.
      tile: both sides of a product are rounded up to a multiple of this.
      lane: the last axis of an array in memory is rounded up to a multiple of this.
    """

    peak: float
    bandwidth: float
    memory: float
    tile: int = 1
    lane: int = 1


MACHINES = {
    # https://cloud.google.com/tpu/docs/v5e: 197 TFLOP/s in bfloat16, 16 GB, 819 GB/s; products of
    # precision `highest` are six bfloat16 passes (documentation of jax.lax.Precision).
    "TPU v5e": Machine(197e12 / 6, 819e9, 16e9, tile=128, lane=128),
    # NVIDIA H100 Tensor Core GPU datasheet, SXM: FP32 (not TF32) 67 TFLOP/s, 80 GB, 3.35 TB/s.
    "H100": Machine(67e12, 3.35e12, 80e9),
}


def weights(depth: int, width: int, lane: int = 1) -> int:
    """The number of weights and biases, with the padding in memory."""
    units = _up(width, lane)
    return (INPUTS + 1) * units + (depth - 1) * (width + 1) * units + units + 1


def thresholds(depth: int, width: int, lane: int = 1) -> int:
    """The number of ModSync's thresholds: one for each loss and unit."""
    return OBJECTIVES * (depth * _up(width, lane) + 1)


def flops(depth: int, width: int, tile: int = 1) -> float:
    """Operations of a step: products of the hidden layers, of both ends, and elementwise."""
    hidden = step_time.flops(depth, width) * (_up(width, tile) / width) ** 2
    first = 2 * 2 * INPUTS * width * POINTS
    last = 2 * 3 * width * (CARRIED * step_time.RESIDUAL + POINTS - step_time.RESIDUAL)
    return hidden + first + last + ELEMENTWISE * depth * width * POINTS


def state(depth: int, width: int, *, masked: bool = True, lane: int = 1) -> int:
    """Bytes that a network keeps between steps: four copies of its trained arrays, and metrics.

    The copies are the parameters, the best ones, and Adam's two moments.
    """
    trained = weights(depth, width, lane) + masked * thresholds(depth, width, lane)
    columns = 25 + masked * (1 + (1 + OBJECTIVES) * (depth + 1))
    return FLOAT * (4 * trained + columns * _up(METRICS_ROWS, lane))


def work(depth: int, width: int, points: int = step_time.RESIDUAL) -> int:
    """Bytes that a step needs while it runs: activations of a chunk of points, and gradients."""
    gradients = (OBJECTIVES + 1) * weights(depth, width)
    return FLOAT * ((SAVED * depth + LIVE) * width * points + gradients)


def traffic(depth: int, width: int) -> int:
    """Bytes that a step moves when no activation stays on the chip."""
    return FLOAT * (MOVED * depth * width * POINTS + MOVED_PER_WEIGHT * weights(depth, width))


def seconds(machine: Machine, depth: int, width: int) -> tuple[float, float]:
    """Seconds of one network's step on a full device: by operations, and by traffic."""
    return (
        flops(depth, width, machine.tile) / machine.peak,
        traffic(depth, width) / machine.bandwidth,
    )


def room(machine: Machine, depth: int, width: int) -> int:
    """The number of networks that train on a device at once, in nine tenths of its memory."""
    each = state(depth, width, lane=machine.lane) + work(depth, width)
    return int(0.9 * machine.memory / each)


def _up(count: int, multiple: int) -> int:
    return math.ceil(count / multiple) * multiple
