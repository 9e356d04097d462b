"""README and docs are true: Python blocks run, the diff applies, commands run, links hold."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "WORKSPACE.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


def faster(code):
    """Fewer steps and layers: what is tested is that the text works, not how accurate it is."""
    code = re.sub(r"depth=[23]\b", "depth=1", code)
    code = re.sub(r"steps=\d[\d_]*", "steps=20", code)
    return re.sub(r'(then="[^"]*):\d+', r"\1:20", code)


@pytest.mark.long
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope, before = {}, jax.config.jax_enable_x64
    try:
        for number, code in enumerate(blocks(page, "python")):
            exec(compile(faster(code), f"{page.name}, block {number}", "exec"), scope)
    finally:
        jax.config.update("jax_enable_x64", before)  # pages may switch it on


def test_the_reader_s_own_pde_takes_at_most_25_lines():
    code = blocks(ROOT / "docs" / "your_pde.md", "python")[0]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 25
    assert "reference" not in code and "solve(" in code


def test_the_readme_s_diff_turns_a_working_step_into_a_working_step():
    (diff,) = blocks(ROOT / "README.md", "diff")
    lines = diff.splitlines()
    assert sum(line[0] == "+" for line in lines) <= 5

    def loss(p, x):
        return jnp.mean((x @ p - 1.0) ** 2)

    results = []
    for dropped in "+-":
        code = [line[1:] for line in lines if line[0] != dropped]
        scope = {
            "jax": jax, "optax": optax, "x": jnp.eye(3), "params": jnp.ones((3, 2)),
            "residual_loss": loss, "boundary_loss": lambda p, x: jnp.sum(p**2),
        }  # fmt: skip
        at = next(i for i, line in enumerate(code) if line.startswith("tx = "))
        code.insert(at + 1, "state = tx.init(params)")
        exec("\n".join(code), scope)
        results.append(scope["params"])
    assert results[0].shape == results[1].shape == (3, 2)


def commands(page):
    texts = [*blocks(page, "console"), *blocks(page, "bash")]
    lines = [line for text in texts for line in text.replace("\\\n", " ").splitlines()]
    return [line.partition("#")[0].strip() for line in lines]


# Pages whose programs take minutes.
MANY = ("accuracy.md", "diagnosis.md", "sweeps.md", "training.md", "your_pde.md")


@pytest.mark.long
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] * (page.name in MANY))
        for page in PAGES
        if commands(page)
    ],
)
def test_commands_of_the_docs_run(page, tmp_path):
    """Programs run as written but for their size and folders; the others exist."""
    (tmp_path / "my_problem.py").write_text(
        blocks(ROOT / "docs" / "your_pde.md", "python")[0].rpartition("\nu = ")[0]
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    for command in commands(page):
        words = shlex.split(command)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            continue
        assert words[:2] == ["python", "-m"], command
        small = []
        if words[2] in ("experiments.train", "experiments.compare") and "--resume" not in words:
            small = ["--steps=20", "--width=8", "--depth=1"]
            small += ["--time_limit=5"] * ("--preset=best" in words)
            words = [re.sub(r":\d+", ":10", w) if w.startswith("--then") else w for w in words]
        if words[2] == "experiments.reproduce":
            small = ["--notrain"]
        if words[2] == "experiments.diagnose":
            small = ["--steps=20", "--width=8", "--depth=1"]
        if words[2] == "experiments.sweep":
            small = ["--steps=20", "--depth=1"]
            words = [re.sub(r"0\.\.\d+", "0", word).replace("64,128", "4,8") for word in words]
        process = subprocess.run(
            [sys.executable, *words[1:], *small],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert process.returncode == 0, (command, process.stderr)


def test_links_between_pages_hold():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)
