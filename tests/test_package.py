"""The wheel: what is in it, and that it imports where nothing else of the project is."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"  # building leaves folders behind: not in the checkout
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for part in ("modsync_jax", "experiments", "benchmarks", "tests"):
        (source / part).symlink_to(ROOT / part)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    subprocess.run(build, check=True, capture_output=True, text=True, timeout=300)
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_the_package_alone_with_its_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].split("-")[0] for name in names} == {"modsync_jax"}
    files = {str(p.relative_to(ROOT)) for p in (ROOT / "modsync_jax").rglob("*.py")}
    assert files | {"modsync_jax/py.typed"} <= set(names)


def test_wheel_imports_on_its_own(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "import modsync_jax; print(modsync_jax.__file__, modsync_jax.solve.__module__)"
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(str(tmp_path / "modsync_jax" / "__init__.py"))


def test_the_core_imports_neither_flax_nor_the_rest_of_the_package():
    code = (
        "import sys, modsync_jax; "
        "print([m for m in sys.modules if m.startswith(('flax', 'orbax', 'matplotlib', "
        "'modsync_jax.training', 'modsync_jax.problems'))])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert process.stdout.strip() == "[]"


def test_the_package_lists_what_it_imports_later_and_names_what_is_gone():
    import modsync_jax
    from modsync_jax import methods, problems

    assert {"solve", "load", "cite"} <= set(dir(modsync_jax))
    for owner, name, new in (
        (modsync_jax, "chunks", "modsync_jax.blocks"),
        (methods, "is_masked", "indexed(name).kept"),
        (problems.get("heat"), "groups", "Problem.objective_terms"),
    ):
        with pytest.raises(AttributeError, match=f"{name} is gone; use ") as said:
            getattr(owner, name)
        assert new in str(said.value)
        assert not hasattr(owner, "anything_else")


def test_an_import_starts_no_device():
    """Programs set the number of devices and the floating types after it."""
    code = "import jax, modsync_jax.sweeps; jax.config.update('jax_num_cpu_devices', 2)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
