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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00912345, "9.12e-3"),
        (0.0999999, "0.100"),
        (-0.5, "-0.500"),
        (12.345, "12.3"),
        (626.4, "626"),
        (2376.3, "2,376"),
        (123456.0, "1.23e5"),
        (float("nan"), "not finite"),
    ],
)
def test_numbers(value, text):
    assert _verdict.number(value) == text


def test_the_headline_says_what_how_well_and_when(make_run):
    run = _run.read(make_run(result={"errors": _errors(0.0091), "selected_step": 900}))
    assert _verdict.headline(run) == (
        "heat by modsync+dcgd: relative L2 error 9.10e-3 at step 900 of 1,100"
    )


def test_the_headline_names_given_coefficients(make_run):
    run = _run.read(make_run(config={"coefficients": {"diffusivity": 0.02}}))
    assert _verdict.headline(run).startswith("heat (diffusivity 0.02) by modsync+dcgd: ")


def test_without_reference_the_loss_is_the_headline(make_run):
    run = _run.read(make_run(reference=False))
    assert "total loss 0.0200 at step 1,100 of 1,100" in _verdict.headline(run)
    assert _level(dict(map(reversed, _verdict.findings(run))), "There is no reference") == "note"


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
    assert _level(_findings(make_run(rows=2)), "2 evaluations are too few") == "note"


@pytest.mark.parametrize(
    ("final", "beginning", "level"),
    [(0.2, "The final error is 4.00 times", "note"), (0.06, "The final error is 1.20", "ok")],
)
def test_the_gap_of_final_and_selected(make_run, final, beginning, level):
    error = np.where(np.arange(ROWS) == ROWS - 1, final, FLAT)
    folder = make_run(
        rows=ROWS, columns={"test/relative_l2": error}, result={"selected_step": 1000}
    )
    assert _level(_findings(folder), beginning) == level


def test_the_gap_is_none_where_the_final_parameters_are_selected(make_run):
    assert _level(_findings(make_run()), "The selected parameters are the final ones") == "ok"


def test_unbalanced_losses_are_named(make_run):
    findings = _findings(make_run(columns={"loss/residual": np.full(12, 2.0)}))  # boundary: 0.01
    assert _level(findings, "Losses are unbalanced: the residual loss is 200 times the b") == "note"


def test_a_loss_that_is_zero_by_construction_is_not_compared(make_run):
    findings = _findings(make_run(columns={"loss/boundary": np.zeros(12)}))
    assert not any("Losses" in text for text in findings)


@pytest.mark.parametrize(
    ("opposed", "beginning", "level"),
    [
        (7, "Objectives are in conflict most of the time", "note"),
        (3, "Objectives are rarely", "ok"),
    ],
)
def test_conflict_is_the_share_of_opposed_gradients(make_run, opposed, beginning, level):
    cosine = np.where(np.arange(12) < opposed, -0.5, 0.5)
    cosine[-2:] = np.nan
    findings = _findings(make_run(columns={"cosine/boundary~residual": cosine}))
    assert _level(findings, beginning) == level
    assert any(f"in {opposed * 10}% of the evaluations" in text for text in findings)


@pytest.mark.parametrize(
    ("share", "beginning", "level"),
    [
        (0.01, "A layer is all but empty", "bad"),
        (0.05, "A layer is very", "note"),
        (0.2, "50% of", "ok"),
    ],
)
def test_the_sparsest_layer_is_judged(make_run, share, beginning, level):
    findings = _findings(make_run(columns={"keep/Dense_1/kernel": np.full(12, share)}))
    assert _level(findings, beginning) == level
    assert any(f"layer 2 keeps the least, {share:.0%}" in text for text in findings)


def test_methods_without_thresholds_are_not_judged_by_them(make_run):
    assert not any("weights are left" in text for text in _findings(make_run(layers=0)))


def test_evaluations_that_are_not_finite_come_first(make_run):
    error = np.where(np.arange(12) >= 10, np.nan, 0.05)
    found = _verdict.findings(_run.read(make_run(columns={"test/relative_l2": error})))
    assert found[0].level == "bad"
    assert found[0].text.startswith("In 2 of 12 evaluations, first at step 1,000,")
