"""Measurements: their noise, and their files."""

import re

import jax
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from modsync_jax.calculus import Field
from modsync_jax.problems import Problem, data, read_data
from modsync_jax.sampling import box

RNG = np.random.default_rng(0)
TABLE = {name: RNG.normal(size=20) for name in ("t", "x", "u", "v")} | {
    "su": RNG.uniform(1, 2, 20),
    "sv": RNG.uniform(1, 2, 20),
}


def losses(condition, points=None):
    """Residuals of zero fields u and v, by name."""
    problem = Problem(
        name="p",
        domain=box(t=(0, 1), x=(0, 1)),
        residual=lambda u, x: {"pde": u(x)[0]},
        conditions={"seen": condition},
        points={"residual": 4} | ({"seen": points} if points else {}),
        outputs=("u", "v"),
    )
    batch = problem.sample(jax.random.key(0))
    field = Field(lambda x: 0 * x, ("t", "x"))
    return problem.pointwise(field, {}, batch)["seen"]


def written(tmp_path, ending):
    path = tmp_path / f"table.{ending}"
    if ending == "npz":
        np.savez(path, **TABLE)
    elif ending == "parquet":
        parquet.write_table(pyarrow.table(TABLE), path)
    else:
        rows = np.stack(list(TABLE.values()), axis=1)
        np.savetxt(path, rows, delimiter=",", header=",".join(TABLE), comments="", fmt="%.17g")
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet", "npz"])
def test_files_hold_what_was_measured(ending, tmp_path):
    path = written(tmp_path, ending)
    found = read_data(path, ["t", "x"], ["u", "v"], noise=["su", "sv"])
    np.testing.assert_array_equal(found.points, np.stack([TABLE["t"], TABLE["x"]], axis=1))
    np.testing.assert_array_equal(found.values, np.stack([TABLE["u"], TABLE["v"]], axis=1))
    np.testing.assert_array_equal(found.noise, np.stack([TABLE["su"], TABLE["sv"]], axis=1))
    one = read_data(path, ["t", "x"], ["v"], noise="sv", component="v")
    assert one.component == "v" and one.noise.shape == (20, 1)
    assert read_data(path, ["t", "x"], ["v"]).noise is None


def test_residuals_are_divided_by_the_noise(tmp_path):
    path = written(tmp_path, "npz")
    plain = losses(read_data(path, ["t", "x"], ["u", "v"]))
    np.testing.assert_allclose(plain["u"], -TABLE["u"], rtol=1e-6)
    noisy = losses(read_data(path, ["t", "x"], ["u", "v"], noise=["su", "sv"]))
    for name in ("u", "v"):
        np.testing.assert_allclose(noisy[name], -TABLE[name] / TABLE[f"s{name}"], rtol=1e-6)
    equal = losses(read_data(path, ["t", "x"], ["v"], noise=0.5, component="v"))
    np.testing.assert_allclose(equal["v"], -2 * TABLE["v"], rtol=1e-6)
    each = losses(data(np.zeros((20, 2)), np.ones((20, 2)), noise=[[0.5, 0.25]]), points=5)
    assert each["u"].tolist() == [-2.0] * 5 and each["v"].tolist() == [-4.0] * 5


MISTAKES = {
    "unknown column of PATH 'w'": lambda path: read_data(path, ["t", "x"], ["w"]),
    "table.txt is no .csv, .parquet or .npz file": lambda path: read_data(
        "table.txt", ["t"], ["u"]
    ),
    "none.csv can't be read": lambda path: read_data("none.csv", ["t"], ["u"]),
    "none.npz can't be read": lambda path: read_data("none.npz", ["t"], ["u"]),
    "must be positive numbers": lambda path: read_data(path, ["t"], ["u"], noise=0.0),
    "the noise of data must fit values of the shape (20, 1), got (3,)": lambda path: data(
        np.zeros((20, 2)), np.zeros((20, 1)), noise=[1, 2, 3]
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_one_line(message, tmp_path):
    path = written(tmp_path, "csv")
    with pytest.raises(ValueError, match=re.escape(message.replace("PATH", str(path)))) as caught:
        MISTAKES[message](path)
    assert "\n" not in str(caught.value)


def test_columns_of_text_or_gaps_are_told(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("t,x,u\n0.1,0.2,high\n0.3,0.4,low\n")
    with pytest.raises(ValueError, match=r"column 'u' of .* holds other than numbers"):
        read_data(path, ["t", "x"], ["u"])
    path.write_text("t,x,u\n0.1,0.2,1.0\n0.3,0.4,\n")
    with pytest.raises(ValueError, match="not finite in row 1"):
        read_data(path, ["t", "x"], ["u"])
    path.write_text("t,x,u\n0.1,0.2\n")
    with pytest.raises(ValueError, match=r"table.csv can't be read: "):
        read_data(path, ["t", "x"], ["u"])
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"bad.npz can't be read: "):
        read_data(tmp_path / "bad.npz", ["t"], ["u"])
