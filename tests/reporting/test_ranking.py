"""Who is the best, against ratios and errors worked out by hand."""

import math

import pytest

from modsync_jax.reporting import _ranking


def _scores(*values):
    return {str(seed): value for seed, value in enumerate(values)}


def test_spreads_are_written_in_one_style():
    assert str(_ranking.Spread(0.0231, 1.5)) == "2.31e-2\u00a0×÷\u00a01.50"
    assert str(_ranking.spread([231.0])) == "2.31e2"  # one value has no spread
    assert str(_ranking.spread([])) == "–"


def test_the_best_beats_all_others_beyond_twice_the_standard_error():
    # The logarithms of the ratios are m - s, m, m + s: their standard error is s / √3.
    s = 0.3
    for m, best in ((2 * s / math.sqrt(3) + 0.01, True), (2 * s / math.sqrt(3) - 0.01, False)):
        other = _scores(*(math.exp(m + k * s) for k in (-1, 0, 1)))
        found = _ranking.leader({"b": other, "a": _scores(1.0, 1.0, 1.0)})
        assert found.name == "a" and found.is_best == best
        assert list(found.rivals) == ([] if best else ["b"])


def test_two_seeds_in_common_are_too_few():
    a, b = _scores(1.0, 1.0, 1.0), {"0": 9.0, "1": 9.0, "7": 9.0}
    found = _ranking.leader({"a": a, "b": b})
    assert not found.is_best and found.seeds == 2
    assert found.sentence("methods", "error") == (
        "a has the lowest error of 2 methods, but 2 seeds in common can’t show that it is the best"
    )


def test_a_configuration_that_failed_where_another_did_not_is_not_the_best():
    b = _scores(*[2.0] * 4)
    assert _ranking.leader({"a": _scores(1.0, 1.0, 1.0, 1.0), "b": b}).is_best
    failed = _scores(1.0, 1.0, 1.0, math.nan)
    assert list(_ranking.leader({"a": failed, "b": b}).rivals) == ["b"]


def test_one_that_always_failed_is_beaten():
    found = _ranking.leader({"a": _scores(1.0, 1.0, 1.0), "b": {}})
    assert found.is_best and found.of == 2
    assert not _ranking.leader({"a": _scores(1.0), "b": {}}).is_best  # a single seed
    assert _ranking.leader({"a": {}, "b": _scores(math.inf)}) is None


@pytest.mark.parametrize(
    ("rivals", "sentence"),
    [
        ([], "a is the best of 5 methods"),
        (["b"], "the seeds don’t tell it apart from b"),
        (["b", "c"], "the seeds don’t tell it apart from b and c"),
        (["b", "c", "d"], "the seeds don’t tell it apart from 3 others"),
    ],
)
def test_the_sentence_says_best_only_where_it_is(rivals, sentence):
    text = _ranking.Leader("a", 5, rivals, seeds=3).sentence("methods", "validation error")
    assert text.endswith(sentence)
    assert text.startswith("a has the lowest validation error of 5 methods, but ") == bool(rivals)


def test_one_configuration_is_only_named():
    assert _ranking.leader({"a": _scores(1.0)}).sentence("methods", "error") == "a"
