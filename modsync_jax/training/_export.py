"""A trained network for other programs: plain NumPy, and a portable program of JAX."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import export as jax_export

from modsync_jax import networks

if TYPE_CHECKING:
    from modsync_jax.training._solution import Solution

NUMPY, ARRAYS, PROGRAM = "network.py", "network.npz", "network.jax"
PLATFORMS = ("cpu", "cuda", "tpu")
_ACTIVATIONS = {
    "tanh": "np.tanh(x)",
    "sin": "np.sin(x)",
    "gelu": "x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2",
    "swish": "x / (1 + np.exp(-x))",
    "silu": "x / (1 + np.exp(-x))",
    "softplus": "np.logaddexp(x, 0)",
    "relu": "np.maximum(x, 0)",
}
_LAYERS = {
    "mlp": """
    for k in range({depth}):
        x = act(dense(k, x), k)
    return dense({depth}, x)
""",
    "modified-mlp": """
    u, v = act(dense(0, x), 0), act(dense(1, x), 0)
    for k in range({depth}):
        x = u + act(dense(k + 2, x), k) * (v - u)
    return dense({depth} + 2, x)
""",
    "piratenet": """
    u, v = act(dense(0, x), 0), act(dense(1, x), 0)
    for k in range(0, 3 * {depth}, 3):
        h = u + act(dense(k + 2, x), k) * (v - u)
        h = u + act(dense(k + 3, h), k + 1) * (v - u)
        alpha = W[f"alpha_{{k // 3}}"]
        x = alpha * act(dense(k + 4, h), k + 2) + (1 - alpha) * x
    return dense(3 * {depth} + 2, x)
""",
}
_TEMPLATE = '''"""A trained network in NumPy: network(points), points [N, {d}] of {coordinates}."""

from pathlib import Path

import numpy as np

W = dict(np.load(Path(__file__).with_name("{arrays}")))


def dense(k, x):
    return x @ W[f"kernel_{{k}}"] + W[f"bias_{{k}}"]


def act(x, k):
    return ({activations})[k % {count}]


def network(points):
    """Values [N, {m}] of {outputs}."""
    x = np.asarray(points, W["kernel_0"].dtype)
{embedding}{layers}'''


def write(solution: "Solution", folder: str | os.PathLike, outputs: tuple[str, ...]) -> list[Path]:
    """Writes a network for other programs; see `Solution.export`."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    dtype = jax.tree.leaves(solution.params["network"])[0].dtype
    (count,) = jax_export.symbolic_shape("n")
    like = jax.ShapeDtypeStruct((count, len(solution.coordinates)), dtype)

    def program(points: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return jax.vmap(solution.field)(points)

    made = jax_export.export(jax.jit(program), platforms=PLATFORMS)(like)
    (place / PROGRAM).write_bytes(bytes(made.serialize()))
    kinds = {kind: name for name, kind in networks.NETWORKS.items()}
    network = solution.network
    if not isinstance(network, networks.Network) or type(network) not in kinds:
        return [place / PROGRAM]
    values = made.out_avals[0].shape[1]
    found = {f"unknown_{name}": np.array(value) for name, value in solution.unknowns.items()}
    np.savez(place / ARRAYS, **_arrays(network, solution.params), **found)  # type: ignore[arg-type]
    (place / NUMPY).write_text(
        _TEMPLATE.format(
            d=len(solution.coordinates),
            m=values,
            coordinates=", ".join(solution.coordinates),
            outputs=", ".join(outputs) or "the outputs",
            arrays=ARRAYS,
            activations="".join(f"{_ACTIVATIONS[n]}, " for n in network.activation.split("/")),
            count=len(network.activation.split("/")),
            embedding="".join(f"    {line}\n" for line in _embedding(network)),
            layers=_LAYERS[kinds[type(network)]].lstrip("\n").format(depth=network.depth),
        ),
        encoding="utf-8",
    )
    return [place / name for name in (NUMPY, ARRAYS, PROGRAM)]


def _embedding(network: networks.Network) -> list[str]:
    """The lines before the first layer."""
    lines = ["raw = x"] * any(network.periods)
    if network.scale:
        lines.append('x = (x - W["shift"]) / W["scale"]')
    if any(network.periods):
        own = [axis for axis, period in enumerate(network.periods) if period]
        free = [axis for axis, period in enumerate(network.periods) if not period]
        lines.append(f'a = raw[:, {own}] * W["angular"]')
        lines.append(f"x = np.concatenate([np.cos(a), np.sin(a), x[:, {free}]], axis=1)")
    if network.fourier_features:
        lines.append('a = x @ W["frequencies"]')
        lines.append("x = np.concatenate([np.cos(a), np.sin(a)], axis=1)")
    if network.omega != 1:
        lines.append(f"x = x * {network.omega!r}")
    return lines


def _arrays(network: networks.Network, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of `network.npz`; factors of kernels and slopes are folded into the kernels."""
    of = jax.tree.map(lambda leaf: np.asarray(leaf), dict(params["network"]["params"]))
    dtype = next(iter(jax.tree.leaves(of))).dtype
    arrays: dict[str, np.ndarray] = {}
    count = sum(name.startswith("Dense_") for name in of)
    for k in range(count):
        layer = of[f"Dense_{k}"]
        factor = np.exp(layer["log_factor"]) if "log_factor" in layer else np.ones((), dtype)
        slope = of.get(f"Activation_{k}", {}).get("slope", np.ones((), dtype))
        pace = slope * network.adaptive if network.adaptive and k < count - 1 else 1
        arrays[f"kernel_{k}"] = np.asarray(layer["kernel"] * factor * pace, dtype)
        arrays[f"bias_{k}"] = np.asarray(layer["bias"] * pace, dtype)
    if network.scale:
        arrays |= {"shift": np.array(network.shift, dtype), "scale": np.array(network.scale, dtype)}
    if any(network.periods):
        own = [2 * np.pi / period for period in network.periods if period]
        arrays["angular"] = np.array(own, dtype)
    if network.fourier_features:
        flat = of["FourierFeatures_0"]["frequencies"]
        arrays["frequencies"] = flat.reshape(-1, network.fourier_features // 2)
    arrays |= {name: of[name] for name in of if name.startswith("alpha_")}
    return arrays
