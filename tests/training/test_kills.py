"""Runs that are stopped and killed, as real processes, end with the bits of an unbroken one.

`MODSYNC_KILLS=10 pytest -m '' tests/training/test_kills.py` kills more often.
"""

import json
import os
import platform
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

ROOT = Path(__file__).parents[2]
# A checkpoint every ten steps: most of the run's time is spent in writing them.
COMMAND = [
    sys.executable, "-m", "experiments.train", "--problem=burgers", "--method=modsync+dcgd",
    "--width=8", "--depth=2", "--steps=120", "--then=lbfgs:10", "--points=residual=64",
    "--chunk=5", "--eval_every=10", "--checkpoint_every=10", "--platform=cpu",
]  # fmt: skip
# With jax 0.6, code from the cache of compilations rounds otherwise than fresh code.
CACHED = {"JAX_ENABLE_COMPILATION_CACHE": str(jax.__version_info__ >= (0, 10)).lower()}
ENVIRONMENT = {**os.environ, **CACHED}
KILLS = int(os.environ.get("MODSYNC_KILLS", "2"))


def start(command):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, **pipes)


def wait_for_rows(folder, process, count):
    """Waits until the metrics hold `count` lines, or the process ends."""
    metrics = folder / "metrics.csv"
    while process.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= count:
            return
        time.sleep(0.002)


def ending(folder):
    """All that must not depend on how often a run was interrupted."""
    result = json.loads((folder / "result.json").read_text())
    result.pop("timing")
    manager = ocp.CheckpointManager((folder / "checkpoints").absolute())
    state = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore())
    leaves = {jax.tree_util.keystr(p): x for p, x in jax.tree.leaves_with_path(state)}
    return result, (folder / "metrics.csv").read_text(), leaves


def assert_same_bits(one, other):
    assert one[0] == other[0]
    assert one[1] == other[1]
    assert one[2].keys() == other[2].keys()
    for name, leaf in one[2].items():
        np.testing.assert_array_equal(leaf, other[2][name], err_msg=name)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    # A cache for these tests alone: this run compiles, and the others must end with its bits by the
    # code that they find there.
    ENVIRONMENT["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path_factory.mktemp("compiled"))
    process = start([*COMMAND, f"--output_dir={folder}"])
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return ending(folder)


@pytest.mark.faults
def test_killed_at_random_moments_and_resumed_it_ends_with_the_same_bits(unbroken, tmp_path):
    folder, command = tmp_path / "killed", [*COMMAND, f"--output_dir={tmp_path / 'killed'}"]
    moments = random.Random(0)
    killed = 0
    for _ in range(KILLS):
        resume = ["--resume"] if (folder / "config.json").exists() else []
        metrics = folder / "metrics.csv"
        rows = metrics.read_text().count("\n") if metrics.exists() else 0
        process = start([*command, *resume])
        wait_for_rows(folder, process, min(rows + moments.randint(1, 4), 10))
        time.sleep(moments.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed == KILLS, "the run was too short to be killed that often"
    process = start([*command, "--resume"])
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_same_bits(ending(folder), unbroken)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_saves_and_prints_the_command_that_ends_it(unbroken, tmp_path, number):
    folder = tmp_path / "stopped"
    process = start([*COMMAND, f"--output_dir={folder}"])
    wait_for_rows(folder, process, 6)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("stopped at step") and "Traceback" not in errors
    resume = shlex.split(last.partition("continue with: ")[2])
    assert resume[0] == "python"
    process = start([sys.executable, *resume[1:]])
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_same_bits(ending(folder), unbroken)


@pytest.mark.faults
def test_a_full_disk_is_one_clear_line_and_the_last_checkpoint_stays(tmp_path):
    """A limit on the size of files is what a test can have everywhere of a disk that is full."""
    folder = tmp_path / "full"

    command = [*COMMAND, f"--output_dir={folder}"]
    limited = ["sh", "-c", 'ulimit -f 24; exec "$@"', "sh", *command]  # in blocks of 512 bytes
    process = start(limited)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"can't write to {folder}: File too large") and "--resume" in last
    assert "Traceback" not in errors
    assert not (folder / "result.json").exists()
    process = start([*command, "--resume"])
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def newest(folder):
    steps = [path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
    return max(steps, key=lambda path: int(path.name))


@pytest.mark.long
@pytest.mark.faults
def test_a_damaged_checkpoint_is_found_and_the_one_before_is_used(unbroken, tmp_path):
    folder, command = tmp_path / "run", [*COMMAND, f"--output_dir={tmp_path / 'run'}"]
    process = start(command)
    wait_for_rows(folder, process, 8)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    known = json.loads((folder / "checksums.json").read_text())
    file = max((newest(folder) / "default").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    step = newest(folder).name
    # A kill between the two leaves a checkpoint without a checksum, of which nothing is known.
    known.setdefault(step, "of the files as they were")
    (folder / "checksums.json").write_text(json.dumps(known))
    process = start([*command, "--resume"])
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    said = [line for line in errors.splitlines() if "damaged" in line]
    assert said == [f"the checkpoint of step {step} in {folder} is damaged; using the one before"]
    assert_same_bits(ending(folder), unbroken)


@pytest.mark.long
def test_two_programs_do_not_share_a_folder(tmp_path):
    folder = tmp_path / "run"
    command = [*COMMAND, f"--output_dir={folder}", "--steps=1000000"]
    process = start(command)
    wait_for_rows(folder, process, 3)
    second = start([*command, "--resume"])
    _, errors = second.communicate(timeout=100)
    assert second.returncode == 2
    assert errors.strip().splitlines() == [
        f"{folder} is in use by process {process.pid} on {platform.node()}; wait for it, stop it, "
        "or choose another folder"
    ]
    assert process.poll() is None
    process.kill()
    process.communicate()
