"""Ratios of errors, their intervals, and the verdicts of tables."""

import math

import numpy as np
import pytest
from scipy import stats

from modsync_jax import studies
from modsync_jax.studies import _tables

PROBLEMS = ("burgers", "helmholtz2d", "wave")


def runs(of, *, width=8, problems=PROBLEMS, seeds=5):
    """Final runs with `of(variant, problem, seed)` as the error, for the variants of `of`."""
    return [
        {
            "problem": problem, "width": width, "variant": variant, "stage": "final",
            "seed": seed, "status": "finished", "selected": error(problem, seed),
            "learning_rate": 1e-3,
        }
        for variant, error in of.items() for problem in problems for seed in range(seeds)
    ]  # fmt: skip


@pytest.fixture
def noisy():
    """Two methods with noise in common, one of which has half the error of the other."""
    rng = np.random.default_rng(0)
    shared = {(p, s): rng.normal() for p in PROBLEMS for s in range(5)}
    own = {(p, s): 0.1 * rng.normal() for p in PROBLEMS for s in range(5)}
    return runs(
        {
            "dcgd": lambda p, s: math.exp(shared[p, s]),
            "modsync+dcgd": lambda p, s: 0.5 * math.exp(shared[p, s] + own[p, s]),
        }
    )


def test_a_ratio_is_that_of_a_paired_t_test_over_seeds(noisy):
    found = studies.compared(noisy, "modsync+dcgd", "dcgd", 8)
    error = {(r["variant"], r["problem"], r["seed"]): r["selected"] for r in noisy}
    logs = [
        np.mean([np.log(error["modsync+dcgd", p, s] / error["dcgd", p, s]) for p in PROBLEMS])
        for s in range(5)
    ]
    test = stats.ttest_1samp(logs, 0.0)
    interval = test.confidence_interval(0.95)
    assert found.mean == pytest.approx(np.exp(np.mean(logs)))
    assert (found.low, found.high) == pytest.approx((np.exp(interval.low), np.exp(interval.high)))
    assert found.p == pytest.approx(test.pvalue) and found.seeds == 5
    assert found.high < 0.6  # pairing takes the common noise away
    assert studies.mean_error(noisy, "dcgd", 8).high / studies.mean_error(noisy, "dcgd", 8).low > 2


def test_the_other_way_round_is_the_inverse(noisy):
    one = studies.compared(noisy, "modsync+dcgd", "dcgd", 8)
    other = studies.compared(noisy, "dcgd", "modsync+dcgd", 8)
    assert one.mean * other.mean == pytest.approx(1)
    assert one.low * other.high == pytest.approx(1)
    assert one.p == pytest.approx(other.p)


def test_a_seed_counts_only_if_all_problems_have_it(noisy):
    fewer = [r for r in noisy if (r["problem"], r["seed"]) != ("wave", 4)]
    assert studies.compared(fewer, "modsync+dcgd", "dcgd", 8).seeds == 4
    nothing = studies.compared(noisy, "modsync+dcgd", "dcgd", 16)
    assert nothing.seeds == 0 and math.isnan(nothing.mean)


def test_a_run_that_kept_no_network_has_the_error_of_zero(noisy):
    for lost in ({"selected": math.nan}, {}):
        broken = [
            {k: v for k, v in r.items() if k != "selected"} | lost if r["seed"] == 0 else r
            for r in noisy
        ]
        found = studies.compared(broken, "modsync+dcgd", "dcgd", 8)
        assert found.seeds == 5 and found.mean < 1


def test_one_seed_has_no_interval():
    one = runs({"a": lambda p, s: 0.1, "b": lambda p, s: 0.2}, seeds=1)
    found = studies.compared(one, "a", "b", 8)
    assert found.mean == pytest.approx(0.5) and math.isnan(found.low) and math.isnan(found.p)


def test_a_base_fails_where_its_interval_lies_above_the_standard():
    def around(value):
        return lambda p, s: value * math.exp(0.1 * (s - 2))

    of = {"adam": around(0.01), "dcgd": around(0.1), "dcgd-proj": around(0.011)}
    seen = runs(of)
    assert studies.failing(seen, "dcgd", 8) and not studies.failing(seen, "dcgd-proj", 8)


def test_a_base_is_judged_on_the_problems_that_the_standard_has_too():
    def near(value):
        return lambda p, s: value * (1 + 0.01 * s) * (100 if p == "wave" else 1)

    seen = runs({"dcgd": near(0.01)}) + runs({"adam": near(0.01)}, problems=PROBLEMS[:2])
    assert not studies.failing(seen, "dcgd", 8)
    assert not studies.failing(runs({"dcgd": near(0.01)}), "dcgd", 8)  # nothing to judge it by


def test_at_equal_time_a_run_has_what_it_had_when_the_fastest_ended():
    names = {"adam": 2.0, "dcgd": 2.5, "pcgrad": 4.0}
    seen = runs({name: lambda p, s: 9.0 for name in names}, problems=["wave"], seeds=2)
    history = [
        {
            "problem": "wave", "width": 8, "variant": name, "seed": seed, "step": step,
            "error": 1000 * seed + step, "validation": 1 / (step + 1) if step != 70 else 0.0,
        }
        for name in names for seed in range(2) for step in range(0, 101, 10)
    ]  # fmt: skip
    # In the time of 100 steps of Adam, dcgd takes 80 and pcgrad 50; the best step is 70.
    costs = {(8, name): cost for name, cost in names.items()}
    found = studies.at_equal_time(seen, history, costs)
    errors = {(row["variant"], row["seed"]): row["selected"] for row in found}
    expected = {"adam": 70, "dcgd": 70, "pcgrad": 50}
    assert errors == {(n, seed): 1000 * seed + expected[n] for n in names for seed in range(2)}
    alone = studies.at_equal_time([r for r in seen if r["variant"] == "pcgrad"], history, costs)
    assert [row["selected"] for row in alone] == [70, 1070]
    assert math.isnan(studies.at_equal_time(seen, [], costs)[0]["selected"])
    with pytest.raises(KeyError):
        studies.at_equal_time(seen, history, {})


def test_means_are_marked_where_a_method_fails():
    seen = runs({"adam": lambda p, s: 0.1 * (1 + 0.01 * s), "dcgd": lambda p, s: 0.5})
    head, line, none = _tables.means_table(seen, ["adam", "dcgd", "lra"], [8, 16])
    assert head == ["width", "adam", "dcgd", "lra"]
    assert line[0] == "8" and line[1].startswith("0.102 (0.10") and line[3] == "not run"
    assert line[2] == "0.500 (0.500 to 0.500), fails" and "fails" not in line[1]
    assert none == ["16", *["not run"] * 3]


def test_p_values_are_corrected_by_holm():
    # By hand: 4 · 0.01; 3 · 0.02; max(0.06, 2 · 0.02); max(0.06, 0.3).
    assert studies.corrected([0.02, 0.3, 0.01, 0.02]) == pytest.approx([0.06, 0.3, 0.04, 0.06])
    with_gap = studies.corrected([math.nan, 0.6, 0.7])
    assert math.isnan(with_gap[0]) and with_gap[1:] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("factor", "spread", "adam", "verdict"),
    [
        (1.0, 0.01, 2.0, "≤ 1.1: yes"),
        (1.0, 0.5, 2.0, "≤ 1.1: undecided"),
        (1.2, 0.5, 2.0, "≤ 1.1: undecided"),
        (2.0, 0.01, 2.0, "≤ 1.1: no"),
        (0.4, 0.01, 0.1, "≤ 0.5: yes"),
        (0.9, 0.01, 0.1, "≤ 0.5: no"),
    ],
)
def test_the_verdict_is_that_of_the_whole_interval(factor, spread, adam, verdict):
    of = {
        "adam": lambda p, s: adam * (1 + 0.001 * s),
        "dcgd": lambda p, s: 1.0 + 0.001 * s,
        "modsync+dcgd": lambda p, s: factor * math.exp(spread * (s - 2)),
    }
    head, line = _tables.ratios_table(runs(of), [("modsync+dcgd", "dcgd")], [8])
    assert line[head.index("verdict")] == verdict
    assert line[head.index("base fails")] == ("yes" if adam < 1 else "no")


def test_a_table_of_errors_marks_the_best_and_says_what_was_not_run():
    seen = runs({"adam": lambda p, s: 0.1 * (s + 1), "dcgd": lambda p, s: 0.01}, problems=["wave"])
    seen[0]["status"] = "not finite"
    seen[-1]["learning_rate"] = 3e-3
    head, *lines = _tables.errors_table(seen, ["wave", "heat"], ["adam", "dcgd", "lra"])
    cells = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
    assert cells["dcgd"]["wave"].startswith("**") and not cells["adam"]["wave"].startswith("**")
    assert cells["adam"]["wave"].endswith(", 1 not finite") and "†" not in cells["adam"]["wave"]
    assert cells["dcgd"]["wave"].endswith("** †")
    assert cells["lra"]["wave"] == cells["dcgd"]["heat"] == "not run"


def test_settings_are_compared_over_all_places_at_once():
    error = {
        "dcgd": 1.0,
        "dcgd-proj": 2.0,
        "modsync+dcgd, half": 0.5,
        "modsync+dcgd-proj, half": 8.0,
    }
    seen = [
        row
        | {"keep": 0.5, "selected": row["selected"] * (factor if "half" in row["variant"] else 1)}
        for width, factor in ((8, 1), (16, 4))
        for row in runs({n: lambda p, s, e=e: e for n, e in error.items()}, width=width)
    ]
    pairs = {
        name: [(f"modsync+{base}, {name}", base) for base in ("dcgd", "dcgd-proj")]
        for name in ("half", "other")
    }
    head, line = _tables.settings_table(seen, pairs)
    assert head[3:] == ["dcgd", "dcgd-proj", "width 8", "width 16", *PROBLEMS]
    assert line[:2] == ["half", "50%"]
    assert line[2].startswith("2.83")  # the geometric mean of 0.5 and 4, times that of 1 and 4
    assert line[3:] == ["1.00", "8.00", "1.41", "5.66", "2.83", "2.83", "2.83"]
    some = [row for row in seen if row["problem"] == "wave" or "half" not in row["variant"]]
    line = _tables.settings_table(some, pairs)[1]
    assert line[-3:] == [{"wave": "2.83"}.get(problem, "not run") for problem in PROBLEMS]
    one = [row for row in seen if row["width"] == 8 and row["problem"] == "wave"]
    head, line = _tables.settings_table(one, {"half": pairs["half"][:1]})
    assert head == ["setting", "kept", "all"] and line[2].startswith("0.50")
