import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from modsync_jax import reporting
from modsync_jax.reporting import _fields, _run


def _meshes(figure):
    """The heat maps of a figure, without those of colour bars, by title."""
    found = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    return {
        title: next(c for c in axis.collections if isinstance(c, QuadMesh))
        for title, axis in found.items()
    }


def _curves(axis):
    return {line.get_label(): line.get_xydata() for line in axis.get_lines()}


@pytest.mark.long
@pytest.mark.parametrize("coordinates", [("t", "x"), ("x", "y")])
def test_heat_maps_put_each_value_at_its_point(make_run, coordinates):
    run = _run.read(make_run(coordinates=coordinates))
    maps = _meshes(_fields.solution(run.solution))
    assert list(maps) == ["u, prediction", "u, reference", "u, absolute error"]
    for title, offset in (("u, prediction", 0.5), ("u, reference", 0.0)):
        corners = maps[title].get_coordinates()
        centres = (corners[1:, 1:] + corners[:-1, :-1]) / 2
        expected = centres @ [1.0, 10.0] + offset  # the formula of the solution made by hand
        np.testing.assert_allclose(maps[title].get_array(), expected, atol=1e-12)  # float64 sums
    np.testing.assert_allclose(maps["u, absolute error"].get_array(), 0.5, atol=1e-12)


@pytest.mark.long
def test_prediction_and_reference_share_their_colours_and_the_error_has_its_own(make_run):
    maps = _meshes(_fields.solution(_run.read(make_run()).solution))
    assert maps["u, prediction"].get_clim() == maps["u, reference"].get_clim() == (0.0, 21.5)
    assert maps["u, absolute error"].get_clim()[0] == 0
    assert maps["u, absolute error"].get_cmap().name != maps["u, prediction"].get_cmap().name


@pytest.mark.long
def test_three_coordinates_are_slices_in_time_that_say_where(make_run):
    run = _run.read(make_run(coordinates=("t", "x", "y"), outputs=("u", "v")))
    maps = _meshes(_fields.solution(run.solution))
    assert len(maps) == 2 * 3 * 3  # outputs, slices, and prediction, reference, error
    last = maps["v, reference\nt = 0.75"]
    corners = last.get_coordinates()
    expected = 0.75 + (corners[1:, 1:] + corners[:-1, :-1]) / 2 @ [10.0, 100.0] + 1
    np.testing.assert_allclose(last.get_array(), expected, atol=1e-12)  # float64 sums


def test_of_many_coordinates_one_is_named_beside_the_plane():
    names = ("t", *(f"x{k}" for k in range(1, 8)))
    counts = np.array([5, 3, 4, 1, 1, 1, 1, 1])
    t, x1, x2 = np.meshgrid(*(np.linspace(0, 1, n) for n in counts[:3]), indexing="ij")
    points = np.full((60, 8), 0.5)
    points[:, 0], points[:, 1], points[:, 2] = t.ravel(), x1.ravel(), x2.ravel()
    planes = _fields.planes({"coordinates": np.array(names), "shape": counts, "points": points})
    middle = "the others in the middle"
    assert [plane.where for plane in planes] == [f"t = {k}, {middle}" for k in (0.25, 0.5, 0.75)]
    for plane, time in zip(planes, (0.25, 0.5, 0.75), strict=True):
        assert plane.names == ("x1", "x2")
        np.testing.assert_array_equal(plane.of(points[:, 0]), np.full((3, 4), time))
        np.testing.assert_array_equal(plane.of(points[:, 2]), plane.grid[1])


@pytest.mark.long
def test_more_coordinates_are_held_in_the_middle():
    counts = (3, 5, 3, 3)
    axes = [np.linspace(0, 1, n) for n in counts]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 4)
    arrays = {
        "coordinates": np.array(["x", "t", "y", "z"]),
        "outputs": np.array(["u"]),
        "shape": np.array(counts),
        "points": points,
        "prediction": points[:, 3:],
    }
    maps = _meshes(_fields.solution(arrays))
    assert list(maps) == [f"u, prediction\nt = {t}, z = 0.5" for t in ("0.25", "0.5", "0.75")]
    assert all((mesh.get_array() == 0.5).all() for mesh in maps.values())


@pytest.mark.long
def test_one_coordinate_is_drawn_as_curves(make_run):
    run = _run.read(make_run(coordinates=("x",), outputs=("u", "v")))
    axes = _fields.solution(run.solution).axes
    assert len(axes) == 4
    x = np.linspace(0, 1, 9)
    np.testing.assert_allclose(_curves(axes[2])["prediction"], np.stack([x, x + 1.5], 1))
    np.testing.assert_allclose(_curves(axes[2])["reference"], np.stack([x, x + 1], 1))


@pytest.mark.long
@pytest.mark.parametrize("coordinates", [("x",), ("t", "x"), ("x", "y", "z")])
def test_without_reference_and_residuals_only_predictions_are_drawn(make_run, coordinates):
    run = _run.read(make_run(coordinates=coordinates, reference=False, terms=()))
    figure = _fields.solution(run.solution)
    text = " ".join(a.get_title() + a.get_ylabel() for a in figure.axes)
    assert not any(word in text for word in ("error", "reference", "residual"))


@pytest.mark.long
@pytest.mark.parametrize("coordinates", [("x",), ("t", "x"), ("x", "y", "z")])
def test_without_reference_residuals_stand_where_the_error_would(make_run, coordinates):
    run = _run.read(make_run(coordinates=coordinates, reference=False))
    figure = _fields.solution(run.solution)
    text = " ".join(a.get_title() + a.get_ylabel() for a in figure.axes)
    assert all(name in text for name in run.solution["equations"]) and "error" not in text


@pytest.mark.long
def test_residuals_are_signed_about_zero_and_spikes_do_not_hide_them(make_run):
    arrays = dict(_run.read(make_run()).solution)
    arrays["residuals"][0, 1] = 1e6
    maps = _meshes(_fields.residuals(arrays))
    assert list(maps) == ["mass, residual", "heat, residual"]
    low, high = maps["heat, residual"].get_clim()
    # Of 63 values, the quantile of 99% is 0.38 of the way from the second largest to the largest.
    assert low == -high and high < 0.4 * 1e6
    low, high = maps["mass, residual"].get_clim()
    assert low == -high and 0.49 < high <= 0.5  # t from 0 to 1, less a half
    corners = maps["mass, residual"].get_coordinates()
    centres = (corners[1:, 1:] + corners[:-1, :-1]) / 2
    values = maps["mass, residual"].get_array()
    np.testing.assert_allclose(values, centres[..., 0] - 0.5, atol=1e-12)  # float64 sums


@pytest.mark.long
@pytest.mark.parametrize(
    ("low", "high", "centred"), [(-1, 2, True), (-0.01, 2, False), (0.5, 2, False), (-2, -1, False)]
)
def test_fields_of_both_signs_have_colours_centred_at_zero(make_run, low, high, centred):
    arrays = dict(_run.read(make_run()).solution)
    field = np.linspace(low, high, 63)[:, None]
    arrays |= {"prediction": field, "reference": field}
    mesh = _meshes(_fields.solution(arrays))["u, reference"]
    assert mesh.get_clim() == pytest.approx((-high, high) if centred else (low, high))
    assert (mesh.get_cmap().name == "RdBu_r") == centred


@pytest.mark.long
def test_a_negative_error_does_not_make_a_positive_field_signed(make_run):
    arrays = dict(_run.read(make_run()).solution)
    true = np.linspace(0, 1, 63)[:, None]
    arrays |= {"prediction": true - 0.5, "reference": true}
    mesh = _meshes(_fields.solution(arrays))["u, reference"]
    assert mesh.get_clim() == (-0.5, 1.0) and mesh.get_cmap().name == "viridis"


@pytest.mark.long
@pytest.mark.parametrize(("coordinates", "equal"), [(("x", "y"), True), (("t", "x"), False)])
def test_lengths_have_equal_aspect_and_time_has_not(make_run, coordinates, equal):
    figure = _fields.solution(_run.read(make_run(coordinates=coordinates)).solution)
    panel = next(axis for axis in figure.axes if axis.get_title() == "u, prediction")
    assert panel.get_aspect() == (1.0 if equal else "auto")


@pytest.mark.long
@pytest.mark.parametrize("coordinates", [("t", "x"), ("x", "t")])
def test_slices_show_prediction_and_reference_at_some_times(make_run, coordinates):
    run = _run.read(make_run(coordinates=coordinates, outputs=("u", "v")))
    time = coordinates.index("t")
    scale = 10.0 ** np.arange(2)  # the formula of the solution made by hand
    axes = _fields.slices(run.solution).axes
    assert len(axes) == 2 * 4
    for axis, row in zip(axes, np.repeat((0, 1), 4), strict=True):
        t = float(axes[int(np.flatnonzero([a is axis for a in axes])[0]) % 4].get_title()[4:])
        x, predicted = _curves(axis)["prediction"].T
        expected = t * scale[time] + x * scale[1 - time] + row
        # The title has three digits of t, which is at most 2 and multiplied by at most 10.
        np.testing.assert_allclose(predicted, expected + 0.5, atol=0.05)
        np.testing.assert_allclose(_curves(axis)["reference"][:, 1], expected, atol=0.05)
        assert axis.get_xlabel() == "x"


@pytest.mark.long
def test_points_are_drawn_by_term(make_run):
    run = _run.read(make_run())
    curves = _curves(_fields.points(run.solution).axes[0])
    assert list(curves) == ["residual (5)", "initial (6)", "left (7)", "right (8)"]
    np.testing.assert_array_equal(curves["left (7)"], run.solution["points"][:7])


@pytest.mark.long
@pytest.mark.parametrize("reference", [True, False])
def test_solutions_side_by_side_share_their_scales(make_run, reference):
    solutions = {}
    for k, name in enumerate(("sum", "dcgd", "config", "lra")):
        arrays = dict(_run.read(make_run(name=name, reference=reference)).solution)
        arrays["prediction"] = arrays["prediction"] + 10.0**-k
        arrays["residuals"] = arrays["residuals"] * 10.0**-k
        solutions[name] = arrays
    maps = _meshes(_fields.side_by_side(solutions))
    below = "error of u" if reference else "residual"
    assert len([title for title in maps if title.startswith(below)]) == 4
    assert len({maps[f"u, {name}"].get_clim() for name in solutions}) == 1
    assert len({maps[f"{below}, {name}"].get_clim() for name in solutions}) == 1
    assert ("u, reference" in maps) == reference
    size = 0.5 + 0.1 if reference else None  # the offset made by hand, and that of dcgd
    if size:
        np.testing.assert_allclose(maps[f"{below}, dcgd"].get_array(), size, atol=1e-12)


@pytest.mark.long
def test_solutions_of_one_coordinate_are_curves_side_by_side(make_run):
    solutions = {n: _run.read(make_run(name=n, coordinates=("x",))).solution for n in ("a", "b")}
    values, errors = _fields.side_by_side(solutions).axes
    assert set(_curves(values)) == {"reference", "a", "b"}
    assert errors.get_yscale() == "log"


@pytest.mark.long
@pytest.mark.parametrize("coordinates", [("x",), ("t", "x")])
def test_values_that_are_not_finite_are_left_out(make_run, tmp_path, coordinates):
    arrays = dict(_run.read(make_run(coordinates=coordinates)).solution)
    for prediction in (
        np.where(arrays["prediction"] > 1, np.nan, 1),
        arrays["prediction"] * np.inf,
    ):
        arrays["prediction"] = prediction
        assert reporting.draw_solution(arrays, tmp_path / "figure").stat().st_size > 5000


@pytest.mark.long
def test_draw_solution_says_what_does_not_fit(make_run, tmp_path):
    arrays = dict(_run.read(make_run()).solution)
    with pytest.raises(ValueError, match=r"prediction has the shape \[63\].* need \[63, 1\]"):
        reporting.draw_solution(arrays | {"prediction": np.zeros(63)}, tmp_path / "x")
    with pytest.raises(ValueError, match=r"no array 'points' .*solution\.npz"):
        del arrays["points"]
        reporting.draw_solution(arrays, tmp_path / "x")
    assert not list(tmp_path.glob("x*"))
