import matplotlib
import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from modsync_jax import reporting
from modsync_jax.reporting import _figures, _run


def _meshes(figure):
    """The heat maps of a figure, without those of colour bars, by title."""
    found = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    return {
        title: next(c for c in axis.collections if isinstance(c, QuadMesh))
        for title, axis in found.items()
    }


def _curves(axis):
    return {line.get_label(): line.get_xydata() for line in axis.get_lines()}


def _legends_beside(figure):
    """Every legend starts right of its panel, ends inside the figure, and hides no other legend."""
    figure.draw_without_rendering()
    boxes = []
    for axis in figure.axes:
        if (legend := axis.get_legend()) is not None:
            box = legend.get_window_extent()
            assert box.x0 >= axis.get_window_extent().x1
            assert box.x1 <= figure.bbox.x1 and box.y0 >= figure.bbox.y0
            boxes.append(box)
    assert boxes
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("coordinates", [("t", "x"), ("x", "y")])
def test_heat_maps_put_each_value_at_its_point(make_run, coordinates):
    run = _run.read(make_run(coordinates=coordinates))
    maps = _meshes(_figures.solution(run.solution))
    assert list(maps) == ["u, prediction", "u, reference", "u, absolute error"]
    for title, offset in (("u, prediction", 0.5), ("u, reference", 0.0)):
        corners = maps[title].get_coordinates()
        centres = (corners[1:, 1:] + corners[:-1, :-1]) / 2
        expected = centres @ [1.0, 10.0] + offset  # the formula of the solution made by hand
        np.testing.assert_allclose(maps[title].get_array(), expected, atol=1e-12)  # float64 sums
    np.testing.assert_allclose(maps["u, absolute error"].get_array(), 0.5, atol=1e-12)


def test_prediction_and_reference_share_their_colours_and_the_error_has_its_own(make_run):
    maps = _meshes(_figures.solution(_run.read(make_run()).solution))
    assert maps["u, prediction"].get_clim() == maps["u, reference"].get_clim() == (0.0, 21.5)
    assert maps["u, absolute error"].get_clim()[0] == 0
    assert maps["u, absolute error"].get_cmap().name != maps["u, prediction"].get_cmap().name


def test_three_coordinates_are_slices_in_time_that_say_where(make_run):
    run = _run.read(make_run(coordinates=("t", "x", "y"), outputs=("u", "v")))
    maps = _meshes(_figures.solution(run.solution))
    assert len(maps) == 2 * 3 * 3  # outputs, slices, and prediction, reference, error
    last = maps["v, reference\nt = 0.75"]
    corners = last.get_coordinates()
    expected = 0.75 + (corners[1:, 1:] + corners[:-1, :-1]) / 2 @ [10.0, 100.0] + 1
    np.testing.assert_allclose(last.get_array(), expected, atol=1e-12)  # float64 sums


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
    maps = _meshes(_figures.solution(arrays))
    assert list(maps) == [f"u, prediction\nt = {t}, z = 0.5" for t in ("0.25", "0.5", "0.75")]
    assert all((mesh.get_array() == 0.5).all() for mesh in maps.values())


def test_one_coordinate_is_drawn_as_curves(make_run):
    run = _run.read(make_run(coordinates=("x",), outputs=("u", "v")))
    axes = _figures.solution(run.solution).axes
    assert len(axes) == 4
    x = np.linspace(0, 1, 9)
    np.testing.assert_allclose(_curves(axes[2])["prediction"], np.stack([x, x + 1.5], 1))
    np.testing.assert_allclose(_curves(axes[2])["reference"], np.stack([x, x + 1], 1))


@pytest.mark.parametrize("coordinates", [("x",), ("t", "x"), ("x", "y", "z")])
def test_without_reference_only_predictions_are_drawn(make_run, coordinates):
    run = _run.read(make_run(coordinates=coordinates, reference=False))
    figure = _figures.solution(run.solution)
    text = " ".join(a.get_title() + a.get_ylabel() for a in figure.axes)
    assert "error" not in text and "reference" not in text


@pytest.mark.parametrize("coordinates", [("x",), ("t", "x")])
def test_values_that_are_not_finite_are_left_out(make_run, tmp_path, coordinates):
    arrays = dict(_run.read(make_run(coordinates=coordinates)).solution)
    for prediction in (
        np.where(arrays["prediction"] > 1, np.nan, 1),
        arrays["prediction"] * np.inf,
    ):
        arrays["prediction"] = prediction
        assert reporting.draw_solution(arrays, tmp_path / "figure").stat().st_size > 5000


def test_draw_solution_says_what_does_not_fit(make_run, tmp_path):
    arrays = dict(_run.read(make_run()).solution)
    with pytest.raises(ValueError, match=r"prediction has the shape \[63\].* need \[63, 1\]"):
        reporting.draw_solution(arrays | {"prediction": np.zeros(63)}, tmp_path / "x")
    with pytest.raises(ValueError, match=r"no array 'points' .*solution\.npz"):
        del arrays["points"]
        reporting.draw_solution(arrays, tmp_path / "x")
    assert not list(tmp_path.glob("x*"))


def test_history_draws_every_loss_and_marks_the_selected_step(make_run):
    run = _run.read(make_run(result={"selected_step": 300}))
    losses, errors = _figures.history(run).axes
    assert losses.get_yscale() == errors.get_yscale() == "log"
    for label, column in (("total", "loss"), ("residual", "loss/residual")):
        np.testing.assert_array_equal(_curves(losses)[label][:, 1], run.metrics[column])
    for axis, column in ((losses, "loss"), (errors, "test/relative_l2")):
        point = _curves(axis)["selected, step 300"]
        np.testing.assert_array_equal(point, [[300, run.metrics[column][3]]])


def test_history_without_reference_has_no_errors(make_run):
    assert len(_figures.history(_run.read(make_run(reference=False))).axes) == 1


def test_threshold_curves_end_where_the_polish_starts(make_run):
    run = _run.read(make_run(polish_steps=300))
    keep, *thresholds = _figures.sparsity(run).axes
    assert _curves(keep)["layer 1"][-1, 0] == 1100
    assert len(thresholds) == 2
    for axis in thresholds:
        lengths = {len(line.get_xdata()) for line in axis.get_lines()}
        assert lengths == {9, 2}  # rows at 0 to 800, and the line at the start of the polish
    assert "L-BFGS polish" in [text.get_text() for text in keep.texts]


def test_few_cosines_are_curves_and_many_are_rows_of_a_heat_map(make_run, tmp_path):
    run = _run.read(make_run())
    top = _figures.cosine(run).axes[0]
    expected = run.metrics["cosine/boundary~residual"]
    np.testing.assert_array_equal(_curves(top)["boundary · residual"][:, 1], expected)
    (tmp_path / "run").rename(tmp_path / "first")
    run = _run.read(make_run(objectives=("a", "b", "c", "d")))
    top = _figures.cosine(run).axes[0]
    assert [label.get_text() for label in top.get_yticklabels()][:2] == ["a · b", "a · c"]
    assert top.collections[0].get_array().shape == (6, 12)


def test_one_objective_has_gradient_norms_and_no_cosines(make_run):
    assert len(_figures.cosine(_run.read(make_run(objectives=("residual",)))).axes) == 1


@pytest.mark.parametrize("name", ["history", "cosine", "sparsity"])
def test_legends_cover_neither_curves_nor_each_other(make_run, name):
    run = _run.read(make_run(objectives=("a", "b", "c", "d_with_a_long_name"), layers=17))
    with matplotlib.rc_context(_figures.STYLE):
        _legends_beside(getattr(_figures, name)(run))
