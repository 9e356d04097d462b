"""Losses and stacked gradients of objectives, and the Gramian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from modsync_jax import gradients, gramian, value_and_objective_grads

# Both strategies and plain jax.grad run the same primitives in other orders: a few eps = 2e-16.
AGREE = {"rtol": 1e-12, "atol": 1e-14}


def network(params, x):
    return jnp.tanh(x @ params["kernel"] + params["bias"]) @ params["head"] * params["scale"]


def residual(params, x):
    slope = jax.vmap(jax.grad(lambda point: network(params, point)))(x)
    return jnp.mean((slope[:, 0] + network(params, x) * slope[:, 1]) ** 2)


def boundary(params, x):
    return jnp.mean((network(params, x) - jnp.sin(x[:, 0])) ** 2)


def anchor(params, x):
    return jnp.sum(params["bias"] ** 2) + params["scale"] * x[0, 0]


OBJECTIVES = {"residual": residual, "anchor": anchor, "boundary": boundary}  # not in sorted order
NAMES = ["anchor", "boundary", "residual"]


@pytest.fixture
def problem(x64):
    rng = np.random.default_rng(0)
    params = {
        "kernel": jnp.asarray(rng.normal(size=(2, 6))),
        "bias": jnp.asarray(rng.normal(size=6)),
        "head": jnp.asarray(rng.normal(size=6)),
        "scale": jnp.asarray(1.3),
    }
    return params, jnp.asarray(rng.normal(size=(5, 2)))


def as_one_function(params, x):
    return {name: objective(params, x) for name, objective in OBJECTIVES.items()}


def assert_stack_is_plain_gradients(result, params, x):
    losses, grads = result
    for k, name in enumerate(NAMES):
        loss, grad = jax.value_and_grad(OBJECTIVES[name])(params, x)
        np.testing.assert_allclose(losses[k], loss, **AGREE)
        jax.tree.map(lambda s, g, k=k: np.testing.assert_allclose(s[k], g, **AGREE), grads, grad)
    assert losses.shape == (3,)
    for path in params:
        assert grads[path].shape == (3, *params[path].shape)
        assert grads[path].dtype == params[path].dtype


@pytest.mark.parametrize("strategy", ["split", "vmap"])
@pytest.mark.parametrize("objectives", [OBJECTIVES, as_one_function], ids=["mapping", "function"])
def test_losses_and_gradients_are_those_of_each_objective_in_sorted_order(
    problem, objectives, strategy
):
    fn = jax.jit(value_and_objective_grads(objectives, strategy=strategy))
    assert_stack_is_plain_gradients(fn(*problem), *problem)


def flops(fn, *args):
    cost = jax.jit(fn).lower(*args).compile().cost_analysis()
    return (cost[0] if isinstance(cost, list) else cost)["flops"]


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("one_function", [False, True])
def test_objectives_with_points_of_their_own_cost_what_their_sum_costs(
    problem, count, one_function
):
    """By default: no operation of one objective is repeated for another, or done on zeros."""
    params, _ = problem
    x = jnp.asarray(np.random.default_rng(5).normal(size=(count, 40, 2)))
    mapping = {f"o{k}": lambda p, x, k=k: residual(p, x[k]) for k in range(count)}
    objectives = (
        (lambda p, x: {n: f(p, x) for n, f in mapping.items()}) if one_function else mapping
    )
    summed = flops(
        jax.value_and_grad(lambda p, x: sum(f(p, x) for f in mapping.values())), params, x
    )
    # The sum adds K gradients up and the stack does not, which 40 points make small.
    assert 0.95 < flops(value_and_objective_grads(objectives), params, x) / summed < 1.05
    vmap = value_and_objective_grads(objectives, strategy="vmap")
    assert flops(vmap, params, x) / summed > 1.2  # the count would see a repetition


def test_a_shared_forward_pass_is_computed_once(problem):
    params, x = problem

    def losses(p, x):
        u = network(p, x)
        return {f"o{k}": jnp.mean((u - k) ** 2) for k in range(4)}

    def tanhs(fn):
        return jax.jit(fn).lower(params, x).compile().as_text().count(" tanh(")

    assert tanhs(value_and_objective_grads(losses)) == tanhs(lambda p, x: losses(p, x))


@pytest.mark.parametrize("strategy", ["split", "vmap"])
def test_auxiliary_output_of_a_mapping_comes_by_name(problem, strategy):
    params, x = problem
    with_aux = {
        name: lambda p, x, f=f, name=name: (f(p, x), {"seen": x[0], "length": len(name)})
        for name, f in OBJECTIVES.items()
    }
    fn = value_and_objective_grads(with_aux, strategy=strategy, has_aux=True)
    (losses, aux), grads = fn(params, x)
    assert_stack_is_plain_gradients((losses, grads), params, x)
    assert sorted(aux) == NAMES
    for name in NAMES:
        np.testing.assert_array_equal(aux[name]["seen"], x[0])
        assert aux[name]["length"] == len(name)


@pytest.mark.parametrize("strategy", ["split", "vmap"])
def test_auxiliary_output_of_one_function_comes_as_it_is(problem, strategy):
    params, x = problem

    def objectives(p, x):
        return as_one_function(p, x), {"mean": x.mean(), "outputs": network(p, x)}

    fn = value_and_objective_grads(objectives, strategy=strategy, has_aux=True)
    (losses, aux), grads = fn(params, x)
    assert_stack_is_plain_gradients((losses, grads), params, x)
    np.testing.assert_allclose(aux["mean"], x.mean(), **AGREE)
    np.testing.assert_allclose(aux["outputs"], network(params, x), **AGREE)


def test_none_leaves_pass(problem):
    params, x = problem
    fn = value_and_objective_grads({"a": lambda p, x: boundary(p["net"], x)})
    _, grads = fn({"net": params, "static": None}, x)
    assert grads["static"] is None
    assert grads["net"]["kernel"].shape == (1, 2, 6)


def test_unknown_strategy_is_an_error_when_built():
    with pytest.raises(ValueError, match="unknown strategy 'fast'; it is 'split' or 'vmap'"):
        value_and_objective_grads(OBJECTIVES, strategy="fast")


def test_no_objectives_are_an_error_when_built():
    with pytest.raises(ValueError, match="no objectives were given"):
        value_and_objective_grads({})


@pytest.mark.parametrize("strategy", ["split", "vmap"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda w: w**2, r"objective 'pointwise' returned float32\[3\]"),
        (lambda w: jnp.sum(w**2)[None], r"objective 'pointwise' returned float32\[1\]"),
        (lambda w: jnp.argmax(w), r"objective 'pointwise' returned int32\[\]"),
    ],
)
@pytest.mark.parametrize("one_function", [False, True])
def test_objective_that_is_not_a_floating_scalar_is_an_error(strategy, value, said, one_function):
    objectives = (lambda w: {"pointwise": value(w)}) if one_function else {"pointwise": value}
    with pytest.raises(ValueError, match=said):
        value_and_objective_grads(objectives, strategy=strategy)(jnp.ones(3))


@pytest.mark.parametrize("strategy", ["split", "vmap"])
@pytest.mark.parametrize("returned", [jnp.ones(()), {}])
def test_function_that_returns_no_mapping_is_an_error(strategy, returned):
    with pytest.raises(ValueError, match=r"the objectives' function returned .*; it returns a map"):
        value_and_objective_grads(lambda w: returned, strategy=strategy)(jnp.ones(3))


@pytest.mark.parametrize("strategy", ["split", "vmap"])
def test_integer_parameter_is_an_error_that_names_it(strategy):
    params = {"w": jnp.ones(3), "step": jnp.array(4)}
    fn = value_and_objective_grads({"a": lambda p: p["w"].sum()}, strategy=strategy)
    with pytest.raises(TypeError, match="parameter step is int32, not a floating-point array"):
        fn(params)


@pytest.mark.parametrize("strategy", ["split", "vmap"])
def test_unpartitioned_equinox_module_is_an_error_that_says_how_to_partition(strategy):
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(0))
    fn = value_and_objective_grads({"a": lambda m: m(jnp.ones(1))[0]}, strategy=strategy)
    with pytest.raises(TypeError, match=r"activation is .*eqx\.partition\(model, eqx\.is_inexact"):
        fn(model)


# --- the Gramian -------------------------------------------------------------------------------


def dense(grads):
    """`[K, D]`, float64, of a stack of any dtype."""
    leaves = [np.asarray(leaf.astype(jnp.float32), np.float64) for leaf in jax.tree.leaves(grads)]
    return np.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)


def stack(count, dtype, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(), (7,), (16, 8), (3, 2, 8)]
    return [jnp.asarray(rng.normal(size=(count, *s)), dtype) for s in shapes]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_gramian_equals_a_dense_product_and_accumulates_in_float32(count, dtype):
    grads = stack(count, dtype)
    got, expected = gramian(grads), dense(grads) @ dense(grads).T
    assert got.dtype == jnp.float32
    norms = np.sqrt(np.diagonal(expected))
    # Sums of D = 184 products, each rounded to eps = 1.2e-7, relative to the norms; bfloat16 sums
    # would be wrong by 4e-3.
    np.testing.assert_allclose(
        got / np.outer(norms, norms), expected / np.outer(norms, norms), atol=2e-6
    )
    np.testing.assert_array_equal(got, got.T)


def test_gramian_of_float64_is_float64(x64):
    rng = np.random.default_rng(1)
    g = rng.normal(size=(3, 50)) * np.array([[1e-10], [1.0], [1e10]])
    got = gramian({"a": jnp.asarray(g[:, :20].reshape(3, 4, 5)), "b": jnp.asarray(g[:, 20:])})
    norms = np.linalg.norm(g, axis=1)
    np.testing.assert_allclose(
        got / np.outer(norms, norms), (g @ g.T) / np.outer(norms, norms), atol=1e-14
    )


def test_gramian_of_float16_does_not_overflow_where_the_products_would():
    grads = jnp.full((2, 100), 300.0, jnp.float16)  # 300**2 is beyond the largest float16, 65504
    np.testing.assert_allclose(gramian(grads), np.full((2, 2), 9e6), rtol=1e-6)


def test_weighted_sum_keeps_the_dtype_of_each_leaf():
    grads = {"low": jnp.ones((2, 3), jnp.bfloat16), "high": jnp.ones((2, 3))}
    combined = gradients.weighted_sum(jnp.array([0.5, 0.25], jnp.float32), grads)
    assert combined["low"].dtype == jnp.bfloat16
    assert combined["high"].dtype == jnp.float32
    np.testing.assert_array_equal(combined["low"], 0.75)  # exact in bfloat16


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("jit", [False, True])
def test_gramian_and_weighted_sum_of_sharded_leaves(axis_type, jit):
    mesh = jax.make_mesh((4, 2), ("rows", "columns"), axis_types=(axis_type, axis_type))
    grads = stack(3, jnp.float32)
    specs = [
        PartitionSpec(),
        PartitionSpec(),
        PartitionSpec(None, "rows", "columns"),
        PartitionSpec(None, None, None, ("rows", "columns")),
    ]
    sharded = [
        jax.device_put(leaf, NamedSharding(mesh, spec))
        for leaf, spec in zip(grads, specs, strict=True)
    ]
    wrap = jax.jit if jit else (lambda f: f)
    got = wrap(gramian)(sharded)
    expected = dense(grads) @ dense(grads).T
    np.testing.assert_allclose(got, expected, atol=2e-6 * expected.max())  # float32, as above
    weights = jnp.array([0.5, -2.0, 3.0])
    combined = wrap(gradients.weighted_sum)(weights, sharded)
    for whole, part, spec in zip(grads, combined, specs, strict=True):
        np.testing.assert_allclose(part, np.tensordot(weights, whole, 1), atol=1e-5)
        assert part.sharding.is_equivalent_to(
            NamedSharding(mesh, PartitionSpec(*spec[1:])), part.ndim
        )


def test_gramian_under_vmap_is_that_of_each():
    grads = stack(2, jnp.float32)
    batch = jax.tree.map(lambda g: jnp.stack([g, -3.0 * g, g + 1.0]), grads)
    each = [gramian(jax.tree.map(lambda g, i=i: g[i], batch)) for i in range(3)]
    np.testing.assert_allclose(jax.vmap(gramian)(batch), np.stack(each), rtol=1e-5)


@pytest.mark.parametrize(
    "grads", [{}, {"a": jnp.ones(())}, {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 3))}]
)
def test_gramian_of_leaves_without_one_common_leading_axis_is_an_error(grads):
    with pytest.raises(ValueError, match="gradients are not stacked: the leading axes"):
        gramian(grads)


# --- the own objective of loss-indexed parameters ------------------------------------------------


def test_own_objective_takes_the_diagonal():
    grads = jnp.arange(2 * 2 * 3.0).reshape(2, 2, 3)
    own = gradients.own_objective({"t": grads}, {"t": jnp.zeros((2, 3))})
    np.testing.assert_array_equal(own["t"], [grads[0, 0], grads[1, 1]])


def test_own_objective_of_one_shared_row_is_the_sum():
    grads = jnp.arange(3 * 1 * 4.0).reshape(3, 1, 4)
    own = gradients.own_objective(grads, jnp.zeros((1, 4)))
    np.testing.assert_array_equal(own, grads.sum(0))


def test_own_objective_of_another_number_of_rows_is_an_error_with_the_number_to_use():
    for rows, count in ((3, 2), (2, 3)):
        said = rf"indexed by {rows} objectives met gradients of {count}; .*num_objectives={count} "
        with pytest.raises(ValueError, match=said):
            gradients.own_objective(jnp.ones((count, rows, 4)), jnp.ones((rows, 4)))
