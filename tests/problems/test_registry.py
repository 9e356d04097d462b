"""Problems by name and from files."""

import re
from pathlib import Path

import jax
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


def test_the_page_of_problems_lists_every_one():
    page = (Path(__file__).parents[2] / "docs" / "problems.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert tuple(listed) == problems.names()


def test_an_unknown_name_gives_the_nearest_and_all():
    message = (
        f"unknown problem 'burger'; did you mean 'burgers'? (known: {', '.join(problems.names())})"
    )
    with pytest.raises(ValueError) as caught:
        problems.get("burger")
    assert str(caught.value) == message


@pytest.mark.parametrize("frequency", [1.0, 30.0])
def test_a_frequency_of_poisson_s_equation_is_an_argument_and_in_the_name(tmp_path, frequency):
    (tmp_path / "mine.py").write_text(
        "from modsync_jax.problems import poisson1d\n"
        f"fast = poisson1d.problem(frequency={frequency})\n"
    )
    problem = problems.get(f"{tmp_path / 'mine.py'}:fast")
    assert problem.name == f"poisson1d_{frequency:.0f}"  # another run than that of the default
    x = np.linspace(0, 1, 11)[:, None]
    # 1e-14: one rounding of the argument, up to 30.
    np.testing.assert_allclose(problem.reference(x), np.sin(frequency * x), atol=1e-14)
    u = Field(lambda p: p**2, ("x",))
    batch = jax.device_get(problem.sample(jax.random.key(0)))
    values = {name: problem.term(name)(u, {}, points) for name, points in batch.items()}
    x = np.asarray(batch["residual"], np.float64)[:, 0]
    # u'' - f = 2 + C² sin(Cx), u(1) = 1; float32 roundings of C².
    expected = 2 + frequency**2 * np.sin(frequency * x)
    np.testing.assert_allclose(values["residual"]["pde"], expected, atol=1e-5 * frequency**2)
    np.testing.assert_allclose(values["right"]["u"], 1 - np.sin(frequency), atol=1e-5)
    np.testing.assert_array_equal(values["left"]["u"], 0.0)


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
