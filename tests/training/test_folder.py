"""A run's folder: damaged checkpoints are never taken for whole ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modsync_jax
from modsync_jax.training._folder import RunError, RunFolder, read_metrics

RUN = {"width": 4, "depth": 1, "points": {"residual": 16}, "chunk": 5, "eval_every": 5}
RUN |= {"checkpoint_every": 5, "steps": 10, "progress": False, "report": False}


class State(NamedTuple):
    x: Any


def data_files(folder, step):
    found = (folder / "checkpoints" / str(step)).rglob("*")
    return sorted((p for p in found if p.is_file()), key=lambda p: p.stat().st_size)


def flipped(content):
    return content[:10] + bytes([content[10] ^ 1]) + content[11:]


def test_a_restored_array_is_as_free_as_that_of_the_program(tmp_path):
    """A jitted function is compiled again for an array that is bound to its device."""
    folder = RunFolder(tmp_path / "run", {"a": 1}, resume=False)
    free, bound = jnp.arange(4.0), jax.device_put(jnp.arange(4.0), jax.devices()[1])
    for step, x in enumerate((free, bound), 1):
        folder.save(step, State(x))
        restored = folder.restore(step, State(x)).x
        assert restored.committed == x.committed and restored.sharding == x.sharding
        np.testing.assert_array_equal(restored, x)


@pytest.mark.parametrize("damaged", [flipped, lambda c: c[:-1], lambda c: b""])
def test_the_newest_whole_checkpoint_is_used(damaged, tmp_path):
    folder = RunFolder(tmp_path / "run", {"a": 1}, resume=False)
    for step in (1, 2, 3):
        folder.save(step, State(jnp.full(1000, step)))
    said = []
    assert folder.latest(said.append) == 3 and not said
    for file in data_files(folder.path, 3)[-2:]:
        file.write_bytes(damaged(file.read_bytes()))
    assert folder.latest(said.append) == 2
    assert said == [f"the checkpoint of step 3 in {folder.path} is damaged; using the one before"]
    assert np.all(folder.restore(2, State(jnp.zeros(1000, jnp.int32))).x == 2)
    folder.save(3, State(jnp.full(1000, 33)))  # the run comes to that step again
    assert folder.latest() == 3
    assert np.all(folder.restore(3, State(jnp.zeros(1000, jnp.int32))).x == 33)
    data_files(folder.path, 3)[-1].unlink()
    data_files(folder.path, 2)[-1].unlink()
    with pytest.raises(RunError, match=r"all checkpoints in .* are damaged"):
        folder.latest()


def test_a_checkpoint_is_read_into_longer_and_shorter_arrays(tmp_path):
    """What a sweep does on other devices than those it was saved on."""
    folder = RunFolder(tmp_path / "run", {}, resume=False)
    folder.save(1, State(jnp.arange(6.0).reshape(3, 2)))
    shorter = folder.restore(1, State(jnp.zeros((2, 2))), resize=True).x
    longer = folder.restore(1, State(jnp.zeros((4, 2))), resize=True).x
    np.testing.assert_array_equal(shorter, [[0, 1], [2, 3]])
    np.testing.assert_array_equal(longer, [[0, 1], [2, 3], [4, 5], [0, 0]])
    with pytest.raises(RunError, match="has not the arrays that this program"):
        folder.restore(1, State(jnp.zeros((4, 2))))


@pytest.mark.long
def test_an_older_network_is_never_loaded_in_silence(tmp_path):
    run = tmp_path / "run"
    modsync_jax.solve("poisson1d", "sum", output_dir=run, **RUN)
    data_files(run, 10)[-1].write_bytes(b"")
    with pytest.warns(UserWarning) as said:
        older = modsync_jax.load(run)
    assert "the checkpoint of step 10 in" in str(said[0].message)
    assert "are those of step 5, but its result is that of step 10" in str(said[1].message)
    assert older.result == {} and [row["step"] for row in older.metrics] == [0, 5]


@pytest.mark.long
def test_lost_checkpoints_are_not_a_new_start(tmp_path):
    run = tmp_path / "run"
    modsync_jax.solve("poisson1d", "sum", output_dir=run, **RUN)
    (run / "result.json").unlink()
    for step in (5, 10):
        for file in data_files(run, step):
            file.unlink()
        (run / "checkpoints" / str(step)).rename(run / f"lost-{step}")
    rows = read_metrics(run)
    with pytest.raises(RunError, match=r"are gone \(it had those of step 5, 10\)"):
        modsync_jax.solve("poisson1d", "sum", output_dir=run, resume=True, **RUN)
    assert read_metrics(run) == rows


@pytest.mark.long
def test_a_run_that_was_stopped_before_its_first_checkpoint_says_that_it_starts(tmp_path, capsys):
    RunFolder(tmp_path / "run", {}, resume=False).write("metrics.csv", {})
    modsync_jax.solve("poisson1d", "sum", output_dir=tmp_path / "x", **RUN)
    (tmp_path / "run" / "config.json").write_text((tmp_path / "x" / "config.json").read_text())
    (tmp_path / "run" / "metrics.csv").unlink()
    modsync_jax.solve("poisson1d", "sum", output_dir=tmp_path / "run", resume=True, **RUN)
    assert "no checkpoint was saved yet; starting at step 0" in capsys.readouterr().err


@pytest.mark.long
def test_damaged_checksums_are_one_line(tmp_path):
    run = tmp_path / "run"
    modsync_jax.solve("poisson1d", "sum", output_dir=run, **RUN)
    (run / "checksums.json").write_text('{"5": ')
    with pytest.raises(RunError, match=r"checksums.json is damaged; delete it to use"):
        modsync_jax.load(run)
    (run / "checksums.json").unlink()
    assert modsync_jax.load(run).result


def test_a_row_with_new_columns_and_without_old_ones_stays_aligned(tmp_path):
    folder = RunFolder(tmp_path / "run", {}, resume=False)
    folder.append({"step": 1, "a": 2.0})
    folder.append({"step": 2, "b": 3.0, "a": 4.0})
    folder.append({"b": 6.0, "step": 3})
    rows = read_metrics(folder.path)
    assert [list(row) for row in rows] == [["step", "a", "b"]] * 3
    expected = [[1, 2, np.nan], [2, 4, 3], [3, np.nan, 6]]
    np.testing.assert_array_equal([list(row.values()) for row in rows], expected)
