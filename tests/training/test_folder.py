"""A run's folder: damaged checkpoints are never taken for whole ones."""

import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax.training._folder import RunError, RunFolder


def data_files(folder, step):
    found = (folder / "checkpoints" / str(step)).rglob("*")
    return sorted((p for p in found if p.is_file()), key=lambda p: p.stat().st_size)


def flipped(content):
    return content[:10] + bytes([content[10] ^ 1]) + content[11:]


@pytest.mark.parametrize("damaged", [flipped, lambda c: c[:-1], lambda c: b""])
def test_the_newest_whole_checkpoint_is_used(damaged, tmp_path):
    folder = RunFolder(tmp_path / "run", {"a": 1}, resume=False)
    for step in (1, 2, 3):
        folder.save(step, {"x": jnp.full(1000, step)})
    said = []
    assert folder.latest(said.append) == 3 and not said
    for file in data_files(folder.path, 3)[-2:]:
        file.write_bytes(damaged(file.read_bytes()))
    assert folder.latest(said.append) == 2
    assert said == [f"the checkpoint of step 3 in {folder.path} is damaged; using the one before"]
    assert np.all(folder.restore(2, {"x": jnp.zeros(1000, jnp.int32)})["x"] == 2)
    folder.save(3, {"x": jnp.full(1000, 33)})  # the run comes to that step again
    assert folder.latest() == 3
    assert np.all(folder.restore(3, {"x": jnp.zeros(1000, jnp.int32)})["x"] == 33)
    data_files(folder.path, 3)[-1].unlink()
    data_files(folder.path, 2)[-1].unlink()
    with pytest.raises(RunError, match=r"all checkpoints in .* are damaged"):
        folder.latest()


def test_a_checkpoint_is_read_into_longer_and_shorter_arrays(tmp_path):
    """What a sweep does on other devices than those it was saved on."""
    folder = RunFolder(tmp_path / "run", {}, resume=False)
    folder.save(1, {"x": jnp.arange(6.0).reshape(3, 2)})
    shorter = folder.restore(1, {"x": jnp.zeros((2, 2))}, resize=True)["x"]
    longer = folder.restore(1, {"x": jnp.zeros((4, 2))}, resize=True)["x"]
    np.testing.assert_array_equal(shorter, [[0, 1], [2, 3]])
    np.testing.assert_array_equal(longer, [[0, 1], [2, 3], [4, 5], [0, 0]])
    with pytest.raises(ValueError, match="not compatible"):
        folder.restore(1, {"x": jnp.zeros((4, 2))})
