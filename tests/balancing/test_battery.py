"""One battery for every loss balancing method; a new one is a row of `ROWS`.

A tiny network is trained for 50 steps by the method, the sum and Adam. The method's weights, step
by step, must be those of a NumPy float64 computation of the published rule, which sees the same
gradients, losses and traces and keeps a memory of its own.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import (
    aggregators,
    balancing,
    modsync,
    value_and_objective_grads,
    with_thresholds,
)

STEPS = 50
DTYPES = (np.float32, np.float64)

# Rounding of one step against NumPy on the same inputs: sums of some 30 terms, a softmax of ratios
# over a temperature of 0.1, an Adam of nearly equal moments. It is not multiplied over the steps in
# float64; in float32 the weights' own memory is.
TOLERANCE = {np.float64: 1e-9, np.float32: 2e-3}


# --- the published rules, in NumPy ----------------------------------------------------------------


class Adam:
    """Adam of a vector, bias-corrected (Kingma & Ba 2015)."""

    def __init__(self, rate: float) -> None:
        self.rate, self.m, self.v, self.t = rate, 0.0, 0.0, 0

    def __call__(self, g: np.ndarray) -> np.ndarray:
        self.t += 1
        self.m, self.v = 0.9 * self.m + 0.1 * g, 0.999 * self.v + 0.001 * g**2
        return -self.rate * (self.m / (1 - 0.9**self.t)) / (
            np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8
        )  # fmt: skip


Seen = dict[str, np.ndarray]
Rule = Iterator[Callable[[Seen], np.ndarray]]


def flat(leaves: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([g.reshape(len(g), -1) for g in leaves], axis=1)


def fixed_rule(count):
    return lambda seen: np.arange(1.0, count + 1)


def lra_rule(count, alpha=0.1, weighted=True, kernels=True):
    lam = np.ones(count)

    def rule(seen):
        nonlocal lam
        if seen["step"] % 10 == 0:
            leaves = [np.abs(g) for g in seen["grads"] if not kernels or g.ndim == 3]
            largest = max(g[-1].max() for g in leaves)
            means = flat(leaves).mean(1)
            if kernels:
                means = np.mean([g.reshape(count, -1).mean(1) for g in leaves], axis=0)
            hat = largest / (means * (lam if weighted else 1))
            lam = (1 - alpha) * lam + alpha * hat
            lam[-1] = 1
        return lam

    return rule


def norm_rule(count):
    lam = np.ones(count)

    def rule(seen):
        nonlocal lam
        if seen["step"] % 5 == 0:
            n = np.linalg.norm(flat(seen["grads"]), axis=1)
            lam = 0.9 * lam + 0.1 * n.mean() / n
        return lam

    return rule


def ntk_rule(count):
    lam = np.ones(count)

    def rule(seen):
        nonlocal lam
        if seen["step"] % 7 == 0:
            lam = seen["traces"].sum() / seen["traces"]
        return lam

    return rule


def gradnorm_rule(count):
    lam, initial, adam = np.ones(count), None, Adam(0.025)

    def rule(seen):
        nonlocal lam, initial
        initial = seen["losses"] if initial is None else initial
        n = np.linalg.norm(flat(seen["grads"]), axis=1)
        rates = seen["losses"] / initial
        target = (lam * n).mean() * (rates / rates.mean()) ** 1.5
        lam = np.maximum(lam + adam(np.sign(lam * n - target) * n), 1e-3)
        lam = lam * count / lam.sum()
        return lam

    return rule


def relobralo_rule(count):
    lam, initial, previous = np.ones(count), None, None

    def balanced(losses, past):
        e = np.exp(losses / past / 0.1 - (losses / past / 0.1).max())
        return count * e / e.sum()

    def rule(seen):
        nonlocal lam, initial, previous
        losses = seen["losses"]
        if initial is None:
            initial = losses
        else:
            history = lam if seen["rho"] else balanced(losses, initial)
            lam = 0.8 * history + 0.2 * balanced(losses, previous)
        previous = losses
        return lam

    return rule


def softadapt_rule(count, loss_weighted=False, normalized=False):
    previous = None

    def rule(seen):
        nonlocal previous
        losses, lam = seen["losses"], np.full(count, 1 / count)
        if previous is not None:
            s = losses - previous
            if normalized:
                s = s / np.abs(s).sum()
            e = np.exp(2.0 * s) * (losses if loss_weighted else 1)
            lam = e / e.sum()
        previous = losses
        return lam

    return rule


def self_adaptive_rule(count):
    s, adam = np.ones(count), Adam(1e-3)

    def rule(seen):
        nonlocal s
        lam = s**2
        s = s + adam(-2 * s * seen["losses"])
        return lam

    return rule


@dataclasses.dataclass(frozen=True)
class Row:
    """A method, its rule in NumPy, and what else `update` must be given."""

    make: Callable[[int], optax.GradientTransformationExtraArgs]
    rule: Callable[[int], Callable[[Seen], np.ndarray]]
    needs: str = ""


ROWS = {
    "fixed": Row(lambda k: balancing.fixed(np.arange(1.0, k + 1)), fixed_rule),
    "lra": Row(lambda k: balancing.lra(k, -1), lra_rule),
    "lra, paper's text": Row(
        lambda k: balancing.lra(k, -1, alpha=0.9, weighted=False, mean="entries"),
        functools.partial(lra_rule, alpha=0.9, weighted=False, kernels=False),
    ),
    "ntk": Row(lambda k: balancing.ntk(k, every=7), ntk_rule, "residual_jacobian_traces"),
    "norm": Row(lambda k: balancing.norm_balance(k, every=5), norm_rule),
    "gradnorm": Row(balancing.gradnorm, gradnorm_rule, "losses"),
    "relobralo": Row(
        lambda k: balancing.relobralo(k, alpha=0.8, look_back=0.5), relobralo_rule, "losses"
    ),
    "softadapt": Row(lambda k: balancing.softadapt(k, beta=2.0), softadapt_rule, "losses"),
    "softadapt, weighted and normalized": Row(
        lambda k: balancing.softadapt(k, beta=2.0, loss_weighted=True, normalized=True),
        functools.partial(softadapt_rule, loss_weighted=True, normalized=True),
        "losses",
    ),
    "self-adaptive": Row(balancing.self_adaptive, self_adaptive_rule, "losses"),
}
each_name = pytest.mark.parametrize("name", ROWS)


# --- a small training run -------------------------------------------------------------------------


def setting(count: int, dtype: type, seed: int = 0):
    """Parameters, objectives of different sizes, and their pointwise residuals."""
    rng = np.random.default_rng(seed)
    params = {
        "first": {"kernel": rng.normal(size=(1, 6)), "bias": rng.normal(size=6)},
        "last": {"kernel": rng.normal(size=(6, 1)), "bias": np.zeros(1)},
    }
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)

    def u(p, x):
        h = jnp.tanh(x[:, None] @ p["first"]["kernel"] + p["first"]["bias"])
        return (h @ p["last"]["kernel"] + p["last"]["bias"])[:, 0]

    points = [jnp.linspace(-1, 1, 5 + k, dtype=dtype) for k in range(count)]
    residuals = {
        f"o{k}": lambda p, x, k=k: (3.0**k) * (u(p, x) - jnp.sin((k + 1) * x)) for k in range(count)
    }
    objectives = {
        name: lambda p, k=k, f=f: jnp.mean(f(p, points[k]) ** 2)
        for k, (name, f) in enumerate(residuals.items())
    }
    return params, objectives, residuals, dict(zip(residuals, points, strict=True))


def trajectory(name: str, count: int, dtype: type):
    """Per step: leaves of gradients, losses, traces, ρ, weights and the scaled gradients."""
    params, objectives, residuals, points = setting(count, dtype)
    balance, adam = ROWS[name].make(count), optax.adam(0.03)
    grads_of = value_and_objective_grads(objectives)

    def step(carry, key):
        params, state, adam_state = carry
        losses, grads = grads_of(params)
        traces = balancing.jacobian_traces(residuals, params, points)
        extra = {"losses": losses, "residual_jacobian_traces": traces, "key": key}
        scaled, state = balance.update(grads, state, params, **extra)
        seen = {
            "grads": jax.tree.leaves(grads),
            "losses": losses,
            "traces": traces,
            "rho": jax.random.bernoulli(key, 0.5),
            "weights": optax.tree_utils.tree_get(state, "loss_weights"),
            "scaled": jax.tree.leaves(scaled),
        }
        total = jax.tree.map(lambda g: g.sum(0), scaled)
        moves, adam_state = adam.update(total, adam_state)
        return (optax.apply_updates(params, moves), state, adam_state), seen

    carry = (params, balance.init(params), adam.init(params))
    keys = jax.random.split(jax.random.key(1), STEPS)
    return jax.jit(lambda c, k: jax.lax.scan(step, c, k))(carry, keys)[1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [2, 3])
@each_name
@pytest.mark.long
def test_weights_are_those_of_the_published_rule(x64, name, count, dtype):
    seen = jax.tree.map(lambda x: np.asarray(x, np.float64), trajectory(name, count, dtype))
    rule = ROWS[name].rule(count)
    for step in range(STEPS):
        now = {k: [g[step] for g in v] if isinstance(v, list) else v[step] for k, v in seen.items()}
        expected = rule(now | {"step": step})
        np.testing.assert_allclose(now["weights"], expected, rtol=TOLERANCE[dtype], err_msg=step)
        for scaled, grad in zip(now["scaled"], now["grads"], strict=True):
            rows = expected.reshape(-1, *[1] * (grad.ndim - 1))
            np.testing.assert_allclose(scaled, rows * grad, rtol=2 * TOLERANCE[dtype], atol=1e-30)
    assert name == "fixed" or np.ptp(seen["weights"], axis=0).max() > 1e-3  # weights do move


# --- how they are used ----------------------------------------------------------------------------


def everything(count, dtype=jnp.float32):
    """Extra arguments for any method."""
    return {
        "losses": jnp.arange(1.0, count + 1, dtype=dtype),
        "residual_jacobian_traces": jnp.arange(2.0, count + 2, dtype=dtype),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@each_name
@pytest.mark.long
def test_dtypes_of_gradients_and_state_stay(x64, name, dtype):
    params, objectives, _, _ = setting(2, dtype)
    tx = ROWS[name].make(2)
    state = tx.init(params)
    _, grads = value_and_objective_grads(objectives)(params)
    for _ in range(2):  # a second update finds a state of the same types: it can be scanned
        scaled, new = tx.update(grads, state, params, **everything(2, dtype))
        assert jax.tree.map(lambda x: x.dtype, scaled) == jax.tree.map(lambda x: x.dtype, grads)
        assert jax.tree.map(lambda x: x.dtype, new) == jax.tree.map(lambda x: x.dtype, state)
        state = new


@each_name
@pytest.mark.long
def test_a_map_over_seeds_equals_single_runs(name):
    tx = ROWS[name].make(2)
    stacked = [setting(2, np.float32, seed)[0] for seed in range(3)]
    objectives = value_and_objective_grads(setting(2, np.float32)[1])

    def run(params):
        state = tx.init(params)
        for _ in range(3):
            losses, grads = objectives(params)
            scaled, state = tx.update(
                grads, state, params, losses=losses, residual_jacobian_traces=losses + 1
            )
            params = jax.tree.map(lambda p, g: p - 0.01 * g.sum(0), params, scaled)
        return params

    many = jax.jit(jax.vmap(run))(jax.tree.map(lambda *p: jnp.stack(p), *stacked))
    for index, params in enumerate(stacked):
        one = run(params)
        for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(a[index], b, rtol=1e-3, atol=1e-4)  # float32 over 3 steps


AGGREGATORS = {
    "sum": aggregators.sum,
    "dcgd": aggregators.dcgd,
    "config": aggregators.config,
    "pcgrad": aggregators.pcgrad,
    "cagrad": aggregators.cagrad,
    "mgda": aggregators.mgda,
    "imtl_g": aggregators.imtl_g,
    "aligned_mtl": aggregators.aligned_mtl,
    "chebyshev_center": aggregators.chebyshev_center,
    "upgrad": aggregators.upgrad,
    "dual_proj": aggregators.dual_proj,
    "nash_mtl": aggregators.nash_mtl,
    "grad_drop": aggregators.grad_drop,
}


def updates_of(tx, grads, params, extra):
    return jax.jit(lambda g: tx.update(g, tx.init(params), params, **extra)[0])(grads)


def assert_same(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        # The same operations, fused otherwise: a few roundings of float32.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.long
@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_loss_balancing_chains_before_every_aggregator(aggregator):
    params, objectives, _, _ = setting(2, np.float32)
    _, grads = value_and_objective_grads(objectives)(params)
    make = AGGREGATORS[aggregator]
    scaled = updates_of(balancing.lra(2, 1), grads, params, {})
    got = updates_of(optax.chain(balancing.lra(2, 1), make()), grads, params, {})
    assert_same(got, updates_of(make(), scaled, params, {}))


@each_name
@pytest.mark.long
def test_every_method_chains_and_works_under_modsync(name):
    params, objectives, _, _ = setting(2, np.float32)
    losses, grads = value_and_objective_grads(objectives)(params)
    extra = everything(2) | {"losses": losses}
    scaled = updates_of(ROWS[name].make(2), grads, params, extra)
    chain = optax.chain(ROWS[name].make(2), aggregators.dcgd())
    expected = updates_of(aggregators.dcgd(), scaled, params, {})
    assert_same(updates_of(chain, grads, params, extra), expected)
    both = with_thresholds(params, 2)
    stacked = both._replace(
        weights=grads, thresholds=jax.tree.map(lambda t: jnp.zeros((2, *t.shape)), both.thresholds)
    )
    got = updates_of(modsync(chain), stacked, both, extra)
    assert_same(got.weights, expected)


@pytest.mark.long
@each_name
@pytest.mark.parametrize("what", ["zero gradients", "zero losses", "one objective"])
def test_degenerate_inputs_give_finite_weights(name, what):
    count = 1 if what == "one objective" else 2
    params, objectives, _, _ = setting(count, np.float32)
    losses, grads = value_and_objective_grads(objectives)(params)
    extra = everything(count) | {"losses": losses}
    if what == "zero gradients":
        grads = jax.tree.map(jnp.zeros_like, grads)
        extra["residual_jacobian_traces"] = jnp.zeros(2)
    elif what == "zero losses":
        extra["losses"] = jnp.array([0.0, 1.0])
    tx = ROWS[name].make(count)
    state = tx.init(params)
    for _ in range(12):
        scaled, state = tx.update(grads, state, params, **extra)
        assert all(
            jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((scaled, state.loss_weights))
        )


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.needs])
def test_a_missing_extra_argument_is_named(name):
    params = {"w": jnp.ones(3)}
    tx = ROWS[name].make(2)
    grads = {"w": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match=f"needs '{ROWS[name].needs}': call update"):
        tx.update(grads, tx.init(params), params)


@each_name
def test_another_number_of_objectives_is_an_error(name):
    params = {"w": jnp.ones(3)}
    tx = ROWS[name].make(2)
    with pytest.raises(ValueError, match="are of 3 objectives, but 2 were announced"):
        tx.update({"w": jnp.ones((3, 3))}, tx.init(params), params, **everything(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: balancing.lra(2, 1, alpha=1.5), "alpha is 1.5; it must be between 0 and 1"),
        (lambda: balancing.lra(2, 2), "reference is 2; it must be between -2 and 1"),
        (lambda: balancing.lra(2, 1, mean="median"), "unknown mean 'median'"),
        (lambda: balancing.lra(2, 1, every=0), "every is 0"),
        (
            lambda: balancing.lra(["bc", "residual"], "res"),
            "reference is 'res', but objectives is bc, residual; give",
        ),
        (
            lambda: balancing.lra(2, "residual"),
            "reference is 'residual', but objectives is 2; give",
        ),
        (lambda: balancing.ntk(0), "objectives is 0; it must be 1 or more"),
        (lambda: balancing.ntk("residual"), "objectives is 'residual'; give their number"),
        (lambda: balancing.ntk(["a", "b", "a"]), "or each name once"),
        (lambda: balancing.ntk({}), "or each name once"),
        (lambda: balancing.norm_balance(2, decay=-0.1), "decay is -0.1"),
        (lambda: balancing.gradnorm(2, alpha=-1.0), "alpha is -1.0"),
        (lambda: balancing.relobralo(2, temperature=0.0), "temperature is 0.0"),
        (lambda: balancing.fixed(3.0), r"weights has shape \(\)"),
    ],
)
def test_hyperparameters_out_of_range_are_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_hyperparameters_may_be_traced():
    params, objectives, _, _ = setting(2, np.float32)
    _, grads = value_and_objective_grads(objectives)(params)

    def weights(alpha):
        tx = balancing.lra(2, 1, alpha=alpha)
        return tx.update(grads, tx.init(params), params)[1].loss_weights

    many = jax.vmap(weights)(jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(many[0], 1.0)
    np.testing.assert_allclose(many[1], (many[0] + many[2]) / 2, rtol=1e-5)  # float32


@pytest.mark.parametrize("name", ["lra", "ntk", "norm", "gradnorm", "softadapt", "self-adaptive"])
def test_names_stand_for_their_number(name):
    """The mapping of objectives, in any order, is as good as K and an index."""
    params, objectives, _, _ = setting(2, np.float32)
    losses, grads = value_and_objective_grads(objectives)(params)
    make = {
        "lra": functools.partial(balancing.lra, reference="o1"),
        "ntk": balancing.ntk,
        "norm": functools.partial(balancing.norm_balance, every=5),
        "gradnorm": balancing.gradnorm,
        "softadapt": functools.partial(balancing.softadapt, beta=2.0),
        "self-adaptive": balancing.self_adaptive,
    }[name]
    extra = everything(2) | {"losses": losses}
    named = make(dict(reversed(objectives.items())))
    assert_same(
        updates_of(named, grads, params, extra),
        updates_of(ROWS[name].make(2), grads, params, extra),
    )


def test_the_reference_of_lra_is_the_objective_of_that_name():
    """Its weight stays 1, wherever its name is sorted."""
    params = {"w": jnp.ones((2, 2))}
    grads = {"w": jnp.stack([jnp.full((2, 2), 4.0), jnp.ones((2, 2))])}  # of "a" and "z"
    for reference, expected in (("a", [1.0, 0.9 + 0.1 * 4.0]), ("z", [0.9 + 0.1 / 4.0, 1.0])):
        tx = balancing.lra({"z": None, "a": None}, reference)
        _, state = tx.update(grads, tx.init(params), params)
        np.testing.assert_allclose(state.loss_weights, expected, rtol=1e-6)  # float32


def test_fixed_weights_by_name_are_those_in_sorted_order():
    params, grads = {"w": jnp.ones(3)}, {"w": jnp.ones((2, 3))}
    tx = balancing.fixed({"residual": 1.0, "boundary": 10.0})
    scaled, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(scaled["w"][:, 0], [10.0, 1.0])


@each_name
def test_a_forgotten_aggregator_is_refused_before_parameters_grow_twice(name):
    """The first update can't tell; at the second the parameters are not those of `init`."""
    params, objectives, _, _ = setting(2, np.float32)
    losses, grads = value_and_objective_grads(objectives)(params)
    extra = everything(2) | {"losses": losses}
    tx = optax.chain(ROWS[name].make(2), optax.sgd(0.1))
    updates, state = tx.update(grads, tx.init(params), params, **extra)
    grown = optax.apply_updates(params, updates)
    grads = jax.tree.map(lambda p: jnp.ones((2, *p.shape)), grown)
    with pytest.raises(ValueError, match=r"no aggregator follows the loss balancing; put one bef"):
        tx.update(grads, state, grown, **extra)


def test_moved_names_say_where_they_are():
    for name in ("multi_adam", "per_objective"):
        with pytest.raises(AttributeError, match=f"use modsync_jax.optimizers.{name}"):
            getattr(balancing, name)
    with pytest.raises(AttributeError, match=r"use modsync_jax.balancing.jacobian_traces"):
        balancing.hutchinson_traces  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'lar'"):
        balancing.lar  # noqa: B018
