"""Problems on domains that are no boxes: errors, pictures and training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modsync_jax
from modsync_jax import networks, problems
from modsync_jax.calculus import partials
from modsync_jax.geometry import disk, extruded, rectangle
from modsync_jax.problems import Problem, normal_derivative, periodic, value
from modsync_jax.training._solution import field_of

RING = disk(2, x=0, y=0, name="outside") - disk(1, x=0, y=0, name="inside")


def laplace(u, x):
    (laplacian,) = partials(u, x, {"xx": 1.0, "yy": 1.0})
    return {"laplace": laplacian}


def logarithm(points):
    radius = np.linalg.norm(points, axis=1, keepdims=True)
    return np.log2(np.maximum(radius, 1e-9))


def ring():
    """u = log r / log 2 between two circles."""
    return Problem(
        name="ring",
        domain=RING,
        residual=laplace,
        conditions={
            "outside": normal_derivative("outside", 0.5 / np.log(2)),
            "inside": value("inside", 0.0),
        },
        points={"residual": 256, "outside": 64, "inside": 64},
        reference=logarithm,
    )


@pytest.mark.slow
def test_a_ring_is_solved_scored_inside_and_drawn_with_a_hole(tmp_path):
    u = modsync_jax.solve(
        ring(), "sum", width=16, depth=2, steps=300, then="lbfgs(points=4):300",
        learning_rate=3e-3, eval_every=100, checkpoint_every=300, progress=False,
        output_dir=tmp_path / "run",
    )  # fmt: skip
    errors = u.result["errors"]["relative_l2"]
    assert errors["selected"] < 0.02
    with np.load(tmp_path / "run" / "solution.npz") as arrays:
        points, predicted = arrays["points"], arrays["prediction"]
        radius = np.linalg.norm(points, axis=1)
        inside = (radius > 1) & (radius < 2)
        for name in ("prediction", "reference", "residuals"):
            np.testing.assert_array_equal(np.isfinite(arrays[name]).all(1), inside)
    true = logarithm(points[inside])
    own = np.linalg.norm(predicted[inside] - true) / np.linalg.norm(true)
    assert own == pytest.approx(errors["selected"], rel=1e-3)  # float32
    assert (tmp_path / "run" / "figures" / "solution.png").stat().st_size > 10_000


@pytest.mark.long
def test_the_exact_solution_fulfils_the_equation_and_conditions():
    problem = ring()
    batch = problem.sample(jax.random.key(0))
    field = modsync_jax.calculus.Field(
        lambda x: jnp.log2(jnp.sqrt(x[0] ** 2 + x[1] ** 2))[None], problem.coordinates
    )
    for values in problem.pointwise(field, {}, batch).values():
        for residual in values.values():
            np.testing.assert_allclose(residual, 0, atol=2e-5)  # float32


@pytest.mark.long
def test_conditions_on_a_shape_in_time():
    """u = exp(-t) x on a disk: heat with a source, its slope along the normal on the circle."""

    def heat(u, x):
        values, u_t, laplacian = partials(u, x, "", "t", {"xx": 1.0, "yy": 1.0})
        return {"heat": u_t - laplacian + values}

    problem = Problem(
        name="disk",
        domain=extruded(disk(1, x=0, y=0), t=(0, 1)),
        residual=heat,
        conditions={
            "initial": value("t=0", lambda x: x[1]),
            "circle": normal_derivative("circle", lambda x: jnp.exp(-x[0]) * x[1]),
        },
        points={"residual": 64, "initial": 32, "circle": 32},
    )
    batch = problem.sample(jax.random.key(1))
    field = modsync_jax.calculus.Field(lambda x: (jnp.exp(-x[0]) * x[1])[None], ("t", "x", "y"))
    for values in problem.pointwise(field, {}, batch).values():
        for residual in values.values():
            np.testing.assert_allclose(residual, 0, atol=1e-5)  # float32


def test_what_a_shape_can_t_do_is_one_line():
    def on(face, condition=value):
        return Problem(
            name="p", domain=RING | rectangle(x=(0, 3), y=(0, 1)), residual=laplace,
            conditions={"c": condition(face, 0.0) if condition is value else condition(face)},
            points={"residual": 8, "c": 8},
        )  # fmt: skip

    with pytest.raises(ValueError, match=r"p, c: .*unknown face 'outsid'; did you mean 'outside'"):
        on("outsid")
    with pytest.raises(ValueError, match=r"p, c: .*needs a face with an opposite one"):
        on("x=3", periodic)
    assert on("x = 3.0").domain.faces[-4:] == ("x=0", "x=3", "y=0", "y=1")
    assert problems.get("burgers").domain.contains(np.array([[0.5, 0], [2, 0]])).tolist() == [1, 0]


@pytest.mark.slow
def test_a_network_fulfils_conditions_on_faces_exactly(x64):
    """And its derivatives through jets are those of nested differentiation."""
    shape = rectangle(x=(0, 2), y=(0, 1)) - disk(0.2, x=0.5, y=0.5, name="hole")
    network = networks.Constrained(
        networks.MLP(width=6, depth=2, param_dtype=jnp.float64),
        offset=lambda x: jnp.ones(1),
        distance=lambda x: shape.distance(x, "hole", "x=0")[None],
    )
    inside = shape.sample(jax.random.key(0), 40, dtype=jnp.float64)
    variables = network.init(jax.random.key(1), inside[0])
    for face in ("hole", "x=0"):
        points = shape.face(face).sample(jax.random.key(2), 40, dtype=jnp.float64)
        np.testing.assert_allclose(network.apply(variables, points), 1, atol=1e-10)
    field = field_of(network, shape.coordinates, variables)
    found = jax.vmap(lambda x: partials(field, x, {"xx": 1.0, "yy": 1.0})[0])(inside)

    def laplacian(x):
        return jnp.trace(jax.hessian(lambda x: network.apply(variables, x)[0])(x))

    np.testing.assert_allclose(found[:, 0], jax.vmap(laplacian)(inside), rtol=1e-8)
