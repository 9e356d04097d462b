import pytest

from modsync_jax.reporting import _numbers


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
    assert _numbers.number(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (0.001, "<1%"), (0.014, "1%"), (0.5, "50%"), (0.999, ">99%"), (1, "100%")],
)
def test_a_percentage_is_nothing_or_all_only_where_that_is_meant(share, text):
    assert _numbers.percent(share) == text


def test_counts_have_percentages():
    assert _numbers.counted(1240, 4000, "steps") == "1,240 of 4,000 steps (31%)"
    assert _numbers.counted(3999, 4000, "steps") == "3,999 of 4,000 steps (>99%)"


def test_signs_are_minus_signs_and_a_rounded_zero_has_none():
    assert _numbers.signed(-0.42, "z.2f") == "−0.42"
    assert _numbers.signed(-0.001, "z.2f") == "0.00"
