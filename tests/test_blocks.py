"""Sums in blocks: the values and derivatives of the plain sum, in the memory of one block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax import blocks

SIZES = [(1, 3), (3, 3), (6, 3), (7, 3), (8, 3), (5, 1), (10, 9), (4, 100)]  # points, block


def misfit(params, points):
    """A sum over measurements: amplitude and wave vector of a sine."""
    return jnp.sum((params["a"] * jnp.sin(points["x"] @ params["k"]) - points["y"]) ** 2)


def exact(params, points):
    """Value and gradient by formulas, in NumPy."""
    phase = points["x"] @ params["k"]
    error = params["a"] * np.sin(phase) - points["y"]
    by_phase = 2 * error * params["a"] * np.cos(phase)
    return np.sum(error**2), {"a": np.sum(2 * error * np.sin(phase)), "k": by_phase @ points["x"]}


def example(count, seed=0):
    rng = np.random.default_rng(seed)
    points = {"x": rng.normal(size=(count, 2)), "y": rng.normal(size=count)}
    return {"a": np.array(rng.normal()), "k": rng.normal(size=2)}, points


@pytest.mark.parametrize(("count", "size"), SIZES)
def test_value_and_gradient_are_those_of_the_formula(x64, count, size):
    params, points = example(count)
    blocked = blocks.summed(misfit, size)
    expected, gradient = exact(params, points)
    # 1e-12: float64 sums of at most ten numbers of order one, with room for cancellation.
    close = {"rtol": 1e-12, "atol": 1e-12}
    value, got = jax.jit(jax.value_and_grad(blocked))(params, points)
    np.testing.assert_allclose(blocked(params, points), expected, **close)
    np.testing.assert_allclose(value, expected, **close)
    np.testing.assert_allclose(got["a"], gradient["a"], **close)
    np.testing.assert_allclose(got["k"], gradient["k"], **close)


def test_every_way_of_differentiation_agrees_with_the_plain_sum(x64):
    params, points = example(11)
    tangent, _ = example(1, seed=1)
    blocked = blocks.summed(misfit, 4)

    def forward(f):
        return jax.jvp(lambda p: f(p, points), (params,), (tangent,))

    def curvature(f):  # forward over reverse
        return jax.jvp(jax.grad(lambda p: f(p, points)), (params,), (tangent,))[1]

    def one_parameter(f):  # the others are constants
        return jax.grad(lambda a: f({**params, "a": a}, points))(params["a"])

    for way in (forward, curvature, one_parameter):
        both = jax.jit(lambda way=way: (way(blocked), way(misfit)))()
        for got, want in zip(*map(jax.tree.leaves, both), strict=True):
            # 1e-11: float64 sums of eleven terms, second derivatives of order ten.
            np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11, err_msg=way.__name__)


def test_maps_over_parameters_and_over_what_the_function_closes_over(x64):
    """The scale is a tracer of every kind, and derivatives by it are derivatives too."""
    params, points = example(10)
    scales = jnp.array([0.5, 1.0, 2.0])

    def total(scale, shift):
        moved = {**params, "a": params["a"] + shift}
        return blocks.summed(lambda p, x: scale * misfit(p, x), 4)(moved, points)

    def grads(transform):
        return jax.vmap(transform(jax.grad(total, argnums=(0, 1))))(scales, jnp.arange(3.0))

    def grad_of_mapped(scales, shifts):
        return jnp.sum(jax.jit(jax.vmap(total))(scales, shifts))

    expected = [exact({**params, "a": params["a"] + shift}, points) for shift in range(3)]
    by_scale = [value for value, _ in expected]
    by_shift = [float(s) * g["a"] for s, (_, g) in zip(scales, expected, strict=True)]
    outside = jax.grad(grad_of_mapped, argnums=(0, 1))(scales, jnp.arange(3.0))
    for got in (grads(lambda f: f), grads(jax.jit), outside):
        np.testing.assert_allclose(got, (by_scale, by_shift), rtol=1e-12)  # float64, ten terms


def network(params, points):
    """Sum of squares of a network whose width makes activations outweigh everything else."""
    h = points
    for kernel in params:
        h = jnp.tanh(h @ kernel)
    return jnp.sum(h**2)


KERNELS = [jax.ShapeDtypeStruct((32, 32), jnp.float32)] * 3


def temporary_bytes(function, count):
    points = jax.ShapeDtypeStruct((count, 32), jnp.float32)
    compiled = jax.jit(jax.value_and_grad(function)).lower(KERNELS, points).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_is_that_of_a_block_however_many_points():
    few, many = 2**10, 2**15
    assert temporary_bytes(network, many) > 16 * temporary_bytes(network, few)
    blocked = blocks.summed(network, few)
    # One block costs what the plain sum of so many points costs, and the sums of gradients.
    assert temporary_bytes(blocked, many) < 2 * temporary_bytes(network, few)
    assert temporary_bytes(blocked, many) < 1.1 * temporary_bytes(blocked, 2 * few)


def test_nothing_is_computed_twice():
    points = jax.ShapeDtypeStruct((64, 32), jnp.float32)

    def products(function):
        return str(jax.make_jaxpr(function)(KERNELS, points)).count("dot_general")

    blocked = blocks.summed(network, 16)
    assert products(blocked) == products(network) == 3
    assert products(jax.grad(blocked)) == products(jax.grad(network)) == 8


def test_a_derivative_by_the_points_is_refused():
    params, points = example(6)
    with pytest.raises(TypeError, match="no derivative by its points; use larger blocks"):
        jax.grad(blocks.summed(misfit, 2), argnums=1)(params, points)
    whole = jax.grad(blocks.summed(misfit, 6), argnums=1)(params, points)
    assert np.all(whole["y"] != 0)


def test_a_block_has_a_point():
    with pytest.raises(ValueError, match="at least 1 point, got size=0"):
        blocks.summed(misfit, 0)
    assert blocks.default_size() >= 1
