"""Problems by name and from files."""

import pytest

from modsync_jax import problems

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
    assert problems.names() == ("burgers", "helmholtz2d", "klein_gordon2d")
    for name in problems.names():
        assert problems.get(name).name == name


def test_an_unknown_name_gives_the_nearest_and_all():
    message = (
        "unknown problem 'burger'; did you mean 'burgers'?"
        " (known: burgers, helmholtz2d, klein_gordon2d)"
    )
    with pytest.raises(ValueError) as caught:
        problems.get("burger")
    assert str(caught.value) == message


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
