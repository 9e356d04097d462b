"""Figures over steps, against the columns that they draw."""

import matplotlib
import numpy as np
import pytest

from modsync_jax.reporting import _drawing, _history, _run


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


def test_history_draws_every_loss_and_marks_the_selected_step(make_run):
    run = _run.read(make_run(result={"selected_step": 300}))
    losses, _, errors = _history.history(run).axes
    assert losses.get_yscale() == errors.get_yscale() == "log"
    for label, column in (("total", "loss"), ("residual", "loss/residual")):
        np.testing.assert_array_equal(_curves(losses)[label][:, 1], run.metrics[column])
    for axis, column in ((losses, "loss"), (errors, "test/relative_l2")):
        point = _curves(axis)["selected, step 300"]
        np.testing.assert_array_equal(point, [[300, run.metrics[column][3]]])


def test_history_shows_each_condition_alone(make_run):
    run = _run.read(make_run())
    terms = _curves(_history.history(run).axes[1])
    for name in ("initial", "left", "right", "residual"):
        np.testing.assert_array_equal(terms[name][:, 1], run.metrics[f"term/{name}"])


def test_terms_that_are_the_losses_themselves_are_not_drawn_twice(make_run):
    terms = ("residual", "left")
    fall = np.geomspace(1, 0.01, 12)
    same = {"loss/boundary": fall, "term/left": fall}
    run = _run.read(make_run(objectives=("boundary", "residual"), terms=terms, columns=same))
    assert [axis.get_ylabel() for axis in _history.history(run).axes] == ["loss", "error"]


@pytest.mark.parametrize("reference", [False, True])
def test_the_star_is_on_the_held_out_loss_where_it_selects(make_run, reference):
    score = np.geomspace(3.0, 0.2, 12)
    settings = {"result": {"selected_step": 300}, "columns": {"score": score}}
    run = _run.read(make_run(reference=reference, **settings))
    terms = _curves(_history.history(run).axes[1])
    np.testing.assert_array_equal(terms["sum, held out"][:, 1], score)
    np.testing.assert_array_equal(terms["selected, step 300"], [[300, score[3]]])
    shown = run.metrics["test/relative_l2"] if reference else score
    np.testing.assert_array_equal(run.outcome, shown)


def test_without_reference_the_star_is_on_the_sum_that_was_the_score(make_run):
    run = _run.read(make_run(reference=False, result={"selected_step": 300}))
    losses, terms = _history.history(run).axes
    total = sum(run.metrics[f"term/{name}"][3] for name in ("residual", "initial", "left", "right"))
    np.testing.assert_allclose(_curves(terms)["selected, step 300"], [[300, total]], rtol=1e-14)
    assert "selected, step 300" not in _curves(losses)


def test_runs_of_format_1_have_losses_and_errors(make_run):
    figure = _history.history(_run.read(make_run(terms=())))
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "error"]


def test_unknowns_have_a_panel_each(make_run):
    run = _run.read(make_run(unknowns={"nu": 0.1, "rho": 3.0}))
    panels = {axis.get_ylabel(): axis for axis in _history.history(run).axes}
    for name in ("nu", "rho"):
        curve, star = (line.get_xydata() for line in panels[f"unknown\n{name}"].get_lines())
        np.testing.assert_array_equal(curve[:, 1], run.metrics[f"unknown/{name}"])
        np.testing.assert_array_equal(star, [[1100, run.metrics[f"unknown/{name}"][-1]]])


def test_the_learning_rate_is_drawn_only_where_it_varies_in_training(make_run):
    constant = np.full(12, 1e-3)
    falling = np.linspace(1e-3, 0, 12)
    in_polish = np.where(np.arange(12) > 8, 0.0, constant)
    for k, (rates, shown) in enumerate(((constant, 0), (falling, 1), (in_polish, 0))):
        columns = {"learning_rate": rates}
        run = _run.read(make_run(name=f"run-{k}", then=300, columns=columns))
        labels = [axis.get_ylabel() for axis in _history.history(run).axes]
        assert labels.count("learning\nrate") == shown


def test_the_running_mean_weighs_rows_by_their_batches_and_leaves_out_what_is_not_finite():
    values = np.array([1.0, 3.0, np.nan, 5.0, 2.0, 8.0, 0.0, 4.0])
    weights = np.array([1.0, 2.0, 9.0, 3.0, 1.0, 2.0, 1.0, 1.0])
    expected = []
    for row in range(8):  # five rows at least: two on either side
        near = [i for i in range(max(row - 2, 0), min(row + 3, 8)) if i != 2]
        expected.append(sum(values[i] * weights[i] for i in near) / sum(weights[i] for i in near))
    found = _history.running_mean(values, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-14)  # float64 sums of five
    assert np.isnan(_history.running_mean(np.full(4, np.nan))).all()


@pytest.mark.long
@pytest.mark.parametrize("terms", [("residual", "left"), ()])
def test_cosines_are_dots_with_a_running_mean_and_the_share_opposed(make_run, terms):
    run = _run.read(make_run(terms=terms))
    top, *others = _history.cosine(run).axes
    column = run.metrics["cosine/boundary~residual"]
    dots, mean = (line.get_ydata() for line in top.get_lines()[:2])
    np.testing.assert_array_equal(dots, column)
    batches = run.metrics["batches"] if terms else np.ones(12)
    np.testing.assert_array_equal(mean, _history.running_mean(column, batches))
    if terms:
        np.testing.assert_array_equal(others[0].get_lines()[0].get_ydata(), np.full(12, 0.05))
    assert len(others) == (2 if terms else 1)


def test_threshold_curves_end_where_the_polish_starts(make_run):
    run = _run.read(make_run(then=300))
    keep, *thresholds = _history.sparsity(run).axes
    assert _curves(keep)["layer 1"][-1, 0] == 1100
    assert len(thresholds) == 2
    for axis in thresholds:
        lengths = {len(line.get_xdata()) for line in axis.get_lines()}
        assert lengths == {9, 2}  # rows at 0 to 800, and the line at the start of the polish
    assert [text.get_text() for text in keep.texts] == ["adam", "lbfgs"]


@pytest.mark.long
def test_many_objectives_are_a_matrix_of_mean_cosines(make_run):
    columns = {f"cosine/{a}~d": np.full(12, 0.1 * k) for k, a in enumerate("abc", 1)}
    columns["opposed/b~c"] = np.where(np.arange(12) < 6, 1.0, 0.0)
    run = _run.read(make_run(objectives=("a", "b", "c", "d"), columns=columns))
    panels = {axis.get_title(): axis for axis in _history.cosine(run).axes}
    cosines, opposed = (
        panels[title].get_images()[0].get_array()
        for title in ("mean cosine", "share of opposed gradients")
    )
    for k in range(3):
        assert cosines[k, 3] == cosines[3, k] == pytest.approx(0.1 * (k + 1))
    # Row 0 stands for one batch, the others for 100; half of all rows are opposed: 501 of 1,101.
    assert opposed[1, 2] == opposed[2, 1] == pytest.approx(501 / 1101)
    written = {text.get_text() for text in panels["mean cosine"].texts}
    assert {"0.10", "0.20", "0.30"} <= written


def test_a_term_has_one_colour_in_all_panels(make_run):
    run = _run.read(make_run())
    losses, terms, _ = _history.history(run).axes
    norms = _history.cosine(run).axes[-1]
    colours = {
        line.get_color()
        for axis in (losses, terms, norms)
        for line in axis.get_lines()
        if line.get_label() == "residual"
    }
    assert len(colours) == 1


def test_a_family_of_measures_that_nobody_knows_has_a_panel(make_run):
    fall = np.geomspace(100.0, 1.0, 12)
    layers = {f"layer_cosine/boundary~residual/Dense_{i}/kernel": fall - i for i in range(14)}
    columns = {
        "own_thing/second": fall, "own_thing/first": 2 * fall, "alone": fall - 50.0,
        "blank": np.full(12, np.nan), **layers,
    }  # fmt: skip
    run = _run.read(make_run(columns=columns))
    figure = _history.measures(run)
    panels = {axis.get_ylabel(): axis for axis in figure.axes if axis.get_ylabel()}
    assert list(panels) == ["alone", "layer cosine", "own thing"]
    assert set(_curves(panels["own thing"])) == {"first", "second"}
    np.testing.assert_array_equal(_curves(panels["own thing"])["first"][:, 1], 2 * fall)
    assert panels["own thing"].get_yscale() == "log" and panels["alone"].get_yscale() == "linear"
    (mesh,) = panels["layer cosine"].collections  # too many for curves
    np.testing.assert_array_equal(
        mesh.get_array()[:, 0], [fall[0] - i for i in range(14)]
    )  # `Dense_2` before `Dense_10`


def test_a_run_without_measures_has_no_picture_of_them(make_run):
    assert not _history.measured(_run.read(make_run()))


def test_one_objective_has_gradient_norms_and_no_cosines(make_run):
    assert len(_history.cosine(_run.read(make_run(objectives=("residual",)))).axes) == 1


@pytest.mark.long
@pytest.mark.parametrize("name", ["history", "cosine", "sparsity"])
def test_legends_cover_neither_curves_nor_each_other(make_run, name):
    run = _run.read(make_run(objectives=("a", "b", "c", "d_with_a_long_name"), layers=17))
    with matplotlib.rc_context(_drawing.STYLE):
        _legends_beside(getattr(_history, name)(run))
