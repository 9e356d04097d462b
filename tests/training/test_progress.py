"""What a user sees of a run while it trains."""

import re

import pytest

from modsync_jax.training._progress import Meter


@pytest.mark.parametrize(
    ("limit", "place", "most"), [(0.0, "step 5/1000", 498), (30.0, "step 5", 30)]
)
def test_the_time_left_is_that_of_the_steps_or_of_the_limit(capsys, limit, place, most):
    with Meter("heat sum, Adam", 1000, limit=limit) as meter:
        meter.row({"step": 5, "loss": 0.5, "loss/residual": 0.5}, 2.0)
    line = capsys.readouterr().err.strip()
    assert re.fullmatch(rf"heat sum, Adam  {place}  residual 5.0e-01  2 steps/s  \d+ s left", line)
    assert most - 5 <= int(line.split()[-3]) <= most  # a machine may take seconds for this line
