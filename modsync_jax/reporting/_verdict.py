"""A verdict on a run in words: each sentence follows from one rule, which it states."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from modsync_jax.reporting._numbers import counted, number, percent, signed
from modsync_jax.reporting._run import Run, layer_label

_SOLVED, _ROUGH = 0.01, 0.1  # relative L2 errors
_CHANGE = 0.1  # largest change between the last two fifths of a settled run
_FEWEST = 10  # evaluations that a trend needs, and batches that conflict needs
_GAP = 1.1  # ratio of final to selected error up to which the two count as equally good
_DIED = 0.01  # share of a layer's weights at which ModSync resets its thresholds
_SPARSE = 0.1
_RARELY, _MOSTLY = 0.1, 0.5  # shares of opposed gradients
_UNBALANCED = 100.0  # ratio of losses
_BADLY_MET = 10.0  # ratio of a condition's mean square to the median of the others


class Finding(NamedTuple):
    """One sentence about a run.

    Attributes:
      level: "ok", "note" if it deserves a look, or "bad".
      text: the sentence.
    """

    level: Literal["ok", "note", "bad"]
    text: str


def headline(run: Run) -> str:
    """The outcome in one line: problem, method, accuracy and step."""
    step, outcome = run.result["selected_step"], number(run.selected_outcome)
    by = run.result.get("trained_by", run.result["method"])  # older runs name the method alone
    title = f"{run.problem} by {by}: {run.outcome_name} {outcome}"
    return f"{title} at step {step:,} of {run.result['steps']:,}"


def findings(run: Run) -> list[Finding]:
    """Returns the findings about a run, good and bad, the outcome first."""
    return [
        *_finite(run),
        _outcome(run),
        _trend(run),
        *_gap(run),
        *_balance(run),
        *_conditions(run),
        *_conflict(run),
        *_kept(run),
    ]


def _finite(run: Run) -> Iterator[Finding]:
    measured = [run.outcome, run.metrics["loss"], *run.family("loss").values()]
    broken = ~np.isfinite(np.array(measured)).all(axis=0)
    if broken.any():
        first = int(run.steps[broken][0])
        yield Finding(
            "bad",
            "A loss or the error was not finite in "
            f"{counted(broken.sum(), broken.size, 'evaluations')}, first at step {first:,}.",
        )


def _outcome(run: Run) -> Finding:
    end = run.selected_outcome
    if run.result["errors"] is None:
        start = run.outcome[0]
        return Finding(
            "note" if start > end else "bad",
            f"There is no reference solution, so the accuracy is not known; the "
            f"{run.outcome_name} went from {number(start)} to {number(end)}.",
        )
    error = f"the {run.outcome_name} is {number(end)}"
    if end < _SOLVED:
        return Finding("ok", f"Solved: {error} (below 1%).")
    if end < _ROUGH:
        return Finding("note", f"Rough: {error} (from 1% to 10%).")
    return Finding("bad", f"Not solved: {error} (10% or more).")


def _trend(run: Run) -> Finding:
    values = run.outcome[np.isfinite(run.outcome)]
    if len(values) < _FEWEST:
        return Finding(
            "note",
            f"Too few evaluations to tell a trend: {len(values)}, and it takes {_FEWEST}.",
        )
    fifth = len(values) // 5
    before, last = np.median(values[-2 * fifth : -fifth]), np.median(values[-fifth:])
    change = last / before - 1
    compared = (
        f"the median {_short(run)} of the last fifth of the run differs by "
        f"{signed(change, '+z.0%')} from that of the fifth before"
    )
    if change < -_CHANGE:
        return Finding("note", f"Still improving at the end: {compared}. A longer run may help.")
    if change > _CHANGE:
        return Finding("note", f"Getting worse at the end: {compared}.")
    return Finding("ok", f"Settled at the end: {compared} (at most 10%).")


def _gap(run: Run) -> Iterator[Finding]:
    what, values = _short(run), run.outcome
    if not np.isfinite(values[-1]):
        return
    ratio = values[-1] / values[run.selected]
    step = f"load returns the parameters of step {run.result['selected_step']:,}"
    if run.selected == len(values) - 1:
        yield Finding("ok", "The selected parameters are the final ones.")
    elif not run.result["selected_step"]:
        yield Finding(
            "bad",
            f"Training did not help: the initial parameters are selected, and the final {what} is "
            f"{number(ratio)} times theirs.",
        )
    elif 1 / _GAP <= ratio <= _GAP:
        yield Finding(
            "ok",
            f"The final {what} is about the selected one: {number(ratio)} times (at most {_GAP}).",
        )
    elif ratio > _GAP:
        yield Finding(
            "note",
            f"The final {what} is {number(ratio)} times the selected one (more than {_GAP}); "
            f"{step}, not the final ones.",
        )
    else:
        yield Finding(
            "note",
            f"The final {what} is lower, {number(ratio)} times the selected one: validation "
            f"points preferred another step; {step}.",
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
        yield Finding(
            "note",
            f"Losses are unbalanced: {text} (more than {_UNBALANCED:.0f}). loss_weights, or a "
            "method that balances losses, can change that.",
        )
    else:
        yield Finding("ok", f"Losses are not unbalanced: {text} (at most {_UNBALANCED:.0f}).")


def _conditions(run: Run) -> Iterator[Finding]:
    terms = {name: column[run.selected] for name, column in run.family("term").items()}
    terms.pop("residual", None)
    if len(terms) < 2:
        return
    worst = max(terms, key=terms.__getitem__)
    others = {name: value for name, value in terms.items() if name != worst}
    usual = float(np.median(list(others.values())))
    if usual > 0 and terms[worst] > _BADLY_MET * usual:
        them = next(iter(others)) if len(others) == 1 else "the others"
        yield Finding(
            "note",
            f"One condition is met far worse than {them}: the mean square of {worst}, "
            f"{number(terms[worst])}, is {number(terms[worst] / usual)} times "
            f"{'that' if len(others) == 1 else 'the median'} of {them} (more than "
            f"{_BADLY_MET:.0f}).",
        )


def _conflict(run: Run) -> Iterator[Finding]:
    conflicts = [c for c in run.conflicts().values() if c.batches]
    if not conflicts:
        return
    worst = max(conflicts, key=lambda c: c.share)
    kind = "training batches" if worst.each_step else "evaluations"
    text = (
        f"the gradients of {' and '.join(worst.pair)} oppose each other in "
        f"{counted(worst.opposed, worst.batches, kind)}; the mean cosine is "
        f"{signed(worst.cosine, 'z.2f')}"
    )
    if len(conflicts) > 1:
        text = f"of {len(conflicts)} pairs of objectives, the worst: {text}"
    if worst.batches < _FEWEST:
        yield Finding("note", f"Too few evaluations to judge conflict: {text}.")
    elif worst.share > _MOSTLY:
        yield Finding(
            "note", f"Objectives are in conflict most of the time (more than 50%): {text}."
        )
    elif worst.share > _RARELY:
        yield Finding("note", f"Objectives are in conflict part of the time (10% to 50%): {text}.")
    else:
        yield Finding("ok", f"Objectives are rarely in conflict (10% or less): {text}.")


def _kept(run: Run) -> Iterator[Finding]:
    if run.result["keep"] is None:
        return
    text = f"{_weights_left(run)} are left"
    layers = {name: column[run.selected] for name, column in run.family("keep").items()}
    least = min(layers, key=layers.__getitem__)
    text += f"; {layer_label(least)} keeps the least, {percent(layers[least])}"
    if layers[least] <= _DIED:
        yield Finding("bad", f"A layer is all but empty (1% or less): {text}.")
    elif layers[least] < _SPARSE:
        yield Finding("note", f"A layer is very sparse (below 10%): {text}.")
    else:
        yield Finding("ok", f"No layer is very sparse (below 10%): {text}.")


def _weights_left(run: Run) -> str:
    if not run.layers:
        return f"{percent(run.result['keep']['selected'])} of the weights"
    kept, pruned = (int(run.layers[name].sum()) for name in ("kept", "pruned"))
    return counted(kept, kept + pruned, "weights")


def _short(run: Run) -> str:
    return "error" if run.result["errors"] else run.outcome_name
