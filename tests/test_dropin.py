"""Linen, NNX and Equinox networks follow a reference implementation without any of our code.

The reference is a plain dictionary of arrays with the chain rule through the masks, DCGD, Adam and
the regulariser written out, and with second derivatives carried through the layers by hand. The
problem is a small PINN: u'' = exp(x) on (-1, 1), with u = exp(x) at both ends.

Both compute in float64 with different orders of rounding, which the dynamics amplify: the reference
itself, started one unit in the last place away, drifts by up to 2e-14 in 100 steps. (It would be
1e-8 with a source of pi^2 sin(pi x), where the boundary loss vanishes on the way.) Errors are
relative to the largest entry of an array, or value of a loss, and may reach 1e-10.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import modsync_jax
from modsync_jax import aggregators, sparsity

try:
    from jax import set_mesh
    from jax.sharding import reshard
except ImportError:  # jax 0.6
    from jax.experimental.shard import reshard
    from jax.sharding import use_mesh as set_mesh

SIZES = (1, 8, 8, 1)
LAYERS = range(len(SIZES) - 1)
STEPS = 100
SEEDS = 2
RATE, THRESHOLD_RATE, SPARSITY, BETA = 1e-2, 5e-3, 1e-2, 0.3

Weights = dict[str, Any]


def initial_weights(seed: int) -> Weights:
    """Kernels `[in, out]` and biases by name, NumPy float64."""
    rng = np.random.default_rng(seed)
    kernels = {f"w{i}": rng.normal(size=SIZES[i : i + 2]) / SIZES[i] ** 0.5 for i in LAYERS}
    return kernels | {f"b{i}": 0.1 * rng.normal(size=SIZES[i + 1]) for i in LAYERS}


def points(seed: int) -> dict[str, np.ndarray]:
    """The two ends, and collocation points between them."""
    inside = np.random.default_rng(100 + seed).uniform(-1.0, 1.0, size=12)
    return {"ends": np.array([-1.0, 1.0]), "inside": inside}


# --- the reference -----------------------------------------------------------------------------


def losses_by_hand(weights, batch):
    """Boundary and residual loss; value and two derivatives pass the layers together."""

    def field(x):
        z, dz, ddz = x[:, None], jnp.ones((len(x), 1)), jnp.zeros((len(x), 1))
        for i in LAYERS:
            w = weights[f"w{i}"]
            z, dz, ddz = z @ w + weights[f"b{i}"], dz @ w, ddz @ w
            if i < len(LAYERS) - 1:
                a = jnp.tanh(z)
                slope = 1 - a**2
                z, dz, ddz = a, slope * dz, slope * ddz - 2 * a * slope * dz**2
        return z[:, 0], ddz[:, 0]

    ends, x = batch["ends"], batch["inside"]
    boundary = ((field(ends)[0] - jnp.exp(ends)) ** 2).mean()
    residual = ((field(x)[1] - jnp.exp(x)) ** 2).mean()
    return boundary, residual


def dcgd_by_hand(g_b, g_r):
    """The paper's formula on flat vectors."""
    flat = [jnp.concatenate([g[name].ravel() for name in sorted(g)]) for g in (g_b, g_r)]
    g_c = sum(g / jnp.sqrt(g @ g) for g in flat)
    update, start, out = (g_c @ (flat[0] + flat[1])) / (g_c @ g_c) * g_c, 0, {}
    for name in sorted(g_b):
        out[name] = update[start : start + g_b[name].size].reshape(g_b[name].shape)
        start += g_b[name].size
    return out


def adam_by_hand(grads, moments, step, rate):
    """New moments and the change of each array; `step` counts from 1."""
    changes, new = {}, {}
    for name, g in grads.items():
        m, v = moments[name]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        new[name] = (m, v)
        changes[name] = -rate * (m / (1 - 0.9**step)) / (jnp.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return changes, new


def zero_moments(arrays):
    return {name: (jnp.zeros_like(a), jnp.zeros_like(a)) for name, a in arrays.items()}


def each_gradient(weights, batch):
    return [jax.value_and_grad(lambda w, k=k: losses_by_hand(w, batch)[k])(weights) for k in (0, 1)]


def dcgd_reference(weights, batch):
    def step(carry, count):
        weights, moments = carry
        (loss_b, g_b), (loss_r, g_r) = each_gradient(weights, batch)
        changes, moments = adam_by_hand(dcgd_by_hand(g_b, g_r), moments, count, RATE)
        weights = {name: w + changes[name] for name, w in weights.items()}
        return (weights, moments), jnp.stack([loss_b, loss_r])

    counts = jnp.arange(1.0, STEPS + 1)
    (weights, _), losses = jax.lax.scan(step, (weights, zero_moments(weights)), counts)
    return losses, weights, {}


def modsync_reference(weights, batch):
    kernels = [f"w{i}" for i in LAYERS]
    thresholds = {name: jnp.zeros((2, weights[name].shape[1])) for name in kernels}

    def step(carry, count):
        weights, thresholds, moments, threshold_moments = carry
        masked, mean = dict(weights), {}
        for name in kernels:
            mean[name] = thresholds[name].mean(0)
            masked[name] = jnp.where(jnp.abs(weights[name]) > mean[name], weights[name], 0.0)
        results = each_gradient(masked, batch)
        weight_grads, slopes = [], {name: [] for name in kernels}
        for _, grads in results:
            grads = dict(grads)
            for name in kernels:
                w, g = weights[name], grads[name]
                q = jnp.abs(w) - mean[name]
                slope = jnp.where(jnp.abs(q) <= 0.4, 2 - 4 * jnp.abs(q), 0.4) * (jnp.abs(q) <= 1)
                grads[name] = g * (q > 0) + g * w * slope * jnp.sign(w)
                slopes[name].append(-0.5 * (g * w * slope).sum(0))
            weight_grads.append(grads)
        for name in kernels:
            t = thresholds[name]
            r_w = jnp.exp(((t[0] - t[1]) ** 2).sum() / BETA)
            pull = 2 * (t[0] - t[1]) / BETA * r_w * jnp.exp(-t).sum()
            regularizer = jnp.stack([pull, -pull]) - r_w * jnp.exp(-t)
            slopes[name] = jnp.stack(slopes[name]) + SPARSITY * regularizer
        changes, moments = adam_by_hand(dcgd_by_hand(*weight_grads), moments, count, RATE)
        shifts, threshold_moments = adam_by_hand(slopes, threshold_moments, count, THRESHOLD_RATE)
        weights = {name: w + changes[name] for name, w in weights.items()}
        thresholds = {name: t + shifts[name] for name, t in thresholds.items()}
        losses = jnp.stack([loss for loss, _ in results])
        return (weights, thresholds, moments, threshold_moments), losses

    start = (weights, thresholds, zero_moments(weights), zero_moments(thresholds))
    counts = jnp.arange(1.0, STEPS + 1)
    (weights, thresholds, *_), losses = jax.lax.scan(step, start, counts)
    return losses, weights, thresholds


REFERENCES = {"dcgd": dcgd_reference, "modsync": modsync_reference}


@functools.cache
def reference(method: str, seed: int):
    run = jax.jit(REFERENCES[method])
    return jax.tree.map(np.asarray, run(initial_weights(seed), points(seed)))


# --- the networks ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Network:
    """One way to hold the same network."""

    params: Callable[[Weights], Any]  # from the reference's weights
    apply: Callable[[Any, jax.Array], jax.Array]  # params, x [1] -> [1]
    kernels: Callable[[Any], list[jax.Array]]  # of parameters or of thresholds
    output_axis: int = -1


def linen() -> Network:
    from flax import linen as nn

    class MLP(nn.Module):
        @nn.compact
        def __call__(self, x):
            for i in LAYERS[:-1]:
                x = jnp.tanh(nn.Dense(SIZES[i + 1])(x))
            return nn.Dense(SIZES[-1])(x)

    def params(weights):
        layers = {
            f"Dense_{i}": {"kernel": weights[f"w{i}"], "bias": weights[f"b{i}"]} for i in LAYERS
        }
        return {"params": layers}

    return Network(
        params, MLP().apply, lambda p: [p["params"][f"Dense_{i}"]["kernel"] for i in LAYERS]
    )


def nnx() -> Network:
    from flax import nnx

    class MLP(nnx.Module):
        def __init__(self, weights):
            self.first, self.second, self.last = (
                nnx.Linear(SIZES[i], SIZES[i + 1], rngs=nnx.Rngs(0)) for i in LAYERS
            )
            for i, layer in enumerate((self.first, self.second, self.last)):
                layer.kernel = nnx.Param(weights[f"w{i}"])
                layer.bias = nnx.Param(weights[f"b{i}"])

        def __call__(self, x):
            return self.last(jnp.tanh(self.second(jnp.tanh(self.first(x)))))

    graphdef, _, rest = nnx.split(MLP(initial_weights(0)), nnx.Param, ...)

    def kernels(state):
        leaves = {
            jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(state)
        }
        return [
            leaf
            for name in ("first", "second", "last")
            for path, leaf in leaves.items()
            if name in path and "kernel" in path
        ]

    return Network(
        lambda weights: nnx.split(MLP(weights), nnx.Param, ...)[1],
        lambda params, x: nnx.merge(graphdef, params, rest)(x),
        kernels,
    )


def equinox() -> Network:
    eqx = pytest.importorskip("equinox")

    def model(weights):
        empty = eqx.nn.MLP(1, 1, SIZES[1], 2, activation=jnp.tanh, key=jax.random.key(0))
        return eqx.tree_at(
            lambda m: [layer.weight for layer in m.layers] + [layer.bias for layer in m.layers],
            empty,
            [weights[f"w{i}"].T for i in LAYERS] + [weights[f"b{i}"] for i in LAYERS],
        )

    _, static = eqx.partition(model(initial_weights(0)), eqx.is_inexact_array)
    return Network(
        lambda weights: eqx.partition(model(weights), eqx.is_inexact_array)[0],
        lambda params, x: eqx.combine(params, static)(x),
        lambda params: [layer.weight for layer in params.layers],
        output_axis=0,
    )


NETWORKS = {"linen": linen, "nnx": nnx, "equinox": equinox}


# --- our side ----------------------------------------------------------------------------------


def objectives(network: Network, gather: Callable[[Any], Any] = lambda params: params):
    """As a user writes them: pure functions of parameters and points, derivatives by `jax.jvp`."""

    def field(params):
        params = gather(params)
        return lambda x: network.apply(params, x[None])[0]

    def boundary(params, batch):
        return jnp.mean((jax.vmap(field(params))(batch["ends"]) - jnp.exp(batch["ends"])) ** 2)

    def residual(params, batch):
        u = field(params)

        def u_x(x):
            return jax.jvp(u, (x,), (jnp.ones_like(x),))[1]

        def pointwise(x):
            return jax.jvp(u_x, (x,), (jnp.ones_like(x),))[1] - jnp.exp(x)

        return jnp.mean(jax.vmap(pointwise)(batch["inside"]) ** 2)

    return {"residual": residual, "boundary": boundary}


def training(method: str, network: Network, **kwargs):
    """`start(params)`, and `step(params, state, batch) -> (params, state, losses)`."""
    tx = optax.chain(aggregators.dcgd(), optax.adam(RATE))
    functions = objectives(network, **kwargs)
    start = lambda params: params  # noqa: E731
    if method == "modsync":
        tx = modsync_jax.modsync(
            tx,
            optax.adam(THRESHOLD_RATE),
            sparsity_weight=SPARSITY,
            regularizer=functools.partial(sparsity.sparsity_loss, beta=BETA),
        )
        functions = modsync_jax.mask_objectives(functions)
        start = functools.partial(
            modsync_jax.with_thresholds, num_objectives=2, output_axis=network.output_axis
        )
    value_and_grads = modsync_jax.value_and_objective_grads(functions)

    def step(params, state, batch):
        losses, grads = value_and_grads(params, batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, losses

    def init(params):
        params = start(params)
        return params, tx.init(params)

    return init, step


def trajectory(method: str, network: Network, **kwargs):
    """`run(params, batch) -> (losses [STEPS, 2], params)`, a scan."""
    init, step = training(method, network, **kwargs)

    def run(params, batch):
        def body(carry, _):
            *carry, losses = step(*carry, batch)
            return tuple(carry), losses

        (params, _), losses = jax.lax.scan(body, init(params), length=STEPS)
        return losses, params

    return run


def assert_follows(network: Network, method: str, seed: int, losses, params):
    expected_losses, expected_weights, expected_thresholds = reference(method, seed)
    weights = params.weights if method == "modsync" else params

    def close(got, expected):
        np.testing.assert_allclose(got, expected, atol=1e-10 * np.abs(expected).max(), rtol=0)

    close(losses[:, 0], expected_losses[:, 0])
    close(losses[:, 1], expected_losses[:, 1])
    expected_params = network.params(expected_weights)
    assert jax.tree.structure(weights) == jax.tree.structure(expected_params)
    jax.tree.map(close, weights, expected_params)
    if method == "modsync":
        for i, kernel in enumerate(network.kernels(params.thresholds)):
            close(np.reshape(kernel, (2, -1)), expected_thresholds[f"w{i}"])


# --- the tests ---------------------------------------------------------------------------------

each_method = pytest.mark.parametrize("method", REFERENCES)


@each_method
def test_reference_trains_and_its_masks_matter(x64, method):
    """Else following it would say little."""
    losses, weights, thresholds = reference(method, 0)
    assert losses[-1].sum() < 0.5 * losses[0].sum()
    for name, t in thresholds.items():
        assert np.abs(t[0] - t[1]).max() > 1e-3
        assert ((t[0] - t[1]) ** 2).sum() / BETA < 4.0  # else R_w is guarded
        assert (np.abs(weights[name]) > t.mean(0)).mean() > 0.3  # else the layer may be reset
    if thresholds:
        kept = [(np.abs(weights[name]) > t.mean(0)).ravel() for name, t in thresholds.items()]
        assert np.concatenate(kept).mean() < 0.95


@pytest.mark.long
@each_method
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_follow_the_reference_jitted_scanned_and_mapped_over_seeds(x64, name, method):
    network = NETWORKS[name]()
    params = [network.params(jax.tree.map(jnp.asarray, initial_weights(s))) for s in range(SEEDS)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(points, range(SEEDS)))
    losses, ends = jax.jit(jax.vmap(trajectory(method, network)))(stacked, batches)
    for seed in range(SEEDS):
        end = jax.tree.map(lambda leaf, seed=seed: leaf[seed], ends)
        assert_follows(network, method, seed, losses[seed], end)


def test_python_loop_of_jitted_steps_follows_the_reference(x64):
    network = linen()
    init, step = training("modsync", network)
    params, state = init(network.params(jax.tree.map(jnp.asarray, initial_weights(0))))
    step, batch, history = jax.jit(step), points(0), []
    for _ in range(STEPS):
        params, state, losses = step(params, state, batch)
        history.append(losses)
    assert_follows(network, "modsync", 0, np.stack(history), params)


@pytest.mark.long
@each_method
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_sharded_parameters_follow_the_reference_and_stay_sharded(x64, axis_type, method):
    """Parameters lie over eight devices; with explicit axes the objectives gather them."""
    network = linen()
    mesh = jax.make_mesh((8,), ("units",), axis_types=(axis_type,))

    def gather(params):
        if axis_type == AxisType.Auto:
            return params
        return jax.tree.map(lambda leaf: reshard(leaf, NamedSharding(mesh, P())), params)

    def spec(leaf):
        return P(
            *["units" if n == 8 and i == leaf.ndim - 1 else None for i, n in enumerate(leaf.shape)]
        )

    params = jax.tree.map(
        lambda leaf: jax.device_put(leaf, NamedSharding(mesh, spec(leaf))),
        network.params(initial_weights(0)),
    )
    run = jax.jit(trajectory(method, network, gather=gather))
    with set_mesh(mesh):
        losses, end = run(params, jax.device_put(points(0), NamedSharding(mesh, P())))
    assert_follows(network, method, 0, losses, end)
    kernel = network.kernels(end.weights if method == "modsync" else end)[1]
    assert kernel.addressable_shards[0].data.shape == (8, 1)
