"""Grids, and the groups that share a program."""

import itertools

import numpy as np
import pytest

from modsync_jax import sweeps
from modsync_jax.sweeps import _grid
from modsync_jax.training import ConfigError


def test_a_grid_is_read_with_the_types_of_its_settings():
    text = "width=64,128; seed=0..3 ;learning_rate=1e-3,3e-4;loss_weights.boundary=1,10"
    assert sweeps.parse(text) == {
        "width": [64, 128],
        "seed": [0, 1, 2, 3],
        "learning_rate": [1e-3, 3e-4],
        "loss_weights.boundary": [1.0, 10.0],
    }
    assert sweeps.parse("network=mlp,piratenet;factorized=true,false") == {
        "network": ["mlp", "piratenet"],
        "factorized": [True, False],
    }
    assert sweeps.parse("cagrad.c=0.2,0.4;lra.every=5;dcgd.variant=avg") == {
        "cagrad.c": [0.2, 0.4],
        "lra.every": [5],
        "dcgd.variant": ["avg"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "widht=3": "unknown setting 'widht'; did you mean 'width'?",
        "width": "'width' is not name=value,value",
        "width=": "'width=' is not name=value",
        "width=a": "width has the value 'a'; it takes whole numbers, or 0..31",
        "beta=x": "beta has the value 'x'; it takes numbers",
        "factorized=maybe": "it takes true or false",
        "width=1;width=2": "width is given twice",
        "method=sum": "give --methods=",
        "loss_weights=1": "'loss_weights' must be one of its keys, loss_weights.NAME=",
        "beta.x=1": "'beta.x' must be beta=",
        "": "grid is empty; give axes such as seed=0..7",
        "seed=0..100000000": "seed has 100,000,001 values; at most 1,000,000",
        "cagrad.radius=1": "unknown hyperparameter of cagrad 'radius'",
        "cagrad.c=x": "cagrad.c has the value 'x'; it takes numbers",
    }.items(),
)
def test_mistakes_in_a_grid_are_one_clear_line(text, message):
    with pytest.raises(ConfigError, match=r"^grid") as error:
        sweeps.parse(text)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("methods", "grid", "message"),
    [
        (["sum"], {"width": []}, "width needs values"),
        (["sum", "sum"], {}, "method needs values, each once"),
        (["sum"], {"seed": [1, 1]}, "seed needs values, each once"),
        (["sum"], {"width": [0]}, "width is 0; it must be 1 or more"),
        (["smu"], {}, "did you mean 'sum'"),
        (["sum"], {"cagrad.c": [0.1]}, "none of the methods sum has cagrad.c"),
        (["sum"], {"seed": range(2000), "width": range(1, 1000)}, "1,998,000 networks are too"),
    ],
)
def test_grids_that_can_not_be_run_are_an_error(methods, grid, message):
    with pytest.raises(ConfigError, match=message):
        sweeps.check(methods, grid, {})


def test_replicas_are_the_product_and_know_all_their_settings():
    grid = {"width": [8, 16], "loss_weights.boundary": [1.0, 2.0], "seed": range(2)}
    found = _grid.replicas(["sum", "dcgd"], grid, {"depth": 3, "loss_weights": {"residual": 5.0}})
    expected = list(itertools.product(["sum", "dcgd"], [8, 16], [1.0, 2.0], range(2)))
    assert [tuple(replica.point.values()) for replica in found] == expected
    for replica, (method, width, weight, seed) in zip(found, expected, strict=True):
        config = replica.config
        assert (config.method, config.width, config.seed, config.depth) == (method, width, seed, 3)
        assert config.loss_weights == {"residual": 5.0, "boundary": weight}
    assert len({replica.name for replica in found}) == len(found)


def test_a_hyperparameter_is_an_axis_of_the_methods_that_have_it():
    grid = {"seed": [0, 1], "cagrad.c": [0.2, 0.4], "lra.every": [5, 10]}
    found = _grid.replicas(["dcgd", "lra+cagrad(rescale=True)"], grid, {})
    assert [replica.config.method for replica in found[:3]] == [
        "dcgd",
        "dcgd",
        "lra(every=5)+cagrad(rescale=True,c=0.2)",
    ]
    assert len(found) == 2 + 2 * 2 * 2 and len({replica.name for replica in found}) == len(found)
    groups = _grid.groups(found)
    # c is a number that a program can vary; how often weights are renewed is not.
    assert sorted(group.numbers for group in groups) == [("seed",)] + [("seed", "cagrad.c")] * 2


def test_groups_share_all_that_is_not_a_number_and_the_largest_comes_first():
    grid = {
        "width": [8, 64],
        "beta": [0.1, 0.3],
        "seed": range(4),
        "sampler": ["uniform", "low-discrepancy"],
    }
    found = _grid.replicas(["sum", "dcgd"], grid, {})
    groups = _grid.groups(found)
    assert len(groups) == 2 * 2 * 2
    assert [group.config.width for group in groups] == [64] * 4 + [8] * 4
    members = [replica.name for group in groups for replica in group.replicas]
    assert sorted(members) == sorted(replica.name for replica in found)
    for group in groups:
        assert set(group.numbers) == {"beta", "seed"}
        shared = {(r.config.method, r.config.width, r.config.sampler) for r in group.replicas}
        assert len(shared) == 1
        np.testing.assert_array_equal(group.values()["beta"], [0.1] * 4 + [0.3] * 4)
        np.testing.assert_array_equal(group.values()["seed"], [0, 1, 2, 3] * 2)
    assert len({group.folder for group in groups}) == len(groups)


def test_numbers_that_a_program_can_not_vary_make_groups():
    grid = {"coefficients.viscosity": [0.01, 0.1], "beta": [0.3], "seed": [0, 1]}
    found = _grid.replicas(["sum"], grid, {})
    (one,) = _grid.groups(found)
    assert one.numbers == ("coefficients.viscosity", "seed")  # beta is the same for all
    two = _grid.groups(found, fixed={"coefficients.viscosity"})
    assert [group.numbers for group in two] == [("seed",)] * 2
    assert [group.config.coefficients["viscosity"] for group in two] == [0.01, 0.1]


def test_work_grows_with_replicas_steps_depth_and_the_square_of_the_width():
    def first(*settings):
        sets = [_grid.replicas(["sum"], grid, {"steps": 500, **more}) for grid, more in settings]
        return _grid.groups([replica for found in sets for replica in found])[0].config

    # 32² · 2 is more than 8² · 16, 3 · 8² than 10², 2 · 8² than 10², 4 · 500 than 1500.
    deep, wide = ({"width": [8]}, {"depth": 16}), ({"width": [32]}, {"depth": 2})
    assert first(deep, wide).width == first(wide, deep).width == 32
    many, few = ({"width": [8], "seed": range(3)}, {}), ({"width": [10]}, {})
    assert first(many, few).width == first(few, many).width == 8
    long, short = ({"width": [8]}, {"steps": 1000}), ({"width": [10]}, {})
    assert first(long, short).width == first(short, long).width == 8


def test_groups_of_other_replicas_have_other_folders():
    """A grid that has grown keeps what was trained."""
    found = _grid.replicas(["sum"], {"width": [8], "seed": range(4)}, {})
    one, grown = (_grid.groups(members)[0] for members in (found[:2], found))
    assert one.label == grown.label and one.folder != grown.folder
    assert one.folder == _grid.groups(found[:2])[0].folder


def test_axes_of_one_mapping_and_its_fixed_entries_are_set_together():
    grid = {"loss_weights.boundary": [2.0], "loss_weights.data": [3.0]}
    (replica,) = _grid.replicas(["sum"], grid, {"loss_weights": {"residual": 5.0}})
    assert replica.config.loss_weights == {"boundary": 2.0, "data": 3.0, "residual": 5.0}
