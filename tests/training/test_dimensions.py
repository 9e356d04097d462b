"""Runs in many dimensions: exact and estimated derivatives, errors at random points, pictures."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modsync_jax
from modsync_jax import directions, problems, reporting
from modsync_jax.calculus import Field
from modsync_jax.reporting import _fields, _run
from modsync_jax.training import ConfigError, TrainConfig, _losses, _measure, _solution, _step

SMALL = {
    "width": 6, "depth": 2, "points": {"residual": 16, "initial": 8, "sides": 8}, "chunk": 5,
    "eval_every": 5, "checkpoint_every": 5, "progress": False, "report": False,
    "coefficients": {"dimension": 4},
}  # fmt: skip


@pytest.mark.parametrize("name", ["heat_nd", "poisson_nd"])
def test_errors_are_those_at_random_points_and_the_grid_lies_on_planes(name):
    problem = problems.get(name, dimension=12)
    names = problem.coordinates
    sets = _measure.references(problem, TrainConfig())
    points = np.asarray(sets["test"][0])
    assert points.shape == (2**14, len(names))
    # Uniform: 16,384 points scatter by 0.8% of a standard deviation in each mean; five of that.
    error = np.abs(points.mean(axis=0) - problem.domain.mean) / problem.domain.std
    assert error.max() < 5 / np.sqrt(2**14)
    np.testing.assert_allclose(sets["test"][1], problem.reference(points), rtol=1e-5)
    shapes = _measure.like_references(problem, TrainConfig())
    assert {k: (p.shape, v.shape) for k, (p, v) in shapes.items()} == {
        k: (p.shape, v.shape) for k, (p, v) in sets.items()
    }
    counts = dict(zip(names, _measure.grid_counts(problem), strict=True))
    held = "t" if "t" in names else "x12"
    assert {n: c for n, c in counts.items() if c > 1} == {"x1": 57, "x2": 57, held: 5}


def test_the_grid_fills_four_dimensions():
    box4 = problems.get("heat_nd", dimension=3)
    assert _measure.grid_counts(box4) == (11,) * 4
    assert len(_measure.references(box4, TrainConfig())["test"][0]) == 11**4


def test_losses_are_those_of_the_estimates_that_are_asked_for():
    problem = problems.get("heat_nd", dimension=4)
    batch = problem.sample(jax.random.key(0), {"residual": 16})
    found = {}
    for laplacian in ("exact", "hutchinson:3", "stde:3"):
        config = TrainConfig(width=6, depth=2, laplacian=laplacian)
        network = _step.network_of(problem, config)
        losses = _losses.build(problem, network, config, lambda points: points)
        params = {"network": network.init(jax.random.key(1), jnp.zeros(5)), "unknowns": {}}
        found[laplacian] = losses.terms["residual"](params, batch)
        u = _solution.field_of(network, problem.coordinates, params["network"])
        u = dataclasses.replace(u, directions=directions.read(laplacian))
        residuals = problem.term("residual")(u, {}, batch["residual"])["pde"]
        # 1e-5: float32 roundings of a mean of 16 squares.
        np.testing.assert_allclose(found[laplacian], jnp.mean(residuals**2), rtol=1e-5)
    assert len({round(float(loss), 4) for loss in found.values()}) == 3


@pytest.mark.long
def test_a_run_with_estimates_resumes_to_the_bit_and_reports_exact_residuals(tmp_path):
    folder = tmp_path / "run"
    settings = {**SMALL, "method": "sum", "laplacian": "stde:3"}
    modsync_jax.solve("heat_nd", steps=5, output_dir=folder, **settings)
    again = modsync_jax.solve("heat_nd", steps=10, output_dir=folder, resume=True, **settings)
    unbroken = modsync_jax.solve("heat_nd", steps=10, **settings)
    assert again.metrics == unbroken.metrics
    run = _run.read(folder)
    points, problem = jnp.asarray(run.solution["points"][:7]), problems.get("heat_nd", dimension=4)
    plain = Field(partial(again.network.apply, again.params["network"]), problem.coordinates)
    found = problem.term("residual")(plain, {}, points)["pde"]
    # 1e-6: float32 roundings of numbers of order 1, without jets.
    np.testing.assert_allclose(run.solution["residuals"][:7, 0], found, atol=1e-6)
    # Three values of t; the rest in the middle but for the two that are drawn.
    planes = _fields.planes(run.solution)
    assert [plane.names for plane in planes] == [("x1", "x2")] * 3
    assert [plane.where for plane in planes] == [
        f"t = {t}, x3 = 0.5, x4 = 0.5" for t in ("0.25", "0.5", "0.75")
    ]
    assert all(plane.grid[0].shape == (57, 57) for plane in planes)
    reporting.write_report(folder)
    page = (folder / "report.html").read_text()
    assert "errors above are those at random points of the domain" in page
    sources = (folder / "references.bib").read_text()
    assert "2412.00088" in sources


def test_a_way_that_does_not_exist_is_one_line():
    with pytest.raises(
        ConfigError, match="it must be exact, or a number of directions, hutchinson:16 or"
    ):
        TrainConfig(laplacian="hutchinson")
