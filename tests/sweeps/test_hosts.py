"""Sweeps of several processes, as on several hosts: real ones, killed, stopped and left alone."""

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import time
from inspect import signature
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
SETTINGS = [
    "--problem=burgers", "--methods=dcgd", "--depth=1", "--points=residual=32", "--dtype=float64",
    "--platform=cpu",
]  # fmt: skip
SHORT = [
    *SETTINGS, "--grid=width=4,6;seed=0..5", "--steps=200", "--chunk=50", "--eval_every=100",
    "--checkpoint_every=100",
]  # fmt: skip
LONG = [
    *SETTINGS, "--grid=seed=0..5", "--width=6", "--steps=4000", "--chunk=100", "--eval_every=500",
    "--checkpoint_every=500",
]  # fmt: skip
# Of 200 float64 steps; after 4000, rounding has grown to less than the second.
ROUNDING, GROWN = 1e-9, 1e-6
# Older JAX takes 100 s to notice.
ADJUSTABLE = "heartbeat_timeout_seconds" in signature(jax.distributed.initialize).parameters


def start(out, settings, *more, devices, environment=None):
    command = [sys.executable, "-m", "experiments.sweep", *settings, f"--output_dir={out}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = {**ENVIRONMENT, **(environment or {})}
    return subprocess.Popen(
        [*command, f"--cpu_devices={devices}", *more], cwd=ROOT, env=env, **pipes
    )


def coordinator():
    """An address that is free."""
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        return f"localhost:{sock.getsockname()[1]}"


def joined(number, address):
    return f"--coordinator={address}", "--num_processes=2", f"--process_id={number}"


def start_two(out, settings, *more):
    address = coordinator()
    return [start(out, settings, *joined(i, address), *more, devices=4) for i in range(2)]


def end(*processes, code=0):
    """Waits for the end of all; what each wrote to standard error. A code of None is a failure."""
    said = [process.communicate(timeout=300)[1] for process in processes]
    codes = [process.returncode for process in processes]
    if code is None:  # of JAX's runtime, with its own words
        assert all(codes), said
        return said
    assert codes == [code] * len(processes), said
    assert "Traceback" not in "".join(said)
    return said


def lines(text):
    return text.strip().splitlines()


def checkpoints(out):
    return [path for path in out.glob("groups/*/checkpoints/*") if path.is_dir()]


def wait_until(what, processes, poll=0.01):
    """Waits until `what()` is true, while all of `processes` run."""
    deadline = time.monotonic() + 200
    while not what():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), "the sweep is over already"
        time.sleep(poll)


def kill(*processes):
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()


def finished(out):
    """The table's rows without what depends on time, and all metrics of all groups."""
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["milliseconds_a_step"]
    arrays = {}
    for path in sorted(out.glob("groups/*/metrics.npz")):
        with np.load(path) as found:
            arrays |= {f"{path.parent.name}/{name}": found[name] for name in found}
    return rows, arrays


def assert_equal(one, other, tolerance):
    for row, same in zip(one[0], other[0], strict=True):
        assert row.keys() == same.keys()
        for name, value in row.items():
            try:
                assert float(same[name]) == pytest.approx(float(value), rel=tolerance), name
            except ValueError:  # a word
                assert same[name] == value
    assert one[1].keys() == other[1].keys() and one[1]
    for name, array in one[1].items():
        # Cosines are differences of nearly equal numbers, of at most 1.
        np.testing.assert_allclose(other[1][name], array, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """What a sweep of one process, never disturbed, ends with."""
    out = tmp_path_factory.mktemp("sweeps") / "whole"
    end(start(out, LONG, devices=8))
    return finished(out)


@pytest.mark.faults
@pytest.mark.parametrize("more", [[], ["--halving=2"]], ids=["whole", "halving"])
def test_two_processes_of_four_devices_equal_one_of_eight(more, tmp_path):
    end(start(tmp_path / "one", SHORT, *more, devices=8))
    shows, silent = end(*start_two(tmp_path / "two", SHORT, *more))
    assert_equal(finished(tmp_path / "one"), finished(tmp_path / "two"), ROUNDING)
    assert "group 2/2" in shows and len(lines(silent)) == 1  # that it waits for the others
    made = [
        sorted(str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).glob(kind))
        for kind in ("*", "groups/*/*", "runs/*/*", "groups/*/checkpoints/*")
        for name in ("one", "two")
    ]
    assert made[::2] == made[1::2]


@pytest.mark.faults
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_is_killed_the_other_ends_and_one_process_goes_on(victim, long, tmp_path):
    processes = start_two(tmp_path / "s", LONG)
    wait_until(lambda: checkpoints(tmp_path / "s"), processes)
    kill(processes[victim])
    killed = time.monotonic()
    (said,) = end(processes[1 - victim], code=None)
    assert time.monotonic() - killed < (60 if ADJUSTABLE else 120)
    assert "if one of them dies later, JAX ends the others: go on with" in said
    assert not (tmp_path / "s" / "results.csv").exists()
    end(start(tmp_path / "s", LONG, "--resume", devices=3))
    assert_equal(long, finished(tmp_path / "s"), GROWN)


@pytest.mark.faults
def test_when_all_are_killed_while_they_write_a_checkpoint_they_go_on(long, tmp_path):
    out, begun = tmp_path / "s", []

    def writing():
        begun[:] = [path for path in checkpoints(out) if not path.name.isdigit()]
        return begun

    for attempt in range(10):  # some checkpoints are complete before the signal arrives
        processes = start_two(out, LONG, *(["--resume"] if attempt else []))
        wait_until(writing, processes, poll=0.001)
        kill(*processes)
        if begun[0].exists():
            break
    assert begun[0].exists() and not (out / "results.csv").exists()
    end(*start_two(out, LONG, "--resume"))
    assert_equal(long, finished(out), GROWN)


@pytest.mark.faults
def test_a_signal_to_one_process_stops_both_at_the_same_step(long, tmp_path):
    out = tmp_path / "s"
    processes = start_two(out, LONG)
    wait_until(lambda: checkpoints(out), processes)
    processes[1].send_signal(signal.SIGTERM)
    last = [lines(said)[-1] for said in end(*processes, code=130)]
    assert last[0] == last[1] and last[0].startswith("stopped at step ")
    step = last[0].split()[3]
    assert step in [path.name for path in checkpoints(out)] and int(step) < 4000
    end(*start_two(out, LONG, "--resume"))
    assert_equal(long, finished(out), GROWN)


@pytest.mark.faults
@pytest.mark.parametrize("alone", [0, 1])
def test_a_process_that_waits_in_vain_says_so(alone, tmp_path):
    address = coordinator()
    more = ["--join_timeout_seconds=3"]
    (said,) = end(start(tmp_path, SHORT, *joined(alone, address), *more, devices=1), code=None)
    assert lines(said)[0].startswith(f"waiting up to 3 s at {address} for all processes to join")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize(
    ("different", "message"),
    [
        (["--width=9"], "the processes were not all given the same problem, methods, grid"),
        (["--cpu_devices=3"], "this process has"),
    ],
)
def test_processes_that_differ_do_not_start(different, message, tmp_path):
    """One may end first, and the other because of it."""
    address = coordinator()
    processes = [
        start(tmp_path / "s", LONG, *joined(number, address), *more, devices=1)
        for number, more in enumerate([[], different])
    ]
    said = [lines(process.communicate(timeout=300)[1]) for process in processes]
    assert all(process.returncode for process in processes), said
    assert any(line.startswith(message) for text in said for line in text), said
    assert not (tmp_path / "s").exists()


@pytest.mark.long
@pytest.mark.faults
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--distributed"], "can't join: coordinator_address should be defined"),
        (["--coordinator=host:1"], "--coordinator, --num_processes and --process_id belong"),
        (["--process_id=0"], "--coordinator, --num_processes and --process_id belong"),
        (joined(0, "host"), "--coordinator is 'host'; it must be host:port"),
        (joined(5, "host:1"), "can't join: process_id and num_processes must be nonnegative"),
    ],
)
def test_flags_that_make_no_sense_are_one_clear_line(flags, message, tmp_path):
    (said,) = end(start(tmp_path / "s", SHORT, *flags, devices=1), code=2)
    *announced, line = lines(said)
    assert len(announced) <= 1 and all("for all processes to join" in a for a in announced)
    assert line.startswith(message) and not (tmp_path / "s").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 KiB, and how to make it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True
    )
    if mount.returncode:
        pytest.skip("only root can mount a small file system")
    yield (
        folder,
        lambda: subprocess.run(
            ["mount", "-o", "remount,size=100m", folder], check=True, capture_output=True
        ),
    )
    subprocess.run(["umount", folder], check=True)


@pytest.mark.faults
def test_a_full_disk_is_one_line_and_with_room_the_sweep_goes_on(long, small_disk):
    folder, enlarge = small_disk
    out = folder / "s"
    (said,) = end(start(out, LONG, devices=2), code=2)
    assert_says_full(lines(said)[-1], out)
    kept = [path for path in checkpoints(out) if path.name.isdigit()]
    assert kept and not (out / "results.csv").exists()
    enlarge()
    end(start(out, LONG, "--resume", devices=2))
    assert_equal(long, finished(out), GROWN)


@pytest.mark.faults
def test_a_full_disk_ends_both_processes(long, small_disk):
    """With the line that it is full, with the line that the other one died, or by JAX's runtime."""
    folder, enlarge = small_disk
    out = folder / "s"
    processes = start_two(out, LONG)
    last = [lines(process.communicate(timeout=300)[1])[-1] for process in processes]
    codes = [process.returncode for process in processes]
    assert 2 in codes and set(codes) <= {1, 2, -signal.SIGABRT}
    for code, line in zip(codes, last, strict=True):
        if code == 2:
            assert_says_full(line, out)
        if code == 1:
            assert "died or can't be reached" in line or "if another one died, see what" in line
    enlarge()
    end(*start_two(out, LONG, "--resume"))
    assert_equal(long, finished(out), GROWN)


def assert_says_full(line, out):
    assert line.startswith(f"can't write to {out}") and line.endswith("with --resume")
    assert "No space left on device" in line


JUMPING = """
import itertools, time
jumps = itertools.cycle([0, 86_400, -86_400, 3e8, -3e8])
now, now_ns = time.time, time.time_ns
time.time = lambda: now() + next(jumps)
time.time_ns = lambda: now_ns() + int(next(jumps)) * 10**9
"""


@pytest.mark.long
@pytest.mark.faults
def test_a_clock_that_jumps_changes_nothing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    clock = [sys.executable, "-c", "import time; print(time.time() - time.time() < -80_000)"]
    read = subprocess.run(clock, env={**ENVIRONMENT, **environment}, capture_output=True, text=True)
    assert read.stdout == "True\n"
    (said,) = end(start(tmp_path / "a", SHORT, devices=2))
    (jumped,) = end(start(tmp_path / "b", SHORT, devices=2, environment=environment))
    assert_equal(finished(tmp_path / "a"), finished(tmp_path / "b"), 0)
    steps = [[line.partition("  group")[0] for line in lines(text)] for text in (said, jumped)]
    assert steps[0] == steps[1]
    rates = re.findall(r"(\S+) steps/s  (\S+) s left", jumped)
    assert rates and all(float(rate) > 0 <= float(left) < 3600 for rate, left in rates)
