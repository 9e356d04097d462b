"""Each kind of condition on small analytic fields, whose derivatives are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax.calculus import Field, partials
from modsync_jax.problems import (
    Problem,
    data,
    derivative,
    normal_derivative,
    periodic,
    robin,
    value,
)
from modsync_jax.sampling import box

ROUNDING = 1e-5  # float32: a few roundings of values of order 10


def problem_with(condition, outputs=("u",), points=None, **others):
    return Problem(
        name="test",
        domain=box(t=(0, 1), x=(0, 2)),
        residual=lambda u, x: {"pde": partials(u, x, "t")[0][:1]},
        conditions={"side": condition},
        points={"residual": 4, "side": 16} if points is None else points,
        outputs=outputs,
        **others,
    )


def residuals(condition, u, **others):
    problem = problem_with(condition, **others)
    batch = problem.sample(jax.random.key(0))
    return batch["side"], problem.term("side")(Field(u, ("t", "x")), {}, batch["side"])


def product(p):  # u = (1 + t²) x³
    return ((1 + p[0] ** 2) * p[1] ** 3)[None]


@pytest.mark.parametrize(
    ("condition", "label", "expected"),
    [
        (value("x=2", 3.0), "u", lambda t, x: (1 + t**2) * 8 - 3),
        (value("x=2", lambda p: p[0]), "u", lambda t, x: (1 + t**2) * 8 - t),
        (value("x=2", lambda p: p[:1]), "u", lambda t, x: (1 + t**2) * 8 - t),
        (derivative("t=1", "t", lambda p: p[1]), "u_t", lambda t, x: 2 * x**3 - x),
        (derivative("t=1", "xx", 0.0), "u_xx", lambda t, x: 12 * x),
        (normal_derivative("x=2", 1.0), "u_n", lambda t, x: (1 + t**2) * 12 - 1),
        (normal_derivative("t=1", 0.0), "u_n", lambda t, x: 2 * x**3),
        (robin("x=2", 2.0, -0.5, 1.0), "u", lambda t, x: (1 + t**2) * (2 * 8 - 0.5 * 12) - 1),
    ],
)
def test_a_condition_on_a_face_is_operator_minus_target(condition, label, expected):
    points, values = residuals(condition, product)
    assert list(values) == [label]
    assert values[label].shape == (16,)
    np.testing.assert_allclose(values[label], expected(*np.asarray(points).T), rtol=ROUNDING)


def test_the_normal_points_outward_on_lower_faces_too():
    def slope(p):
        return 3 * p[1:] + 5 * p[:1]

    for face, expected in {"x=0": -3, "x=2": 3, "t=0": -5, "t=1": 5}.items():
        _, values = residuals(normal_derivative(face, 0.0), slope)
        np.testing.assert_allclose(values["u_n"], expected, rtol=ROUNDING)
        _, values = residuals(robin(face, 0.0, 2.0, 0.0), slope)
        np.testing.assert_allclose(values["u"], 2 * expected, rtol=ROUNDING)


@pytest.mark.parametrize("face", ["x=0", "x=2"])
def test_periodic_compares_value_and_derivatives_across(face):
    def periodic_field(p):
        return jnp.sin(jnp.pi * p[1:] + p[:1])

    _, values = residuals(periodic(face, order=2), periodic_field)
    assert sorted(values) == ["u", "u_x", "u_xx"]
    for vector in values.values():
        # float32: sin of an argument up to 7, times π².
        np.testing.assert_allclose(vector, 0, atol=1e-4)
    side = 1 if face == "x=2" else -1
    points, values = residuals(periodic(face), product)
    growth = side * (1 + np.asarray(points)[:, 0] ** 2)
    np.testing.assert_allclose(values["u"], 8 * growth, rtol=ROUNDING)
    np.testing.assert_allclose(values["u_x"], 12 * growth, rtol=ROUNDING)
    assert sorted(residuals(periodic(face, order=0), product)[1]) == ["u"]


def test_a_component_is_chosen_by_name():
    def flow(p):
        return jnp.stack([p[0], p[1] ** 2, p[0] * p[1]])

    names = ("u", "v", "p")
    points, values = residuals(value("x=2", lambda p: p[0], "v"), flow, outputs=names)
    assert list(values) == ["v"]
    np.testing.assert_allclose(values["v"], 4 - points[:, 0], rtol=ROUNDING)
    points, values = residuals(value("x=2", lambda p: jnp.zeros(3)), flow, outputs=names)
    assert sorted(values) == ["p", "u", "v"]
    np.testing.assert_allclose(values["p"], 2 * points[:, 0], rtol=ROUNDING)
    assert sorted(residuals(normal_derivative("x=2", 0.0), flow, outputs=names)[1]) == [
        "p_n",
        "u_n",
        "v_n",
    ]


def test_data_gives_all_measurements_or_a_random_minibatch_without_repeats():
    grid = box(t=(0, 1), x=(0, 2)).grid((5, 4))
    measured = np.asarray(jax.vmap(product)(jnp.asarray(grid))) + 0.5
    condition = data(grid, measured)
    everything, values = residuals(condition, product, points={"residual": 4})
    assert everything["point"].shape == (20, 2)
    np.testing.assert_allclose(values["u"], -0.5, rtol=1e-4)  # a difference of values up to 16
    few = problem_with(condition, points={"residual": 4, "side": 7})
    first, second = (few.sample(jax.random.key(seed))["side"] for seed in (0, 1))
    assert first["point"].shape == (7, 2)
    assert first["value"].shape == (7, 1)
    assert len(np.unique(first["point"], axis=0)) == 7
    assert not np.array_equal(first["point"], second["point"])
    np.testing.assert_allclose(
        few.term("side")(Field(product, ("t", "x")), {}, first)["u"], -0.5, rtol=1e-4
    )
    enough = problem_with(condition, points={"residual": 4, "side": 99})
    assert enough.sample(jax.random.key(0))["side"]["point"].shape == (20, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: value("x=1", 0.0), r"test, side: unknown face 'x=1'.*known: boundary, t=0"),
        (lambda: value("x=2", lambda p: p), r"target must have shape \(1,\).*but has \(2,\)"),
        (lambda: value("x=2", lambda p: p[:, None]), r"target must have shape \(1,\)"),
        (lambda: value("x=2", 0.0, "w"), r"unknown component 'w'.*known: u"),
        (lambda: derivative("t=0", "y", 0.0), r"unknown coordinate 'y'.*known: t, x"),
        (
            lambda: data(np.zeros((3, 1)), np.zeros((3, 1))),
            r"points of the coordinates t, x, got shape",
        ),
        (lambda: data(np.zeros((3, 2)), np.zeros((3, 2))), r"target must have shape \(1,\)"),
    ],
)
def test_a_condition_that_does_not_fit_is_named_when_the_problem_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        problem_with(make())


def test_a_condition_that_cannot_fit_is_named_when_it_is_made():
    with pytest.raises(ValueError, match=r"got shapes \(3, 2\) and \(3,\)"):
        data(np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(
        ValueError, match="order of a periodic condition must be at least 0, got -1"
    ):
        periodic("x=0", order=-1)


def test_a_face_needs_a_number_of_points():
    with pytest.raises(ValueError, match="'x=2' needs a number of points"):
        problem_with(value("x=2", 0.0), points={"residual": 4})


@pytest.mark.parametrize("shape", [(), (2,), (1, 1)])
def test_a_field_of_another_shape_cannot_broadcast(shape):
    with pytest.raises(ValueError, match=r"field must return shape \(1,\) at a point"):
        residuals(value("x=2", 0.0), lambda p: jnp.full(shape, p[0]))


def test_data_without_points_or_with_nan_is_refused():
    with pytest.raises(ValueError, match="data has no points; give at least one"):
        data(np.zeros((0, 2)), np.zeros((0, 1)))
    with pytest.raises(ValueError, match="not finite in row 1"):
        data(np.zeros((2, 2)), np.array([[0.0], [np.nan]]))
