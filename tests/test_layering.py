"""Who may know whom."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "modsync_jax"
CORE = {
    "_moved",
    "_ranges",
    "gradients",
    "loss_indexed",
    "aggregators",
    "balancing",
    "optimizers",
    "sparsity",
    "adapters",
    "pruning",
    "transform",
    "diagnostics",
}
CORE_LIBRARIES = {"jax", "optax", "chex", "numpy"}
OUTER = {"experiments", "benchmarks", "tests"}

# Which parts of the package a part may import, beside itself; parts not named here may import all.
# `_names`, the wording of errors, knows nothing and may be known to all but the core.
ALLOWED = dict.fromkeys(sorted(CORE), CORE) | {
    "_names": set(),
    "_calls": set(),
    "blocks": set(),
    "jets": set(),
    "directions": {"sampling"},
    "calculus": {"_names", "directions", "jets"},
    "networks": {"_names", "jets"},
    "sampling": {"_names"},
    "geometry": {"_names", "sampling"},
    "problems": {
        "_calls",
        "_moved",
        "_names",
        "_ranges",
        "blocks",
        "calculus",
        "geometry",
        "sampling",
    },
    "methods": CORE | {"_calls", "_names"},
    "citations": {"_names", "methods", "problems"},
    "reporting": set(),
}
ALLOWED["training"] = {"_version", *CORE, *ALLOWED}


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


def test_parts_below_a_part_are_known_by_name():
    """What a rule allows exists, and training may know neither sweeps nor itself by another way."""
    assert "sweeps" not in ALLOWED["training"]
    assert {part for part in ALLOWED if modules(part)} >= set(ALLOWED) - {"adapters"}
    for path in modules("training"):
        assert "sweeps" not in own_parts(imported(path))


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
