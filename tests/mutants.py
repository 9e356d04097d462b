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
      tests: files or folders of tests, separated by blanks.
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
        ("* cotangent,)", "+ 0 * cotangent,)"),
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
        command = [sys.executable, "-m", "pytest", "-x", "-q", *mutant.tests.split()]
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
