# ruff: noqa: E501, a row is a line
"""Mutants: one wrong edit each, which the named tests must notice.

    python -m tests.mutants [--only=WORD] [--workers=1]

Each row of `MUTANTS` is applied to a copy of the project in a temporary folder, where the tests of
the row run until the first one fails. A mutant is killed when a test fails, and survives when all
pass. Rows that are known to survive say why; the program fails on a survivor without a reason,
and on a row whose text is no longer in the file exactly once.

To add one: a row with the file below `modsync_jax/`, the text, its replacement, and the tests.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """A wrong edit.

    Attributes:
      file: below `modsync_jax/`.
      old: text that is in the file once.
      new: what stands in its place.
      tests: files, folders or single tests (`file::test`), separated by blanks.
      survives: why no test can notice, or none needs to; empty for a mutant that must be killed.
    """

    file: str
    old: str
    new: str
    tests: str
    survives: str = ""


def rows(file: str, tests: str, *edits: tuple[str, ...]) -> list[Mutant]:
    """Mutants of one file: `(old, new)` or `(old, new, why it survives)`."""
    return [Mutant(file, old, new, tests, *why) for old, new, *why in edits]


MUTANTS = [
    *rows(
        "gradients.py",
        "tests/test_gradients.py",
        ('strategy: Literal["split", "vmap"] = "split"', 'strategy: Literal["split", "vmap"] = "vmap"'),
        ("values[name]) for name in sorted(values)}", "values[name]) for name in values}"),
        ("names = sorted(mapping or", "names = list(mapping or"),
        ("jnp.eye(len(losses), dtype=losses.dtype)", "jnp.ones((len(losses),) * 2, dtype=losses.dtype)"),
        ("g[i].astype(dtype) * g[j].astype(dtype)", "(g[i] * g[j]).astype(dtype)"),
        ("jnp.result_type(jnp.float32, *leaves)", "jnp.float32"),
        ("inner(min(i, j), max(i, j))", "inner(min(i, j), min(i, j))"),
        ("weights[k] * leaf[k] for k in range(len(leaf))", "weights[k] * leaf[0] for k in range(len(leaf))"),
        (").astype(leaf.dtype)  # type", ")  # type"),
        ("if grad.shape[1] == 1:", "if grad.shape[0] == 1:"),
        ("return grad.sum(0)", "return grad.mean(0)"),
        ("grad[k, k] for k in range(count)", "grad[0, k] for k in range(count)"),
        ("if grad.shape[1] != count:", "if grad.shape[1] > count:"),
        ("if len(lengths) != 1 or 0 in lengths:", "if len(lengths) != 1:"),
        ("if len(lengths) != 1 or 0 in lengths:", "if 0 in lengths:"),
        ('if value.shape != () or not jnp.issubdtype', 'if not jnp.issubdtype'),
        ("or not jnp.issubdtype(value.dtype, jnp.floating)", ""),
        ("or not jnp.issubdtype(dtype, jnp.floating)", ""),
    ),
    *rows(
        "gradients.py",
        "tests/test_transform.py tests/optimizers",
        ("if jax.tree.structure(grads) != jax.tree.structure(params)", "if False and (grads != params)", "shapes are compared leaf by leaf all the same, with a longer error"),
        ("if grad.shape != (count, *jnp.shape(param)):", "if grad.shape[1:] == ():"),
        ("if jnp.shape(update) != jnp.shape(param):", "if jnp.ndim(update) < jnp.ndim(param):"),
        ("if any(isinstance(node, optax.MaskedNode) for node in nodes):", "if False:"),
        ("sorted(objectives)]", "objectives]"),
        ("jax.lax.switch(index, branches", "jax.lax.switch(0 * index, branches"),
    ),
    *rows(
        "transform.py",
        "tests/test_transform.py",
        ("w if m is None else w * m", "w if m is None else w"),
        ("sparsity.masks(*params, structural_gradient=structural_gradient)", "sparsity.masks(*params)"),
        ("effective_weights(params, structural_gradient=structural_gradient)\n            return", "effective_weights(params)\n            return"),
        ("jax.lax.stop_gradient(effective_weights(params))", "effective_weights(params)"),
        ("sparsity_weight: float | Array = 1e-4", "sparsity_weight: float | Array = 1e-3"),
        ("reset_keep: float | Array = 0.01", "reset_keep: float | Array = 0.02"),
        ("min_keep: float | Array = 0.0", "min_keep: float | Array = 0.5"),
        ("thresholds_tx or optax.adam(1e-4)", "thresholds_tx or optax.adam(1e-3)"),
        ("o + sparsity_weight * p", "o - sparsity_weight * p"),
        ("o + sparsity_weight * p", "o + p"),
        ("jax.grad(regularizer)(thresholds)", "jax.grad(sparsity.sparsity_loss)(thresholds)"),
        ("lambda kept: kept <= min_keep * (1 + 1e-6), kept_share(*params)", "lambda kept: kept >= min_keep * (1 + 1e-6), kept_share(*params)"),
        ("kept <= min_keep * (1 + 1e-6)", "kept < min_keep * (1 - 1e-6)"),
        ("jnp.minimum(s, 0.0)", "jnp.maximum(s, 0.0)"),
        ("jnp.minimum(s, 0.0)", "jnp.zeros_like(s)"),
        ("kept <= reset_keep * (1 + 1e-6)", "kept <= reset_keep"),
        ("kept <= reset_keep * (1 + 1e-6)", "kept < reset_keep * (1 - 1e-6)"),
        ("kept_share(*stepped)", "kept_share(*params)"),
        ("optax.apply_updates(params, ModSyncParams(moves, shifts))", "ModSyncParams(weights, optax.apply_updates(thresholds, shifts))"),
        ("jnp.where(d, -t, s), shifts, thresholds, dying)", "jnp.where(d, 0 * t, s), shifts, thresholds, dying)"),
        ("t_state = _restart(thresholds_tx, t_state, thresholds, dying)", "pass"),
        ("jnp.where(dies, new, old)", "jnp.where(~dies, new, old)"),
        ("jnp.where(dies, new, old)", "jnp.where(dies & (jnp.ndim(old) > 0), new, old)"),
        ("tx.init(jnp.zeros_like(threshold))", "tx.init(threshold)", "no optax optimiser of thresholds starts from their values"),
        ("tx.update(slope, state, leaf, **extra_args)", "tx.update(slope, state, leaf)"),
        ("weights_tx.update(updates.weights, state.weights, weights, **extra_args)", "weights_tx.update(updates.weights, state.weights, weights)"),
        ("    if isinstance(params, ModSyncParams):\n        raise", "    if False:\n        raise"),
        ("if not isinstance(params, ModSyncParams):\n        raise", "if False:\n        raise"),
    ),
    *rows(
        "sparsity/_step.py",
        "tests/sparsity/test_step.py",
        ("(q > 0).astype", "(q >= 0).astype"),
        ("distance <= 0.4", "distance < 0.4", "both pieces are 0.4 where they meet"),
        ("2.0 - 4.0 * distance", "2.0 - 2.0 * distance"),
        ("4.0 * distance, 0.4)", "4.0 * distance, 0.2)"),
        ("distance <= 1.0", "distance < 1.0"),
        ("jnp.abs(q)", "q"),
        ("0.0) * tangent", "0.0) + 0 * tangent"),
    ),
    *rows(
        "sparsity/_regularizer.py",
        "tests/sparsity/test_regularizer.py",
        ("_MAX_EXPONENT = 4.0", "_MAX_EXPONENT = 5.0"),
        ("rows[j] - rows[k]", "rows[j] + rows[k]"),
        ("squared / max(len(pairs), 1)", "squared"),
        ("max(len(pairs), 1)", "len(pairs)"),
        ("distance / beta", "distance * beta"),
        ("_guarded_exp(-rows)", "_guarded_exp(rows)"),
        ("_guarded_exp(-rows).sum(0)", "_guarded_exp(-rows).mean(0)"),
        ('if granularity == "layer":', 'if granularity != "layer":'),
        ("not beta > 0", "beta < 0"),
        ("jnp.maximum(x - _MAX_EXPONENT, 0.0)", "jnp.abs(x - _MAX_EXPONENT)"),
    ),
    *rows(
        "sparsity/_thresholds.py",
        "tests/sparsity/test_thresholds.py",
        ("leaf.ndim >= 2)", "leaf.ndim >= 1)"),
        ("if num_objectives < 1:", "if num_objectives < 0:"),
        ("not jnp.issubdtype(leaf.dtype, jnp.floating) or not choose", "not choose"),
        ("-leaf.ndim <= output_axis < leaf.ndim", "-leaf.ndim <= output_axis <= leaf.ndim"),
        ("shape[output_axis] = leaf.shape[output_axis]", "shape[-1] = leaf.shape[-1]"),
        ("jnp.result_type(leaf.dtype, jnp.float32))", "leaf.dtype)"),
        ("if _is_zero(leaf):", "if False:"),
        ("not np.any(np.asarray(leaf))", "not np.all(np.asarray(leaf))"),
        ("isinstance(leaf, jax.core.Tracer) or ", ""),
        ("weight if structural_gradient else jax", "weight if not structural_gradient else jax"),
        ("magnitude - threshold.mean(0)).astype", "magnitude - threshold[0]).astype"),
        ("jnp.abs(weight if", "(weight if"),
        (".astype(weight.dtype)", ""),
        ("weights=sizes)", "weights=None)"),
        ("excess > 0, dtype", "excess >= 0, dtype"),
        ("jnp.where(jnp.isnan(excess).any(), jnp.nan, kept)", "kept"),
        ("jnp.isnan(excess).any()", "jnp.isnan(excess).all()"),
        ("jnp.mean(excess > 0, dtype=jnp.float32)", "jnp.mean((excess > 0).astype(weight.dtype))"),
    ),
    # --- training and sweeps
    *rows(
        "training/_step.py",
        "tests/training/test_state.py",
        ("problem.pointwise(*losses.fields(export(state.params)), batch)", "problem.pointwise(*losses.fields(state.params.weights), batch)"),
        ("network.init(jax.random.fold_in(key, INIT), point)", "network.init(key, point)"),
    ),
    *rows(
        "training/_step.py",
        "tests/training/test_phases.py::test_the_rate_of_a_row_is_that_of_its_phase",
        ("[step <= end for end in config.ends]", "[step < end for end in config.ends]"),
    ),
    *rows(
        "training/_step.py",
        "tests/training/test_phases.py::test_after_frozen_masks_a_first_order_phase_moves_the_kept_weights_alone",
        ("any(earlier.freezes for earlier in config.phases[:index])", "False"),
    ),
    *rows(
        "training/_step.py",
        "tests/training/test_phases.py::test_a_phase_has_its_dtype_its_points_and_frozen_masks",
        ("stage.prepare(state), None", "state, None"),
    ),
    *rows(
        "training/_evaluate.py",
        "tests/training/test_state.py",
        ("losses.fields(evaluated := losses.kind.export(state.params))", "losses.fields(evaluated := weights_of(state.params))"),
        ('score = row["validation/relative_l2"', 'score = row["test/relative_l2"'),
        ("better = state.healthy & (score", "better = (score"),
        ("(score < state.best_score)", "(score > 0)"),
        ("score.astype(dtype), state.step)", "score.astype(dtype), state.step + 1)"),
        ("state._replace(sums=sums), row", "state, row"),
        ("                state.sums.batches > 0,", "                state.sums.batches > 100,"),
        ("stream(state, EVALUATE), state.step", "stream(state, 1), state.step"),
        ('"loss": values.sum()}', '"loss": values.mean()}'),
        ('row["learning_rate"] = rate(state.step)', 'row["learning_rate"] = rate(0)'),
        ("jnp.linalg.norm(error) / jnp.linalg.norm(true)", "jnp.linalg.norm(error)"),
        ("jnp.abs(error).mean()", "jnp.abs(error).max()"),
        ("problem.observed(u, unknowns, points) - true", "problem.observed(u, unknowns, points)"),
        ("stream(state, HELD_OUT), _HELD_OUT", "stream(state, EVALUATE), _HELD_OUT"),
        ("_HELD_OUT = 4 ", "_HELD_OUT = 1 "),
        ("[loss(params, held_out) for loss in losses.terms.values()]).sum()", "[loss(params, held_out) for loss in losses.terms.values()]).mean()"),
    ),
    *rows(
        "diagnostics/_watch.py",
        "tests/diagnostics/test_watch.py",
        ("opposed = cosine < 0", "opposed = cosine < 0.1"),
        ("sums.stretch + 1, 0)", "sums.stretch + 1, 1)"),
        ("jnp.maximum(sums.longest, stretch)", "stretch"),
        ("sums.lagged + change * before", "sums.lagged + change * change"),
        ("sums.total / sums.batches", "sums.total / (sums.batches + 1)"),
        ("jnp.maximum(sums.batches - 1, 1)", "sums.batches"),
        ("total / sums.sampled", "total / sums.batches"),
        ("empty._replace(stretch=sums.stretch)", "empty"),
        ("jax.lax.cond(sampled, with", "jax.lax.cond(True, with"),
        ("cosine - first, jnp.where", "cosine, jnp.where"),
    ),
    *rows(
        "optimizers/_metric.py",
        "tests/optimizers/test_metric.py",
        ("state.count > 0, new, g", "state.count >= 0, new, g"),
        ("_shapes(part.nu) == _shapes(params)", "True"),
        ("scaled, state.bases, back=True", "scaled, state.bases"),
    ),
    *rows(
        "diagnostics/_diagnosis.py",
        "tests/diagnostics/test_diagnosis.py",
        ("(cosines < -bounds.conflict)", "(cosines < 0)"),
        ("present[0] if present else LOW", "LOW"),
        ("set(present) <= set(near)", "set(present) < set(near)"),
        ("for name in (*present, *near)", "for name in near"),
        ("(cosines**2 + spreads**2)", "(cosines**2)"),
        ("index % part % EVERY == 0", "index % EVERY == 0"),
    ),
    *rows(
        "training/_state.py",
        "tests/training/test_state.py",
        ("healthy = state.healthy & jnp", "healthy = jnp"),
        ("jnp.isfinite(losses).all()", "jnp.isfinite(losses).any()"),
        ("& jnp.isfinite(total) &", "&"),
        ("isfinite(total) & sound", "isfinite(total)"),
        ("losses=losses, healthy=healthy", "losses=chosen(healthy, losses, state.losses), healthy=healthy"),
    ),
    *rows(
        "training/_first_order.py",
        "tests/training/test_state.py",
        ("chosen(after.healthy, sums, state.sums)", "chosen(True, sums, state.sums)"),
        ("stream(state, TRAIN), state.step", "stream(state, 2), state.step"),
        ("stream(state, METHOD), state.step", "stream(state, TRAIN), state.step"),
        ("jax.random.fold_in(stream(state, METHOD), state.step)", "stream(state, METHOD)"),
        ("reference=names.index(\"residual\")", "reference=0"),
    ),
    *rows(
        "training/_second_order.py",
        "tests/training/test_state.py",
        ("key = stream(state, KEPT)", "key = stream(state, 1)"),
        ("return state._replace(losses=_values(losses, state, weights_of(state.params)))", "return state"),
        ("losses.sample(key, settings.points, dtype)", "losses.sample(key, 1, dtype)"),
    ),
    *rows(
        "training/_losses.py",
        "tests/training/test_phases.py::test_a_phase_has_its_dtype_its_points_and_frozen_masks",
        ("plain[name](kept(weights), batch)", "plain[name](weights, batch)"),
    ),
    *rows(
        "training/_optimizers.py",
        "tests/training/test_state.py",
        ("rate: Any = config.threshold_learning_rate", "rate: Any = config.learning_rate"),
        ("min_keep=config.min_keep", "min_keep=0.0"),
        ("beta=config.beta", "beta=0.3"),
    ),
    *rows(
        "loss_indexed.py",
        "tests/training/test_state.py",
        ("self.join(self.act(weights, own), ", "self.join(weights, "),
        ("jax.tree.map(jnp.zeros_like, own))", "own)"),
    ),
    *rows(
        "loss_indexed.py",
        "tests/test_loss_indexed.py",
        ("enumerate(sorted(given))", "enumerate(given)"),
        ("weights = kind.seen(weights, own[name], objective)", "weights = kind.seen(weights, own[name])"),
        ("jnp.prod(jnp.stack(cut), axis=0)", "cut[0]"),
        ("return self.act_for(weights, own, objective)", "return self.act(weights, own)"),
        ("kind.pick(o_updates, own), o_state", "jax.tree.map(lambda g: g.sum(0), o_updates), o_state"),
    ),
    *rows(
        "training/_first_order.py",
        "tests/training/test_phases.py",
        ("opt_state=tx.init(moved(state.params)), points=())", "opt_state=tx.init(moved(state.params)))"),
        ("lambda step: rate(step - start)", "rate"),
    ),
    *rows(
        "training/_second_order.py",
        "tests/training/test_phases.py",
        ("key = jax.random.fold_in(key, state.step)", "pass"),
        ("done % settings.redraw == 0", "done % settings.redraw == 1"),
        ("tree_set(state.opt_state, value=value, grad=grad)", "tree_set(state.opt_state, value=value)"),
        ("jnp.full_like(state.opt_state.value, jnp.inf)", "state.opt_state.value"),
    ),
    *rows(
        "jets.py",
        "tests/test_jets.py",
        ("- turns * 2.0222662487959506e-21", ""),
        ("range(9)", "range(7)"),
        ("quarter >= 2", "quarter > 2"),
        ("cosine * tangents[0], -sine", "cosine * tangents[0], sine"),
        ("return value, -minus_slope, -value, minus_slope", "return value, minus_slope, -value, minus_slope"),
    ),
    *rows(
        "directions.py",
        "tests/test_directions.py",
        ("share = len(axes) / number", "share = 1.0"),
        ("(k, k): coefficients[0] / number", "(k, k): coefficients[0]"),
        ("(k, number + k): 1 / number", "(k, k): 1 / number"),
        (".multiply(factors)", ".multiply(jnp.abs(factors))"),
        ("mixed(words ^ salts)", "(words * (salts | 1))"),
        ("return len(set(coefficients)) == 1", "return True"),
        ("return all(c is coefficients[0] for c in coefficients)", "return False"),
        ("(words >> jnp.arange(32, dtype=jnp.uint32))", "(words >> jnp.zeros(32, jnp.uint32))"),
    ),
    *rows(
        "calculus.py",
        "tests/test_directions.py",
        ("found if len(found) > count else ()", "found if len(found) > 1 else ()"),
        ("factors * slopes[:, jnp.array(list(steep))]", "slopes[:, jnp.array(list(steep))]"),
        ("operator[order] + coefficient if order in operator else coefficient", "operator.get(order, 0.0) + coefficient"),
    ),
    *rows(
        "sampling.py",
        "tests/test_sampling.py",
        ("np.repeat(1 / widths, 2)", "np.repeat(widths, 2)"),
        ("jnp.asarray(bounds, dtype)[chosen % 2, axis]", "jnp.asarray(bounds, dtype)[0, axis]"),
        ("jnp.where(nearest < len(axes), -1, 1)", "jnp.where(nearest < len(axes), 1, -1)"),
        ("if name != \"t\"", "if name != \"x\""),
    ),
    *rows(
        "networks.py",
        "tests/test_networks.py",
        ("names[index % len(names)]", "names[0]"),
        ("self.layer(self.width, h, 3 * index + 1)", "self.layer(self.width, h, 3 * index)"),
        ("else x * self.omega", "else x"),
    ),
    *rows(
        "optimizers/_gauss_newton.py",
        "tests/optimizers/test_gauss_newton.py",
        ("(values[-1] - values)", "(values - values[-1])"),
        ("seen += shift * tests", "pass"),
        ("lambda step: product(step) + lam * step", "product"),
        ("ahead @ ahead /", "ahead @ r /"),
        ("M=preconditioner(lam)", "M=None"),
    ),
    *rows(
        "training/_second_order.py",
        "tests/training/test_phases.py",
        ("unravel(kept * flat)", "unravel(flat)"),
        ("cg=settings.cg", "cg=1"),
        ("sketch=settings.sketch", "sketch=0", "a preconditioner changes how many iterations a step takes, not where it leads"),
    ),
    *rows(
        "training/_second_order.py",
        "tests/training/test_losses.py",
        ("residuals, rows * kept", "residuals, rows"),
    ),
    *rows(
        "training/_points.py",
        "tests/training/test_points.py",
        ("raised / jnp.where(mean > 0, mean, 1.0) + 1.0", "raised / jnp.where(mean > 0, mean, 1.0)"),
        ("sizes**power", "sizes"),
        ("raised = jnp.where(jnp.isfinite(raised), raised, 0.0)", "pass"),
        ("jnp.where(mean > 0, mean, 1.0)", "mean"),
        ("jnp.where(jnp.isfinite(found), found, 0.0)", "found"),
        ("share * sizes.mean()", "sizes.mean()"),
        ("jnp.cumsum(losses) - losses", "jnp.cumsum(losses)"),
        ("jnp.where(last > first, last - first, 1.0)", "last - first"),
        ("weights / weights.mean()", "weights"),
        ("jnp.where(largest > 0, largest, 1.0)", "largest"),
        ("jnp.exp(2 * jnp.log(draws + 2.0)", "jnp.exp(jnp.log(draws + 2.0)"),
        ("(share - 1.0)", "share"),
        ("sums / jnp.maximum(counts, 1.0)", "sums"),
    ),
    *rows(
        "training/_second_order.py",
        "tests/training/test_points.py",
        ("(state.step > start) & _points", "_points"),
        ("jnp.where(stays[:, None], old,", "jnp.where(~stays[:, None], old,"),
        ("return (state.step - start) //", "return state.step //"),
    ),
    *rows(
        "training/_balance.py",
        "tests/training/test_balance.py",
        ("float(jnp.exp(scale - log))", "float(jnp.exp(log - scale))"),
        ("min(n, _POINTS)", "_POINTS"),
        ("jnp.isfinite(scale - log)", "jnp.isfinite(scale)"),
        ("config.loss_weights.get(k, 1.0) * v", "v"),
        (', method="sum"', ""),
    ),
    *rows(
        "training/_schedule.py",
        "tests/training/test_phases.py::test_chunks_end_where_phases_do_and_where_points_are_redrawn",
        ("(start - first) % redraw", "start % redraw"),
        ("start == first,", "start == 0,"),
        ("if step <= end)", "if step < end)"),
    ),
    *rows(
        "training/_losses.py",
        "tests/training/test_state.py",
        ("times * n for name", "n for name"),
        ("{**problem.points, **config.points} if times > 1 else config.points", "config.points"),
    ),
    *rows(
        "training/_first_order.py",
        "tests/training/test_step.py::test_a_second_moment_at_infinity_stops_a_run",
        ("_all_finite(opt_state))", "jnp.array(True))"),
    ),
    *rows(
        "training/_first_order.py",
        "tests/training/test_step.py::test_m_config_takes_the_objectives_in_turn",
        ("index = state.step % len(names)", "index = 0 * state.step"),
    ),
    *rows(
        "training/_first_order.py",
        "tests/training/test_state.py::test_settings_of_modsync_reach_it",
        ("beta=config.beta,", ""),
        ("granularity=config.granularity,  # type: ignore[arg-type]", ""),
        ('"sparsity_weight": config.sparsity_weight,', ""),
        ('"min_keep": config.min_keep,', ""),
    ),
    *rows(
        "training/_step.py",
        "tests/training/test_state.py::test_inputs_are_standardised_by_mean_and_deviation_of_the_box",
        ('"yes": True, "no": False', '"yes": False, "no": True'),
        ("shift=problem.domain.mean if scaled", "shift=problem.domain.std if scaled"),
    ),
    *rows(
        "training/_step.py",
        "tests/training/test_state.py::test_thresholds_can_be_one_for_all_objectives",
        ("1 if config.shared_threshold else count", "count"),
    ),
    *rows(
        "optimizers/_self_scaled.py",
        "tests/optimizers/test_self_scaled.py",
        ("decrease * seen.step * slope", "decrease * seen.step"),
        ("here >= curvature * slope", "here >= slope"),
        ("(phi - 1) / yhy / tau * w", "(phi + 1) / yhy / tau * w"),
        ("jnp.minimum(scale * root, volume)", "scale * root"),
        ("jnp.minimum(root, 1 / jnp.where(theta > 0, theta, 1.0))", "root", "θ was never above 1 where it could be: no pair of b and h was found"),
        ("jnp.log(volume) / (1 - n)", "jnp.log(volume) / (n - 1)"),
        ("new = (state.count == 0) | ~(g @ direction < 0)", "new = state.count == 0"),
        ("gamma = ys / yy", "gamma = yy / ys"),
        ("& jnp.isfinite(here)", ""),
        ("found.low > 0, jnp.where(new", "found.low >= 0, jnp.where(new"),
        ("found.evaluations == 1", "found.evaluations > 1"),
        ("_GROWTH * found.low", "found.low"),
        ("jnp.where(starts, x, x +", "jnp.where(starts, x, x -"),
        ("jnp.where(starts, x, x + seen.step * seen.line.direction)", "x + seen.step * seen.line.direction"),
    ),
    *rows(
        "training/_estimate.py",
        "tests/training/test_estimate.py",
        ("dense and precise and", "dense and"),
        ("and not settings.cg", ""),
        ("jnp.linalg.norm(changes) / jnp.linalg.norm(found)", "jnp.linalg.norm(changes)"),
        ("jacobian.T @ residuals", "jacobian.T @ jnp.abs(residuals)"),
        ("DAMPING * jnp.trace(product)", "DAMPING * jnp.trace(product) ** 2"),
    ),
    *rows(
        "optimizers/_soap.py",
        "tests/optimizers/test_soap.py",
        ("(count % frequency == 0) & (state.count > 0)", "state.count % frequency == 0"),
        ("left @ x @ right.T if back", "left @ x @ right if back"),
        ("max(leaf.shape) <= largest", "max(leaf.shape) < largest"),
        ("jnp.where(state.count == 0, 0.0, b2)", "b2"),
    ),
    *rows(
        "sweeps/_grid.py",
        "tests/sweeps/test_grid.py",
        ("int(last) + 1)", "int(last))"),
        ("if k in fixed or not _traceable(k)}", "if not _traceable(k)}"),
        ("for r in same}) > 1)", "for r in same}) > 0)"),
        ("key=_work, reverse=True", "key=_work"),
        ("float(config.width) ** 2", "float(config.width)"),
        ("return len(group.replicas) * config.steps", "return config.steps"),
        ("names = json.dumps([replica.name for replica in self.replicas])", "names = self.label"),
        ("changed.get(field, settings.get(field, {}))", "settings.get(field, {})"),
        ("changed.get(field, settings.get(field, {}))", "changed.get(field, {})"),
        ('"Array" in str(_parameter(name).annotation)', "True"),
        ("_owner(n) in parts[method]", "True"),
    ),
    *rows(
        "sweeps/_halving.py",
        "tests/sweeps/test_halving.py",
        ("ranked[: math.ceil(len(ranked) / eta)]", "ranked[: len(ranked) // eta]"),
        ("statistics.fmean(logs)", "statistics.median_high(logs)"),
        ("math.log(max(score, smallest)) for", "max(score, smallest) for"),
        ("if score is not None]", "if score]"),
        ("if logs else math.inf", "if logs else 0.0"),
        ('if name != "seed"', ""),
        ("steps // eta // every * every", "steps // eta"),
        ("count, steps = math.ceil(count / eta), after", "count, steps = count // eta, after"),
        ("count, steps = math.ceil(count / eta), after", "count = math.ceil(count / eta)"),
    ),
    *rows(
        "sweeps/_group.py",
        "tests/sweeps/test_group.py",
        ("-len(group.replicas) % share", "len(group.replicas) % share"),
        ('name.startswith("coefficients.")', 'name.startswith("none")'),
        ("self.group.config.with_numbers(numbers)", "self.group.config"),
        ("self._problem_of(config) if self._varies else self.problem", "self.problem"),
        ("_step.build(problem, self.network, config, place), config.seed", "_step.build(problem, self.network, config, place), self.group.config.seed"),
        ("_measure.references(self._problem_of(config), config)", "_measure.references(self.problem, config)"),
        ("if chunk.begins and chunk.phase:", "if chunk.phase:"),
        ("trainer.like(phase_of(config, done))", "trainer.like()"),
        ("chunk.start >= until", "chunk.start > until"),
        ("int(begun.runs.step.max())", "int(begun.runs.step.min())"),
        ("trainer.evaluate(batch, row[chunk.end])", "trainer.evaluate(batch, row[chunk.end] - 1)"),
        ("jnp.where(state.healthy, row[name], jnp.nan)", "row[name]"),
        ("before & ~alive).items()", "~alive).items()"),
        ("chunk.saves or stop or chunk.end == until or", "chunk.saves or stop or"),
        ("chunk.end == until or not alive.any():", "chunk.end == until:"),
        ("if stop and chunk.end < config.total_steps:", "if stop:"),
        ("if chunk.saves or stop or", "if chunk.saves or"),
        ("[: len(trainer.group.replicas)]", ""),
        ("failures = _failures(trainer, batch, ~alive)", "failures = _failures(trainer, batch, alive)"),
        ("jnp.nanmin(errors)", "jnp.nanmax(errors)"),
        ("score = None if failure else float", "score = float"),
        ("member(host, index), failures", "member(host, 0), failures"),
        ("trainer.group.replicas[index].config, batch.runs", "trainer.group.config, batch.runs"),
    ),
    *rows(
        "sweeps/_store.py",
        "tests/sweeps/test_store.py",
        ('outcomes[i].result["score"])[:1]', 'outcomes[i].result["loss"]["selected"])[:1]'),
        ('outcomes[i].result["score"])[:1]', 'outcomes[i].result["score"])[-1:]'),
        ("if not outcome.failure]", "]"),
        ("self._export_run(trainer, group.replicas[index], outcomes[index])", "self._export_run(trainer, group.replicas[index], outcomes[0])"),
        ("held &= set(_hosts", "held |= set(_hosts"),
        ('("result.json", "failed.txt")', '("result.json",)'),
        ("sorted(self._results, key=_order)", "sorted(self._results)"),
        ('done[replica.name]["index"]', "0"),
        ("if len(homes) < len(group.replicas) or not", "if not"),
        ("lambda: all(map(whole, paths.values()))", "lambda: any(map(whole, paths.values()))"),
        ("best = outcome.state.best_params", "best = outcome.state.params"),
        ("run.save(int(outcome.state.step), outcome.state)", "run.save(int(outcome.state.best_step), outcome.state)"),
        ("        if outcome.failure:\n            run", "        if False:\n            run"),
        ("self._results.setdefault(_file(stage), {}).update(results)", "self._results[_file(stage)] = results"),
    ),
    *rows(
        "sweeps/_sweep.py",
        "tests/sweeps/test_stages.py",
        ("            begin = stage\n", ""),
        ("in_play = _halving.survivors(in_play,", "_halving.survivors(in_play,"),
        ("trainer, folder, meter.line, show, until=stage,", "trainer, folder, meter.line, show,"),
        ("until=stage, inherit=inherit", "until=stage"),
        ("return False\n    return True", "return True\n    return True"),
        ("store.missing(in_play, stage), fixed)", "store.missing(in_play, stage))"),
        ("needed <= limit or count <= share", "needed <= limit"),
        ("if count <= share and needed", "if needed"),
        ("count * limit / needed", "count * needed / limit"),
        ("// share, 1) * share", ", 1)"),
        ("count - 1) // share", "count) // share", "what fits is fewer than all there are; this holds it where the quotient is rounded up"),
        ("range(0, count, size)", "range(0, count - 1, size)"),
        ("memory_gib * 2**30", "memory_gib * 1e9"),
        ("Group(piece, group.numbers)", "Group(piece, ())"),
    ),
    *rows(
        "sweeps/_table.py",
        "tests/sweeps/test_table.py",
        ("for outcome in outcomes), key=len)", "for outcome in outcomes), key=lambda rows: -len(rows))"),
        ('== replica.config.total_steps', '== replica.config.steps'),
        ('"finished" if ended else "stopped"', '"finished"'),
        ('"not finite" if failure else "finished" if ended', '"finished" if ended'),
        ('errors["mean_absolute"]["selected"]', 'errors["mean_absolute"]["final"]'),
        ("1e3 / rate if rate", "1 / rate if rate"),
        ('"score": score}', '"score": result["score"]}'),
        ('result["keep"]["selected"] if', 'result["keep"]["final"] if'),
    ),
    *rows(
        "sweeps/_replicas.py",
        "tests/sweeps/test_replicas.py",
        ('return "map" if jax.default_backend() == "cpu" else "vmap"', 'return "vmap" if jax.default_backend() == "cpu" else "map"'),
        ('if strategy == "vmap" else', 'if strategy == "map" else'),
        ("count == 1 or len(leaf) % count", "count == 1"),
        ("devices.reshape(-1, point_devices)", "devices.reshape(point_devices, -1).T", "which devices share a replica's points changes their traffic, no result"),
    ),
    *rows(
        "sweeps/_hosts.py",
        "tests/sweeps/test_replicas.py",
        ("_of_each(np.bool_(flag)).any()", "_of_each(np.bool_(flag)).all()"),
        ("np.uint8))[0].tobytes()", "np.uint8))[-1].tobytes()"),
    ),
    *rows(
        "studies/_evidence.py",
        "tests/studies/test_evidence.py",
        ("if all((p, s) in logs for p in problems)", "if any((p, s) in logs for p in problems)"),
        ("math.sqrt(len(values))", "math.sqrt(len(values) - 1)"),
        ("values.std(ddof=1)", "values.std(ddof=0)"),
        ("(1 + _COVERAGE) / 2", "_COVERAGE"),
        ("upper[problem, seed] - lower[problem, seed]", "lower[problem, seed] - upper[problem, seed]"),
        ("if math.isfinite(error) else 1.0", "if math.isfinite(error) else 0.0"),
        ("len(known) - rank", "len(known)"),
        ("mean_error(shared, base, width).low > mean_error(shared, standard, width).high", "mean_error(shared, base, width).mean > mean_error(shared, standard, width).mean"),
        ("set.intersection(*trained)", "set.union(*trained)"),
        ("fastest[row[\"width\"]] = min(cost,", "fastest[row[\"width\"]] = max(cost,"),
        ("if line[\"step\"] <= last]", "]"),
        ("best = min(until", "best = max(until"),
    ),
    *rows(
        "studies/_tables.py",
        "tests/studies/test_evidence.py",
        ("_HALF if fails else _LEVEL", "_LEVEL"),
        ("if ratio.high <= bound", "if ratio.mean <= bound"),
        ("if ratio.low > bound", "if ratio.mean > bound"),
        ("for pair in pairs if pair[1] == base", "for pair in pairs"),
        ("(min(RATES), max(RATES))", "(min(RATES),)"),
    ),
    *rows(
        "studies/_results.py",
        "tests/studies/test_study.py::test_runs_of_another_size_are_not_mixed_in tests/studies/test_study.py::test_results_are_rows_that_survive_the_file",
        ("if _cell(row) != cell]", "]"),
        ('"seeds", "width", "widths")', '"seeds", "steps", "width", "widths")'),
    ),
    *rows(
        "training/_optimizers.py",
        "tests/training/test_state.py",
        ("if config.masked_layers == \"inner\" else None", "if config.masked_layers == \"all\" else None"),
        ("reset_keep=config.reset_keep", "reset_keep=0.01"),
        ("pull=config.sparsity_pull", 'pull="constant"'),
    ),
    *rows(
        "training/_optimizers.py",
        "tests/training/test_config.py",
        ("weight * jnp.sign(param)", "weight * param"),
        ("if param.ndim >= 2 else update", "if param.ndim >= 1 else update"),
    ),
    *rows(
        "pruning.py",
        "tests/test_pruning.py",
        ("* left**3", "* left**2"),
        ("(state + 1) % every == 0", "state % every == 0"),
        ("jnp.maximum(count - 1, 0)", "jnp.maximum(count, 0)"),
        ("jax.random.fold_in(key, _MASKS)", "key"),
        ("astype(leaf.dtype) / (1 - rate)", "astype(leaf.dtype)"),
        ("act=lambda weights, own: weights,", "act=lambda weights, own: act_for(weights, own, 0),"),
    ),
    *rows(
        "training/_export.py",
        "tests/training/test_export.py",
        ('layer["kernel"] * factor * pace', 'layer["kernel"] * pace'),
        ('layer["bias"] * pace', 'layer["bias"]'),
        ("if network.adaptive and k < count - 1 else 1", "if network.adaptive and k < count - 2 else 1"),
        ("0.044715", "0.04"),
        ("act(dense(k + 4, h), k + 2)", "act(dense(k + 4, h), k)"),
        ("if network.omega != 1:", "if network.omega == 1:"),
    ),
    *rows(
        "problems/_conditions.py",
        "tests/problems/test_data.py",
        ("found[name] / noise", "found[name] * noise"),
        ("np.all(self.noise > 0)", "np.all(self.noise >= 0)"),
    ),
    *rows(
        "geometry/_shapes.py",
        "tests/test_geometry.py::test_the_divergence_theorem_holds",
        ("(inner != outer) & first", "inner != outer"),
        ("jnp.where(inner[..., None], normal, -normal)", "normal"),
        ("(unit[..., 0] - starts[which]) / shares[which]", "unit[..., 0]"),
        ("piece.measure for piece in pieces", "1.0 for piece in pieces"),
    ),
    *rows(
        "geometry/_pieces.py",
        "tests/test_geometry.py::test_the_divergence_theorem_holds",
        ("height = 1 - 2 * unit[..., :1]", "height = jnp.cos(jnp.pi * unit[..., :1])"),
        ("along = unit[..., 0] * stops[-1]", "along = unit[..., 0] ** 2 * stops[-1]"),
    ),
    *rows(
        "geometry/_mesh.py",
        "tests/test_geometry.py::test_a_mesh_agrees_with_an_independent_search tests/test_geometry.py::test_a_mesh_has_the_area_mean_and_boundary_of_what_it_covers tests/test_geometry.py::test_points_of_the_inside_are_uniform",
        ("root = jnp.sqrt(unit[:, 1:2])", "root = unit[:, 1:2]"),
        ("np.where(inward, -normal, normal)", "np.where(inward, normal, -normal)"),
        ("np.square(corners.sum(1))) / 12", "np.square(corners.sum(1))) / 11"),
    ),
    *rows(
        "diagnostics/_direction.py",
        "tests/diagnostics/test_watch.py",
        ("grads=leaf, inner=None, products=None", "grads=leaf, inner=None"),
    ),
    *rows(
        "problems/_unknowns.py",
        "tests/problems/test_unknowns.py",
        ("start / self.rate", "start * self.rate"),
        ("np.all(low < start)", "np.all(low <= start)"),
        ("return high - jnp.exp(z)", "return high - jnp.exp(-z)"),
        ("low + (high - low) * jax.nn.sigmoid(z)", "low + high * jax.nn.sigmoid(z)"),
        ("np.log((value - low) / (high - value))", "np.log((high - value) / (value - low))"),
        ("x[axes]", "x[: len(self.of)]"),
        ("start + change", "change"),
        ("low=max(unknown.low, low)", "low=unknown.low"),
        ("len(found) < len(unknowns) or ", ""),
    ),
    *rows(
        "problems/_base.py",
        "tests/problems/test_unknowns.py tests/problems/test_problem.py",
        ("if condition is start.conditions.get(name) else condition", "if name in made.conditions else condition"),
        ("(made if self.residual is start.residual else own).residual", "made.residual"),
        ("(made if self.observe is start.observe else own).observe", "made.observe"),
        ("if name not in names}", "}"),
        ("return value if traced or value.ndim else Start(value)", "return value"),
        ("_CHECKED.reset(checked)", "pass"),
        ("jnp.linalg.norm(at_points - true) / np.linalg.norm(true)", "jnp.linalg.norm(at_points - true)"),
        ("return RESIDUAL if part.startswith(f\"{RESIDUAL}.\") else part", "return part"),
        ("if face.startswith(\"t=\")), \"\")", "if face.startswith(\"x=\")), \"\")"),
        ("if len(found) > 1 else (RESIDUAL,)", "if found else (RESIDUAL,)"),
    ),
    *rows(
        "training/_intervals.py",
        "tests/training/test_intervals.py",
        ("+ np.abs(step)", ""),
        ("counts |= {name: len(condition.points)", "counts |= {name: 2"),
        ("- float(np.sum(rows @ inverse * rows))", ""),
        ("return float(losses.scale(term, batch)) ** 2", "return 1 / len(jacobians[term])"),
        ("(np.asarray(x) != 0) | of_unknown", "np.ones(x.size, bool)"),
        ("(np.asarray(x) != 0) | of_unknown", "np.asarray(x) != 0"),
        ("np.where(of_unknown[free], np.finfo(np.float64).eps, DAMPING)", "DAMPING"),
        ("np.clip(two, -LAST, LAST)", "two"),
        ("DAMPING = 1e-10", "DAMPING = 1e-3"),
        ("QUANTILE = 1.959964", "QUANTILE = 1.644854"),
    ),
    *rows(
        "training/_losses.py",
        "tests/training/test_losses.py tests/training/test_traces.py",
        ("return sorted(part for part in index_of if term_of(part) in batch)", "return sorted(batch)"),
        ("weight_of[p] * total / len(f) * f", "weight_of[p] * f"),
    ),
    *rows(
        "training/_warm.py",
        "tests/training/test_warm.py",
        ("before if same else random", "random"),
        ("if not labels.keys() <= found.keys():", "if True:"),
    ),
]  # fmt: skip


def outcome(mutant: Mutant) -> str:
    """`killed`, `survived`, or what is wrong with the row."""
    text = (ROOT / "modsync_jax" / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        return f"stale: its text is in the file {text.count(mutant.old)} times"
    with tempfile.TemporaryDirectory(prefix="mutant_") as folder:
        for name in ("modsync_jax", "tests", "benchmarks"):
            skipped = shutil.ignore_patterns("__pycache__", "results")
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=skipped)
        shutil.copy(ROOT / "pyproject.toml", folder)
        changed = Path(folder) / "modsync_jax" / mutant.file
        changed.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        # Longer tests too, which the project's own settings leave out.
        marked = ["-m", "not faults and not tpu_compile"]
        command = [sys.executable, "-m", "pytest", "-x", "-q", *marked, *mutant.tests.split()]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode > 1:
        return f"no test ran: {run.stdout[-300:]}{run.stderr[-300:]}"
    return "killed" if run.returncode else "survived"


def main() -> int:
    """Runs the mutants, prints the outcome of each and the totals."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", default="", help="mutants whose file or text holds this word")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    chosen = [m for m in MUTANTS if args.only in f"{m.file} {m.old}"]
    survivors = unexplained = 0
    with tempfile.TemporaryDirectory(prefix="mutants_compiled_") as cache:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        with ThreadPoolExecutor(args.workers) as pool:
            for mutant, result in zip(chosen, pool.map(outcome, chosen), strict=True):
                survivors += result == "survived"
                unexplained += result != "killed" and not (result == "survived" and mutant.survives)
                edit = f"{mutant.old!r} -> {mutant.new!r}"
                print(f"{result:9} {mutant.file}: {edit} {mutant.survives}", flush=True)
    share = survivors / max(len(chosen), 1)
    print(f"{len(chosen)} mutants, {survivors} survive ({share:.1%}), {unexplained} unexplained")
    return int(unexplained > 0)


if __name__ == "__main__":
    sys.exit(main())
