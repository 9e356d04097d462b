"""Warm starts: a run that begins with the network of another one."""

import jax
import numpy as np
import pytest

import modsync_jax
from modsync_jax import problems
from modsync_jax.networks import MLP
from modsync_jax.problems import Unknown, UnknownField
from modsync_jax.training import ConfigError, RunError

SMALL = {
    "width": 6, "depth": 2, "points": {"residual": 16}, "chunk": 5, "eval_every": 5,
    "checkpoint_every": 5, "progress": False, "report": False,
}  # fmt: skip
POINTS = np.linspace(0, 1, 9)[:, None]


def solve(*, steps=10, **settings):
    return modsync_jax.solve("poisson1d", steps=steps, **{**SMALL, **settings})


@pytest.fixture(scope="module")
def first():
    return solve()


def first_row(solution):
    return {k: v for k, v in solution.metrics[0].items() if k.startswith("test/")}


@pytest.mark.long
def test_a_run_begins_with_the_network_of_another(first, tmp_path):
    stored = solve(output_dir=tmp_path / "first")
    for init in (first, tmp_path / "first", str(tmp_path / "first")):
        started = solve(init=init, steps=5, learning_rate=1e-30)  # float32: nothing moves
        np.testing.assert_array_equal(started.field(POINTS[3]), stored.field(POINTS[3]))
    again = solve(init=first, coefficients={"frequency": 2.0}, steps=5)
    assert again.metrics[0]["loss"] != stored.metrics[0]["loss"]
    fresh = solve(steps=5)
    assert first_row(fresh) != first_row(started)


@pytest.mark.slow
def test_a_wider_network_begins_with_the_same_field(first):
    wide = solve(init=first, width=9, steps=5, learning_rate=1e-30)
    np.testing.assert_allclose(wide(POINTS), first(POINTS), rtol=1e-5, atol=1e-6)  # float32 sums
    trained = solve(init=first, width=9, steps=100, learning_rate=1e-2)
    assert trained.result["selected_step"] > 0
    kernel = trained.params["network"]["params"]["Dense_1"]["kernel"]
    assert kernel.shape == (9, 9) and np.all(np.asarray(kernel) != 0)  # new units learn


@pytest.mark.long
@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"depth": 3}, "it has other layers"),
        ({"width": 5}, r"Dense_0/bias has the shape \[6\], not \[5\]"),
        ({"network": "modified-mlp"}, "its network is a MLP; the run has a ModifiedMLP of width 6"),
        ({"width": 9, "method": "modsync+dcgd"}, "other widths, which ModSync can't take"),
    ],
)
def test_a_network_that_does_not_fit_is_one_line(first, settings, match):
    with pytest.raises(ConfigError, match=f"init does not fit: .*{match}") as error:
        solve(init=first, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.long
def test_unknowns_are_taken_by_name(first):
    def inverse(start):
        poisson = problems.get("poisson1d")
        return problems.Problem(
            name="inverse", domain=poisson.domain, unknowns={"c": start},
            residual=lambda u, x, c: {"pde": c * u(x)[0]}, points={"residual": 16},
            conditions={"measured": problems.data(POINTS, np.sin(POINTS))},
        )  # fmt: skip

    found = modsync_jax.solve(inverse(0.3), steps=5, **SMALL)
    again = modsync_jax.solve(inverse(9.0), init=found, steps=5, **SMALL)
    assert again.metrics[0]["unknown/c"] == pytest.approx(found.unknowns["c"])


@pytest.mark.long
def test_unknowns_are_taken_by_value():
    """Other bounds have other trained numbers for it."""

    def inverse(**unknowns):
        return problems.Problem(
            name="inverse", domain=problems.get("poisson1d").domain, unknowns=unknowns,
            residual=lambda u, x, c, v, k: {"pde": c * v[0] * u(x) - v[1] * k(x)},
            conditions={}, points={"residual": 16},
        )  # fmt: skip

    k = UnknownField(MLP(width=3, depth=1), of="x", start=1.0, low=0.5)
    first = inverse(c=Unknown(0.3, low=0.0), v=Unknown([2.0, 3.0]), k=k)
    found = modsync_jax.solve(first, steps=5, **SMALL)
    after = inverse(c=Unknown(0.9, low=0.0, high=1.0), v=Unknown([9.0, 9.0], high=50.0), k=k)
    again = modsync_jax.solve(after, init=found, steps=5, **SMALL)
    first_unknowns = {n: v for n, v in again.metrics[0].items() if n.startswith("unknown/")}
    # v is 50 minus an exponential in float32, which rounds 50.
    before = {f"unknown/{n}": v for n, v in found.unknowns.items()}
    assert first_unknowns == pytest.approx(before, rel=1e-5)
    assert list(found.unknowns) == ["c", "k (mean)", "v[0]", "v[1]"]
    outside = inverse(c=Unknown(0.9, low=0.8), v=Unknown([9.0, 9.0]), k=k)
    with pytest.raises(ConfigError, match=r"init does not fit: c: an unknown starts at 0\.2"):
        modsync_jax.solve(outside, init=found, steps=5, **SMALL)


@pytest.mark.long
def test_a_warm_run_resumes_without_its_start_but_not_before_its_first_checkpoint(first, tmp_path):
    run = tmp_path / "run"
    whole = solve(init=first, steps=20, output_dir=tmp_path / "whole")
    solve(init=first, steps=10, output_dir=run)
    longer = solve(steps=20, output_dir=run, resume=True)
    for a, b in zip(jax.tree.leaves(longer.trained), jax.tree.leaves(whole.trained), strict=True):
        np.testing.assert_array_equal(a, b)
    for path in (run / "checkpoints").iterdir():
        for file in sorted(path.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        path.rmdir()
    (run / "checksums.json").unlink()
    (run / "result.json").unlink()
    with pytest.raises(RunError, match="started from a solution; give init again, because no"):
        solve(steps=20, output_dir=run, resume=True)
