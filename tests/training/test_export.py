"""Networks for other programs: plain NumPy, and a portable program of JAX."""

import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import networks
from modsync_jax.training._solution import Solution

KINDS = {
    "plain": ("mlp", {}),
    "all at once": (
        "mlp",
        {
            "activation": "sin/tanh",
            "adaptive": 3.0,
            "factorized": True,
            "periods": (0.0, 2.0),
            "fourier_features": 6,
            "shift": (0.5, 0.0),
            "scale": (0.3, 0.6),
            "omega": 2.0,
        },
    ),
    "modified": ("modified-mlp", {"activation": "gelu/silu/relu", "adaptive": 2.0}),
    "pirate": ("piratenet", {"activation": "softplus/swish/tanh", "fourier_features": 4}),
}
POINTS = np.random.default_rng(0).uniform(-1, 1, (50, 2))


def solution(name, dtype="float32"):
    kind, settings = KINDS[name]
    network = networks.NETWORKS[kind](
        width=8, depth=2, outputs=3, param_dtype=jnp.dtype(dtype), **settings
    )
    variables = network.init(jax.random.key(0), jnp.zeros(2, dtype))
    leaves, tree = jax.tree.flatten(variables)  # away from zero biases, slopes of one and alphas
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        leaf + 0.3 * jax.random.normal(key, leaf.shape, leaf.dtype)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    params = {"network": jax.tree.unflatten(tree, moved), "unknowns": {"nu": jnp.log(0.25)}}
    rows = [{"step": 0, "unknown/nu": 0.25}]
    return Solution(network, ("t", "x"), params, params, {}, rows)


def imported(path):
    spec = importlib.util.spec_from_file_location("exported", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] * (n != "plain")) for n in KINDS]
)
def test_numpy_and_the_program_have_the_values_of_the_network(name, tmp_path, x64):
    u = solution(name, "float64")
    files = u.export(tmp_path / "new" / "folder", ("u", "v", "p"))
    assert [path.name for path in files] == ["network.py", "network.npz", "network.jax"]
    exported = imported(files[0])
    np.testing.assert_allclose(exported.network(POINTS), u(POINTS), rtol=1e-10, atol=1e-12)
    assert "u, v, p" in exported.network.__doc__ and exported.W["unknown_nu"] == 0.25
    program = jax.export.deserialize(files[2].read_bytes())
    np.testing.assert_allclose(program.call(jnp.asarray(POINTS)), u(POINTS), rtol=1e-10)
    assert program.call(jnp.zeros((3, 2))).shape == (3, 3)  # any number of points
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}


@pytest.mark.long
def test_in_single_precision_values_agree_to_rounding(tmp_path):
    u = solution("plain")
    files = u.export(tmp_path)
    found = imported(files[0]).network(POINTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, u(POINTS), rtol=1e-6, atol=1e-6)


@pytest.mark.long
def test_numpy_alone_is_needed(tmp_path):
    solution("all at once").export(tmp_path)
    code = "import sys, numpy; from network import network; print(network([[0.1, 0.2]]).shape);"
    code += "assert 'jax' not in sys.modules and 'modsync_jax' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "(1, 3)\n"


def test_a_network_of_one_s_own_is_a_program_alone(tmp_path):
    inner = networks.MLP(width=4, depth=1)
    network = networks.Constrained(inner, lambda x: jnp.ones(1), lambda x: x[:1])
    variables = network.init(jax.random.key(0), jnp.zeros(2))
    params = {"network": variables, "unknowns": {}}
    u = Solution(network, ("t", "x"), params, params, {}, [])
    (path,) = u.export(tmp_path)
    found = jax.export.deserialize(path.read_bytes()).call(jnp.asarray(POINTS, jnp.float32))
    np.testing.assert_allclose(found, u(POINTS), rtol=1e-6)
