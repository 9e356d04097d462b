import numpy as np
import pytest

from modsync_jax.reporting import _run, _verdict

ROWS = 20
FLAT = np.full(ROWS, 0.05)


def _findings(folder):
    return {text: level for level, text in _verdict.findings(_run.read(folder))}


def _level(findings, beginning):
    matching = [level for text, level in findings.items() if text.startswith(beginning)]
    assert len(matching) == 1, findings
    return matching[0]


def _errors(value):
    kinds = ("selected", "smallest", "final", "median_of_last_ten")
    return {name: dict.fromkeys(kinds, value) for name in ("relative_l2", "mean_absolute")}


def test_the_headline_says_what_how_well_and_when(make_run):
    run = _run.read(make_run(result={"errors": _errors(0.0091), "selected_step": 900}))
    assert _verdict.headline(run) == (
        "heat by modsync+dcgd: relative L2 error 9.10e-3 at step 900 of 1,100"
    )


def test_the_headline_names_given_coefficients(make_run):
    run = _run.read(make_run(config={"coefficients": {"diffusivity": 0.02}}))
    assert _verdict.headline(run).startswith("heat (diffusivity 0.02) by modsync+dcgd: ")


def test_without_reference_the_loss_is_the_headline(make_run):
    terms = ("residual", "left")  # at the end 0.01, and half of it
    run = _run.read(make_run(reference=False, terms=terms))
    assert "unweighted loss 0.0150 at step 1,100 of 1,100" in _verdict.headline(run)
    assert _level(dict(map(reversed, _verdict.findings(run))), "There is no reference") == "note"
    run = _run.read(make_run(name="old", reference=False, terms=()))
    assert "total loss 0.0200 at step 1,100 of 1,100" in _verdict.headline(run)


@pytest.mark.parametrize(
    ("error", "beginning", "level"),
    [(0.0099, "Solved", "ok"), (0.02, "Rough", "note"), (0.1, "Not solved", "bad")],
)
def test_the_outcome_follows_the_error(make_run, error, beginning, level):
    assert _level(_findings(make_run(result={"errors": _errors(error)})), beginning) == level


@pytest.mark.parametrize(
    ("last_fifth", "beginning", "level"),
    [(0.04, "Still improving", "note"), (0.06, "Getting worse", "note"), (0.048, "Settled", "ok")],
)
def test_the_trend_compares_the_last_two_fifths(make_run, last_fifth, beginning, level):
    error = np.where(np.arange(ROWS) >= 16, last_fifth, FLAT)
    error[[2, 13, 17]] = 1.0  # single spikes do not change a median
    findings = _findings(make_run(rows=ROWS, columns={"test/relative_l2": error}))
    assert _level(findings, beginning) == level


def test_too_few_rows_have_no_trend(make_run):
    assert (
        _level(_findings(make_run(rows=2)), "Too few evaluations to tell a trend: 2, and") == "note"
    )


@pytest.mark.parametrize(
    ("final", "beginning", "level"),
    [
        (0.2, "The final error is 4.00 times the selected one (more than 1.1)", "note"),
        (0.089, "The final error is 1.78 times the selected one (more than 1.1)", "note"),
        (0.054, "The final error is about the selected one: 1.08 times (at most 1.1)", "ok"),
        (0.01, "The final error is lower, 0.200 times the selected one", "note"),
    ],
)
def test_the_gap_of_final_and_selected(make_run, final, beginning, level):
    error = np.where(np.arange(ROWS) == ROWS - 1, final, FLAT)
    folder = make_run(
        rows=ROWS, columns={"test/relative_l2": error}, result={"selected_step": 1000}
    )
    assert _level(_findings(folder), beginning) == level


def test_training_that_never_improved_is_bad(make_run):
    columns = {"test/relative_l2": np.geomspace(1, 5, 12)}
    findings = _findings(make_run(columns=columns, result={"selected_step": 0}))
    assert _level(findings, "Training did not help: the initial parameters are selected") == "bad"


def test_the_gap_is_none_where_the_final_parameters_are_selected(make_run):
    assert _level(_findings(make_run()), "The selected parameters are the final ones") == "ok"


def test_unbalanced_losses_are_named(make_run):
    findings = _findings(make_run(columns={"loss/residual": np.full(12, 2.0)}))  # boundary: 0.01
    assert _level(findings, "Losses are unbalanced: the residual loss is 200 times the b") == "note"
    folder = make_run(name="other", columns={"loss/residual": np.full(12, 0.63)})
    assert _level(_findings(folder), "Losses are not unbalanced: the residual loss is 63.0") == "ok"


def test_a_loss_that_is_zero_by_construction_is_not_compared(make_run):
    findings = _findings(make_run(columns={"loss/boundary": np.zeros(12)}))
    assert not any("Losses" in text for text in findings)


@pytest.mark.parametrize(
    ("share", "beginning", "level"),
    [
        (0.6, "Objectives are in conflict most of the time (more than 50%)", "note"),
        (0.5, "Objectives are in conflict part of the time (10% to 50%)", "note"),
        (0.1, "Objectives are rarely in conflict (10% or less)", "ok"),
    ],
)
def test_conflict_is_the_share_of_training_batches_with_opposed_gradients(
    make_run, share, beginning, level
):
    opposed = np.full(12, share)
    cosine = np.full(12, 0.25)
    opposed[-2:] = cosine[-2:] = np.nan
    columns = {"opposed/boundary~residual": opposed, "cosine/boundary~residual": cosine}
    findings = _findings(make_run(columns=columns))
    assert _level(findings, beginning) == level
    counted = f"{round(share * 901)} of 901 training batches ({share:.0%})"  # 1 + 9 * 100
    assert any(f"{counted}; the mean cosine is 0.25" in text for text in findings)


@pytest.mark.parametrize(
    ("opposed", "beginning", "level"),
    [
        (7, "Objectives are in conflict most of the time", "note"),
        (3, "Objectives are in conflict part of the time", "note"),
        (1, "Objectives are rarely", "ok"),
    ],
)
def test_conflict_of_format_1_is_that_of_its_evaluations(make_run, opposed, beginning, level):
    cosine = np.where(np.arange(12) < opposed, -0.5, 0.5)
    cosine[-2:] = np.nan
    findings = _findings(make_run(terms=(), columns={"cosine/boundary~residual": cosine}))
    assert _level(findings, beginning) == level
    assert any(f"{opposed} of 10 evaluations ({opposed * 10}%)" in text for text in findings)


def test_few_evaluations_are_not_called_conflict(make_run):
    columns = {"cosine/boundary~residual": np.full(2, -0.5)}
    findings = _findings(make_run(rows=2, terms=(), columns=columns))
    assert _level(findings, "Too few evaluations to judge conflict") == "note"
    assert any("in 2 of 2 evaluations (100%)" in text for text in findings)
    assert not any(text.startswith("Objectives") for text in findings)


def test_of_many_pairs_the_worst_is_named(make_run):
    columns = {"opposed/b~c": np.full(12, 0.9)}
    findings = _findings(make_run(objectives=("a", "b", "c"), columns=columns))
    text = next(text for text in findings if text.startswith("Objectives"))
    assert "of 3 pairs of objectives, the worst: the gradients of b and c" in text


def test_a_condition_that_is_met_far_worse_than_the_others_is_named(make_run):
    findings = _findings(make_run(columns={"term/left": np.full(12, 0.1)}))
    # At the end, initial and right are 0.01 / 2 and 0.01 / 8: their median is 0.01 / 3.2.
    beginning = "One condition is met far worse than the others: the mean square of left, 0.100, is"
    assert _level(findings, beginning) == "note"
    assert any("is 32.0 times the median of the others (more than 10)" in text for text in findings)
    assert not any("One condition" in text for text in _findings(make_run(name="even")))


def test_one_of_two_conditions_is_compared_with_the_other(make_run):
    columns = {"term/left": np.full(12, 1.0), "term/right": np.full(12, 0.05)}
    folder = make_run(terms=("residual", "left", "right"), columns=columns)
    text = next(text for text in _findings(folder) if text.startswith("One condition"))
    assert (
        "far worse than right: the mean square of left, 1.00, is 20.0 times that of right" in text
    )


@pytest.mark.parametrize(
    ("share", "beginning", "level"),
    [
        (0.01, "A layer is all but empty", "bad"),
        (0.05, "A layer is very", "note"),
        (0.2, "No layer is very sparse", "ok"),
    ],
)
def test_the_sparsest_layer_is_judged(make_run, share, beginning, level):
    findings = _findings(make_run(columns={"keep/Dense_1/kernel": np.full(12, share)}))
    assert _level(findings, beginning) == level
    assert any(f"layer 2 keeps the least, {share:.0%}" in text for text in findings)
    # The layers made by hand keep 10, 11 and 12 weights, and prune 0, 2 and 4.
    assert any("33 of 39 weights (85%) are left" in text for text in findings)


def test_without_counts_the_share_of_weights_is_said(make_run):
    assert any("50% of the weights are left" in text for text in _findings(make_run(terms=())))


def test_methods_without_thresholds_are_not_judged_by_them(make_run):
    assert not any("weights are left" in text for text in _findings(make_run(layers=0)))


def test_evaluations_that_are_not_finite_come_first(make_run):
    error = np.where(np.arange(12) >= 10, np.nan, 0.05)
    found = _verdict.findings(_run.read(make_run(columns={"test/relative_l2": error})))
    assert found[0].level == "bad"
    assert found[0].text == (
        "A loss or the error was not finite in 2 of 12 evaluations (17%), first at step 1,000."
    )
