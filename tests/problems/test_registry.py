"""Problems by name and from files."""

import re
from pathlib import Path

import numpy as np
import pytest

from modsync_jax import problems
from modsync_jax.calculus import Field

FILE = """
from modsync_jax.calculus import partials
from modsync_jax.problems import Problem, value
from modsync_jax.sampling import box

def decay(u, x):
    values, u_t = partials(u, x, "", "t")
    return {"ode": u_t + values}

heat = Problem(name="mine", domain=box(t=(0, 1)), residual=decay,
               conditions={"initial": value("t=0", 1.0)}, points={"residual": 8, "initial": 1})

def make():
    return heat

def decay_of(rate, start=1.0):
    def residual(u, x):
        values, u_t = partials(u, x, "", "t")
        return {"ode": u_t + rate * values}
    return Problem(name="mine", domain=box(t=(0, 1)), residual=residual,
                   conditions={"initial": value("t=0", start)},
                   points={"residual": 8, "initial": 1})

number = 3
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "my_problem.py"
    file.write_text(FILE)
    return str(file)


def test_every_name_gives_the_problem_of_that_name():
    assert {"burgers", "cavity_stream", "helmholtz2d", "wave"} <= set(problems.names())
    for name in problems.names():
        problem = problems.get(name)
        assert problem.name == name
        assert problem.source
        assert problem.reference is not None


def test_the_page_of_problems_lists_every_one_with_its_coefficients():
    page = (Path(__file__).parents[2] / "docs" / "problems.md").read_text()
    (table,) = re.findall(r"^\| name \| equation \| coefficients \|.*?\n\n", page, re.M | re.S)
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|", table, re.MULTILINE)
    assert tuple(name for name, _ in rows) == problems.names()
    for name, coefficients in rows:
        assert re.findall(r"`(\w+)`", coefficients) == list(problems.get(name).coefficients)


def test_an_unknown_name_gives_the_nearest_and_all():
    message = (
        f"unknown problem 'burger'; did you mean 'burgers'? (known: {', '.join(problems.names())})"
    )
    with pytest.raises(ValueError) as caught:
        problems.get("burger")
    assert str(caught.value) == message


def test_coefficients_are_arguments():
    points = np.array([[0.2, 0.3], [0.9, 0.5]])
    t, x = points.T
    problem = problems.get("heat", diffusivity=0.01)
    assert problem.name == "heat"
    assert problem.coefficients == {"diffusivity": 0.01}
    expected = np.exp(-0.01 * np.pi**2 * t) * np.sin(np.pi * x)
    np.testing.assert_allclose(problem.reference(points)[:, 0], expected, rtol=1e-14)  # roundings


def test_a_function_in_a_file_takes_coefficients(path):
    points = np.array([[0.2], [0.7]])
    for coefficients, rate in (({"rate": 3.0}, 3.0), ({"rate": 3.0, "start": 2.0}, 3.0)):
        problem = problems.get(f"{path}:decay_of", **coefficients)
        u = Field(lambda p: p**2, ("t",))
        (values,) = problem.term("residual")(u, {}, points).values()
        t = points[:, 0]
        np.testing.assert_allclose(values, 2 * t + rate * t**2, rtol=1e-5)  # float32
        (start,) = problem.term("initial")(u, {}, np.zeros((1, 1))).values()
        np.testing.assert_array_equal(start, [-coefficients.get("start", 1.0)])


@pytest.mark.parametrize(
    ("name", "coefficients", "message"),
    [
        (
            "burgers",
            {"viscocity": 0.1},
            "unknown coefficient of burgers 'viscocity'; did you mean 'viscosity'?"
            " (known: viscosity)",
        ),
        (
            "cavity_stream",
            {"nu": 0.1},
            "unknown coefficient of cavity_stream 'nu' (known: regularization)",
        ),
        ("heat", {"name": 0.1}, "unknown coefficient of heat 'name' (known: diffusivity)"),
        ("burgers", {"viscosity": 0.0}, "viscosity is 0.0; it must be between 0.001 and 1"),
        ("heat", {"diffusivity": -1}, "diffusivity is -1.0; it must be between 0 and inf"),
        ("wave", {"speed": np.nan}, "speed is nan; it must be between -inf and inf"),
    ],
)
def test_a_coefficient_that_does_not_fit_is_named(name, coefficients, message):
    with pytest.raises(ValueError) as caught:
        problems.get(name, **coefficients)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "coefficients", "message"),
    [
        ("decay_of", {"rat": 1.0}, r"coefficient of decay_of 'rat'; did you mean 'rate'"),
        ("decay_of", {"start": 1.0}, r"decay_of needs a value for its coefficient 'rate'"),
        ("make", {"rate": 1.0}, r"unknown coefficient of make 'rate' \(known: none\)"),
        ("heat", {"rate": 1.0}, r"'heat' in .*my_problem.py is a Problem already.*of rate that"),
    ],
)
def test_a_coefficient_that_does_not_fit_a_file_is_named(path, name, coefficients, message):
    with pytest.raises(ValueError, match=message) as caught:
        problems.get(f"{path}:{name}", **coefficients)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["heat", "make"])
def test_a_file_gives_an_object_or_what_a_function_returns(path, name):
    assert problems.get(f"{path}:{name}").name == "mine"
    assert problems.load(f"{path}:{name}").name == "mine"


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("{}", r"given as 'my_problem.py:name', got"),
        ("{}:", r"given as 'my_problem.py:name', got"),
        ("{}:heet", r"unknown name in .*my_problem.py 'heet'; did you mean 'heat'"),
        ("{}:number", r"'number' in .*my_problem.py is no Problem but int"),
        (
            "nowhere/{0:.0}x.py:heat",
            r"no Python file 'nowhere/x.py' to load the problem 'heat' from",
        ),
    ],
)
def test_a_location_that_does_not_work_is_named(path, location, message):
    with pytest.raises(ValueError, match=message):
        problems.get(location.format(path))
