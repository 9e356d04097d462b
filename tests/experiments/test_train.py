"""The programs as a user meets them: help, mistakes, a small run, an evaluation."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from modsync_jax import solve

ROOT = Path(__file__).parents[2]
SMALL = ["--steps=20", "--width=8", "--depth=1", "--points=residual=32", "--platform=cpu"]


def program(name, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


MISTAKES = {
    "--problem=burger": "unknown problem 'burger'; did you mean 'burgers'?",
    "--method=modsnc+dcgd": "method 'modsnc+dcgd': unknown part 'modsnc'; did you mean 'modsync'?",
    "--widht=3": "Unknown command line flag 'widht'. Did you mean: width",
    "--polish_steps=3": "the setting polish_steps is gone; use then='lbfgs(points=8):3000'",
    "--then=lbfgs": "then: 'lbfgs' is not name:steps",
    "--method=adam": "the sum of the gradients before it is called sum now",
    "--width=-3": "width is -3; it must be 1 or more",
    "--width=abc": "--width=abc",
    "--width=1000000": "GiB and the device has",
    "--steps=0": "steps is 0; it must be 1 or more",
    "--points=residual": "it must be name=number",
    "--coefficients=frequency=3": "unknown coefficient of burgers 'frequency'",
    "--points=residal=3": "did you mean 'residual'?",
    "--resume": "--resume needs --output_dir",
    "--problem=nowhere.py:heat": "no Python file",
    "--platform=gpx": "unknown platform 'gpx'",
    "--compilation_cache=/dev/null/x": "can't keep compiled programs in /dev/null/x: Not a direct",
    "burgers": "unexpected argument 'burgers'",
}


@pytest.mark.long
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(mistake, tmp_path):
    output = [] if mistake == "--resume" else [f"--output_dir={tmp_path / 'x'}"]
    process = program("train", *SMALL, *output, mistake)
    assert process.returncode == 2
    assert process.stdout == ""
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1 and MISTAKES[mistake] in lines[0]
    assert not (tmp_path / "x").exists()


def test_help_names_every_setting_and_shows_examples():
    process = program("train", "--help")
    for text in ("python -m experiments.train --problem=burgers", "--method:", "--min_keep:",
                 "lra(alpha=0.5)+dcgd", "--output_dir:", "The network", "Devices",
                 "--[no]resume", "--platform:"):  # fmt: skip
        assert text in process.stdout, text


@pytest.mark.slow
def test_train_then_evaluate_then_train_again(tmp_path):
    run = tmp_path / "run"
    trained = program(
        "train",
        "--problem=helmholtz2d",
        "--method=modsync+dcgd",
        "--coefficients=a2=2",
        *SMALL,
        f"--output_dir={run}",
    )
    assert trained.returncode == 0, trained.stderr
    first, *rows = trained.stderr.strip().splitlines()
    for fact in ("helmholtz2d by modsync+dcgd", "1×8 tanh", "float32", "jax"):
        assert fact in first
    assert "step 20/20" in rows[-1] and "keep" in rows[-1] and "error" in rows[-1]
    assert f"see {run}/report.html" in trained.stdout

    evaluated = program("evaluate", f"--run={run}", "--grid=11,21")
    assert evaluated.returncode == 0, evaluated.stderr
    arrays = np.load(run / "evaluation.npz")
    assert arrays["points"].shape == (231, 2) and arrays["prediction"].shape == (231, 1)
    x, y = np.pi * arrays["points"].T  # the reference of the run's own coefficients; roundings
    np.testing.assert_allclose(arrays["reference"][:, 0], np.sin(x) * np.sin(2 * y), atol=1e-14)
    assert (run / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "evaluation.pdf").read_bytes().startswith(b"%PDF")

    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again = program("train", "--problem=helmholtz2d", *SMALL, f"--output_dir={run}")
    assert again.returncode == 2 and "exists and is not empty" in again.stderr
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of 20 steps."""
    run = tmp_path_factory.mktemp("runs") / "run"
    solve("burgers", "dcgd", output_dir=run, steps=20, width=8, depth=1, report=False,
          points={"residual": 32}, progress=False, checkpoint_every=500)  # fmt: skip
    return run


@pytest.mark.long
def test_evaluate_says_that_a_run_is_unfinished_and_takes_a_problem(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "result.json").unlink()
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace('"burgers"', '"mine"').replace("20,", "500,"))
    missing = program("evaluate", f"--run={run}")
    assert missing.returncode == 2 and "--problem=file.py:name says where it is" in missing.stderr
    process = program("evaluate", f"--run={run}", "--problem=burgers", "--grid=5,5")
    assert process.returncode == 0, process.stderr
    assert "not finished: these are its best parameters until step 20 of 500" in process.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "--run is missing"),
        (["--run=nowhere"], "nowhere holds no config.json"),
        (["--run=RUN", "--grid=100000"], "grid is '100000'; it must be a whole number of 2 or"),
        (["--run=RUN", "--grid=100000,100000"], "grid has 10,000,000,000 points; 20,000,000 are"),
        (["--run=RUN", "--grid=5,5", "--output=/dev/null/x/y"], "directory; name another place"),
    ],
)
def test_mistakes_of_evaluate(arguments, hint, trained):
    process = program("evaluate", *(text.replace("RUN", str(trained)) for text in arguments))
    assert process.returncode == 2 and hint in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1


@pytest.mark.long
def test_export_writes_the_network_of_a_run(trained, tmp_path):
    process = program("export", f"--run={trained}", f"--output_dir={tmp_path / 'out'}")
    assert process.returncode == 0, process.stderr
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {"network.py", "network.npz", "network.jax"} and "bytes" in process.stdout
    code = "from network import network; print(network([[0.5, 0.0]]).shape)"
    alone = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "out", capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert alone.stdout == "(1, 1)\n"
    nowhere = program("export", f"--run={trained}", "--output_dir=/dev/null/x")
    assert nowhere.returncode == 2 and "can't write into /dev/null/x: Not a" in nowhere.stderr


@pytest.fixture
def of_a_user(tmp_path, monkeypatch):
    """A user's cache folder, without the cache that the other tests share."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(folder):
    return {path: path.read_bytes() for path in folder.rglob("*-cache")}


@pytest.mark.slow
@pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="nothing is kept with older JAX")
def test_compiled_programs_are_kept_for_the_next_run(of_a_user, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    assert program("train", *SMALL, f"--output_dir={tmp_path / 'a'}").returncode == 0
    found = kept(of_a_user)
    assert found and all(of_a_user / "modsync_jax" in path.parents for path in found)
    assert program("train", *SMALL, f"--output_dir={tmp_path / 'b'}").returncode == 0
    assert kept(of_a_user) == found
    first, second = ((tmp_path / name / "metrics.csv").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="nothing is kept with older JAX")
def test_without_a_cache_folder_nothing_is_kept_and_a_line_says_so(monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    code = (
        "import jax; from experiments import _cache; _cache.keep('auto'); "
        "print(jax.config.jax_compilation_cache_dir)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "None"
    assert "warning: can't keep compiled programs in /dev/null/modsync_jax" in process.stderr


def test_asking_for_a_gpu_that_is_not_there_is_a_mistake(of_a_user, tmp_path):
    flags = [*SMALL[:-1], "--platform=gpu", "--compilation_cache=none"]
    process = program("train", *flags, f"--output_dir={tmp_path / 'x'}")
    assert process.returncode == 2
    assert "--platform=gpu was asked for, but JAX found only cpu; install" in process.stderr
    assert not kept(of_a_user) and not (tmp_path / "x").exists()


@pytest.mark.long
def test_ctrl_c_before_the_first_step_is_one_line(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.train", f"--output_dir={tmp_path / 'x'}"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"},
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while not (tmp_path / "x" / "config.json").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130 and "Traceback" not in errors
    assert errors.strip().splitlines()[-1].startswith(("stopped", "stopping"))


@pytest.mark.long
def test_a_user_s_own_problem_file_trains_and_resumes_from_elsewhere(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from modsync_jax.calculus import partials\n"
        "from modsync_jax.problems import Problem, value\n"
        "from modsync_jax.sampling import box\n"
        "def residual(u, x):\n"
        "    return {'pde': partials(u, x, 'xx')[0] - 1.0}\n"
        "def mine(start):\n"
        "    return Problem('mine', box(x=(0, 1)), residual, {'left': value('x=0', start)},\n"
        "                   {'residual': 8, 'left': 1})\n"
    )
    run = tmp_path / "run"
    small = [flag for flag in SMALL if not flag.startswith("--points")]
    process = program(
        "train", f"--problem={tmp_path / 'mine.py'}:mine", "--coefficients=start=2", *small,
        f"--output_dir={run}",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "loss" in process.stdout
    assert program("train", f"--output_dir={run}", "--resume").returncode == 0
