"""Who may know whom, and how small the core is."""

import ast
import io
import sys
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "modsync_jax"
CORE = {"_ranges", "gradients", "aggregators", "balancing", "sparsity", "adapters", "transform"}
CORE_LIBRARIES = {"jax", "optax", "chex", "numpy"}
OUTER = {"experiments", "benchmarks", "tests"}

# Which parts of the package a part may import, beside itself; parts not named here may import all.
# `_names`, the wording of errors, knows nothing and may be known to all but the core.
ALLOWED = dict.fromkeys(sorted(CORE), CORE) | {
    "_names": set(),
    "blocks": set(),
    "jets": set(),
    "calculus": {"_names", "jets"},
    "networks": {"_names", "jets"},
    "sampling": {"_names"},
    "problems": {"_names", "_ranges", "blocks", "calculus", "sampling"},
    "methods": CORE | {"_names"},
    "citations": {"_names", "methods", "problems"},
    "reporting": set(),
}


def modules(part: str) -> list[Path]:
    """The files of a part, which is a module or a package; none while it is not there."""
    return sorted((PACKAGE / part).rglob("*.py")) or sorted(PACKAGE.glob(f"{part}.py"))


def imported(path: Path) -> set[str]:
    """Absolute dotted names of all that a file imports, wherever in it."""
    package = [PACKAGE.name, *path.relative_to(PACKAGE).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return names


def own_parts(names: set[str]) -> set[str]:
    """The parts of our package among imported names."""
    prefix = f"{PACKAGE.name}."
    parts = {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    return parts | ({"__init__"} if PACKAGE.name in names else set())


@pytest.mark.parametrize("part", ALLOWED)
def test_part_imports_only_the_parts_that_it_may_know(part):
    for path in modules(part):
        assert own_parts(imported(path)) <= ALLOWED[part] | {part}, path


@pytest.mark.parametrize("part", sorted(CORE))
def test_core_imports_only_the_libraries_that_every_jax_code_base_has(part):
    for path in modules(part):
        libraries = {name.split(".")[0] for name in imported(path)} - {PACKAGE.name}
        assert libraries <= CORE_LIBRARIES | sys.stdlib_module_names, path


def test_package_imports_no_program_benchmark_or_test():
    for path in PACKAGE.rglob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & OUTER, path


def test_imports_are_seen_in_every_form(tmp_path, monkeypatch):
    """The rules above hold nothing unless imports are found."""
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "modsync_jax")
    path = tmp_path / "modsync_jax" / "problems" / "_x.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import flax.linen as nn\nfrom modsync_jax import training\nimport modsync_jax\n"
        "def f():\n    from modsync_jax.networks import MLP\n"
        "from . import _y\nfrom .. import sweeps\nfrom ..reporting.report import html\n"
    )
    expected = {"training", "networks", "problems", "sweeps", "reporting", "__init__"}
    assert own_parts(imported(path)) == expected
    assert "flax.linen" in imported(path)


def code_lines(path: Path) -> int:
    """Lines without docstrings, comments and blank ones."""
    source = path.read_text(encoding="utf-8")
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped | {tokenize.ENDMARKER}:
            lines |= set(range(token.start[0], token.end[0] + 1))
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, owners) and ast.get_docstring(node, clean=False) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def test_code_lines_are_counted_without_docstrings_comments_and_blank_lines(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(
        '"""A\nmodule."""\n\nx = [\n    1,\n]  # kept\n# gone\n\ndef f():\n    """Doc."""\n'
    )
    assert code_lines(path) == 4


def test_core_is_under_400_lines():
    core = [*modules("sparsity"), *modules("gradients"), *modules("transform")]
    files = [*core, PACKAGE / "aggregators" / "_base.py"]
    assert len(files) >= 6
    assert sum(map(code_lines, files)) < 400


# Not methods: the exports, the wrapper of the core, and the solver that five convex methods share.
MACHINERY = ("__init__.py", "_base.py", "_faces.py")
METHODS = [path for path in modules("aggregators") if path.name not in MACHINERY]


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_method_of_aggregation_is_under_40_lines(path):
    assert code_lines(path) < 40
