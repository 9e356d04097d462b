"""Whether a run went well, in words: each sentence follows from one rule that it states."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from modsync_jax.reporting._run import Column, Run, layer_label

_SOLVED, _ROUGH = 0.01, 0.1  # relative L2 errors
_CHANGE = 0.1  # between the last two fifths of a run, below which it has settled
_FEWEST_ROWS = 10  # to speak of a trend
_GAP = 2.0  # final against selected
_DIED = 0.01  # share of a layer's weights at which ModSync resets its thresholds
_SPARSE = 0.1
_OPPOSED = 0.5  # share of evaluations
_UNBALANCED = 100.0  # ratio of losses


class Finding(NamedTuple):
    """One sentence about a run.

    Attributes:
      level: "ok", "note" for what deserves a look, or "bad".
      text: the sentence.
    """

    level: Literal["ok", "note", "bad"]
    text: str


def number(value: float) -> str:
    """A number of three significant digits: `0.0910`, `9.11e-3`, `1.20e5`, or whole: `2,376`."""
    if not np.isfinite(value):
        return "not finite"
    if value == 0 or 1000 <= abs(value) < 1e4:
        return f"{value:,.0f}"
    if 0.01 <= abs(value) < 1000:
        return f"{value:#.3g}".removesuffix(".")
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def headline(run: Run) -> str:
    """The outcome in one line: what was solved, by which method, how well, and when."""
    errors, step = run.result["errors"], run.result["selected_step"]
    if errors is None:
        outcome = f"total loss {number(run.result['loss']['selected'])}"
    else:
        outcome = f"relative L2 error {number(errors['relative_l2']['selected'])}"
    title = f"{run.problem} by {run.result['method']}"
    return f"{title}: {outcome} at step {step:,} of {run.result['steps']:,}"


def findings(run: Run) -> list[Finding]:
    """What is good about a run and what deserves a look, the outcome first."""
    return [
        *_finite(run),
        _outcome(run),
        _trend(run),
        *_gap(run),
        *_balance(run),
        *_conflict(run),
        *_kept(run),
    ]


def _finite(run: Run) -> Iterator[Finding]:
    measured = {run.measure, "loss", *(f"loss/{name}" for name in run.family("loss"))}
    broken = ~np.isfinite(np.array([run.metrics[name] for name in measured])).all(axis=0)
    if broken.any():
        first = int(run.steps[broken][0])
        yield Finding(
            "bad",
            f"In {broken.sum()} of {broken.size} evaluations, first at step {first:,}, a loss or "
            "the error was not finite.",
        )


def _outcome(run: Run) -> Finding:
    if run.result["errors"] is None:
        start, end = run.metrics["loss"][0], run.result["loss"]["selected"]
        return Finding(
            "note" if start > end else "bad",
            f"There is no reference solution, so the accuracy is not known; the total loss went "
            f"from {number(start)} to {number(end)}.",
        )
    error = run.result["errors"]["relative_l2"]["selected"]
    if error < _SOLVED:
        return Finding("ok", f"Solved: the relative error, {number(error)}, is below 1%.")
    if error < _ROUGH:
        return Finding("note", f"Rough: the relative error, {number(error)}, is from 1% to 10%.")
    return Finding("bad", f"Not solved: the relative error, {number(error)}, is not below 10%.")


def _trend(run: Run) -> Finding:
    what, values = _measured(run)
    values = values[np.isfinite(values)]
    if len(values) < _FEWEST_ROWS:
        return Finding("note", f"{len(values)} evaluations are too few to tell a trend.")
    fifth = len(values) // 5
    before, last = np.median(values[-2 * fifth : -fifth]), np.median(values[-fifth:])
    change = last / before - 1
    compared = f"median {what} of the last fifth against the fifth before: {change:+.0%}"
    if change < -_CHANGE:
        return Finding("note", f"Still improving at the end ({compared}); a longer run may pay.")
    if change > _CHANGE:
        return Finding("note", f"Getting worse at the end ({compared}).")
    return Finding("ok", f"Settled at the end ({compared}); more steps alone change little.")


def _gap(run: Run) -> Iterator[Finding]:
    what, values = _measured(run)
    if not np.isfinite(values[-1]):
        return
    ratio = values[-1] / values[run.selected]
    step = run.result["selected_step"]
    if run.selected == len(values) - 1:
        yield Finding("ok", "The selected parameters are the final ones.")
    elif ratio < _GAP:
        yield Finding("ok", f"The final {what} is {number(ratio)} times the selected one.")
    else:
        yield Finding(
            "note",
            f"The final {what} is {number(ratio)} times the selected one: the best parameters, "
            f"which load returns, are those of step {step:,}.",
        )


def _balance(run: Run) -> Iterator[Finding]:
    losses = {name: column[run.selected] for name, column in run.family("loss").items()}
    losses = {name: loss for name, loss in losses.items() if loss > 0}  # 0: held by construction
    if len(losses) < 2:
        return
    high, low = max(losses, key=losses.__getitem__), min(losses, key=losses.__getitem__)
    ratio = losses[high] / losses[low]
    text = f"the {high} loss is {number(ratio)} times the {low} loss at the selected step"
    if ratio > _UNBALANCED:
        yield Finding("note", f"Losses are unbalanced: {text}; loss_weights can change that.")
    else:
        yield Finding("ok", f"Losses are of similar size: {text}.")


def _conflict(run: Run) -> Iterator[Finding]:
    cosines = {pair: c[np.isfinite(c)] for pair, c in run.family("cosine").items()}
    opposed = {pair: float(np.mean(c < 0)) for pair, c in cosines.items() if c.size}
    if not opposed:
        return
    pair = max(opposed, key=opposed.__getitem__)
    text = (
        f"the gradients of {' and '.join(pair.split('~'))} oppose each other in "
        f"{opposed[pair]:.0%} of the evaluations (median cosine {np.median(cosines[pair]):.2f})"
    )
    if opposed[pair] > _OPPOSED:
        yield Finding("note", f"Objectives are in conflict most of the time: {text}.")
    else:
        yield Finding("ok", f"Objectives are rarely in conflict: {text}.")


def _kept(run: Run) -> Iterator[Finding]:
    if run.result["keep"] is None:
        return
    overall = run.result["keep"]["selected"]
    layers = {name: column[run.selected] for name, column in run.family("keep").items()}
    least = min(layers, key=layers.__getitem__)
    text = f"{overall:.0%} of the weights are left; {layer_label(least)} keeps the least, "
    text += f"{layers[least]:.0%}"
    if layers[least] <= _DIED:
        yield Finding("bad", f"A layer is all but empty: {text}.")
    elif layers[least] < _SPARSE:
        yield Finding("note", f"A layer is very sparse: {text}.")
    else:
        yield Finding("ok", f"{text}.")


def _measured(run: Run) -> tuple[str, Column]:
    return ("loss" if run.measure == "loss" else "error"), run.metrics[run.measure]
