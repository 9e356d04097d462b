"""A run's folder: its files, written so that a kill at any moment leaves it usable."""

import csv
import dataclasses
import errno
import fcntl
import hashlib
import io
import json
import os
import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from modsync_jax.loss_indexed import LossIndexed
from modsync_jax.training._config import FORMAT, ConfigError, TrainConfig, upgraded
from modsync_jax.transform import ModSyncParams

Row = dict[str, float]

_CHECKSUMS = "checksums.json"  # of checkpoints


class RunError(Exception):
    """A run that can't start or go on; the message is one line and names the remedy."""


DIAGNOSIS = "diagnosis"  # the folder of a diagnosis in that of its run


class RunFolder:
    """The files of one run: configuration, metrics, result, solution and checkpoints.

    Args:
      path: the folder; it is made if it does not exist.
      config: the identity of the run. It is written to `config.json` and compared on resume.
      resume: whether to continue the run that the folder holds.
      leave_out: entries of `config` that need not be those of the folder.

    Raises:
      RunError: when the folder holds a run and `resume` is False; when `resume` is True and it
        holds no run, or one of another configuration; when another process uses it; or when it
        can't be written.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        config: Mapping[str, Any],
        *,
        resume: bool,
        leave_out: Collection[str] = (),
    ) -> None:
        self.path = Path(path)
        stored = read_config(self.path) if (self.path / "config.json").exists() else None
        if resume and stored is None:
            raise RunError(f"nothing to resume: {self.path} holds no run; leave out --resume")
        if not resume and _taken(self.path):
            raise RunError(
                f"{self.path} exists and is not empty; choose another folder, or add --resume to "
                "continue the run that it holds"
            )
        if stored is not None:
            _check_same(self.path, stored, config, leave_out)
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
            if stored is None:
                self.write("config.json", {"format": FORMAT, **config})

    @cached_property
    def _checkpoints(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        folder = (self.path / "checkpoints").absolute()
        with self.writing():  # a named handler, so that metadata can be read
            return ocp.CheckpointManager(
                folder, options=options, item_handlers=ocp.PyTreeCheckpointHandler()
            )

    def latest(self, say: Callable[[str], None] = lambda text: None) -> int | None:
        """The step of the newest whole checkpoint, if there is one.

        Args:
          say: gets a line for each newer one that is damaged.

        Raises:
          RunError: when there are checkpoints, and all of them are damaged.
        """
        return newest_whole(self.path, self._checkpoints, say)

    def save(self, step: int, state: Any) -> None:
        """Writes a checkpoint; an interrupted write is never mistaken for one."""
        there = step in self._checkpoints.all_steps()
        if there and _is_whole(self.path, step):
            return
        with self.writing():
            if there:
                self._checkpoints.delete(step)
            self._checkpoints.save(step, args=ocp.args.PyTreeSave(state), force=True)
            self._note_checksum(step)

    def _note_checksum(self, step: int) -> None:
        steps = self._checkpoints.all_steps()
        known = {**_checksums(self.path), str(step): _checksum(self.path, step)}
        self.write(_CHECKSUMS, {s: known[s] for s in map(str, steps) if s in known})

    def restore(self, step: int, like: Any, *, resize: bool = False) -> Any:
        """Reads the checkpoint of `step`.

        Args:
          step: the step of the checkpoint.
          like: a named tuple of the same structure, with the shapes, dtypes and shardings of the
            result. Entries that an older checkpoint lacks are taken from it; entries that only that
            one has are left out.
          resize: whether to cut arrays that are longer than in `like` and to fill shorter ones with
            zeros.

        Raises:
          RunError: when the checkpoint holds other arrays.
        """
        metadata = self._checkpoints.item_metadata(step)
        held = getattr(metadata, "tree", metadata)
        newer = {name: value for name, value in like._asdict().items() if name not in held}
        there = {name: value for name, value in like._asdict().items() if name not in newer}
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, there)
        gone = {name: held[name] for name in held if name not in there}

        def how(leaf: Any) -> ocp.ArrayRestoreArgs:
            shape, place = leaf.shape, leaf.sharding
            return ocp.ArrayRestoreArgs(
                global_shape=shape, sharding=place, dtype=leaf.dtype, strict=not resize
            )

        older = jax.tree.map(lambda found: jax.ShapeDtypeStruct(found.shape, found.dtype), gone)
        as_it_is = ocp.RestoreArgs(restore_type=np.ndarray)
        args_of = jax.tree.map(how, abstract) | jax.tree.map(lambda _: as_it_is, older)
        arguments = ocp.args.PyTreeRestore(abstract | older, restore_args=args_of)
        try:
            restored = self._checkpoints.restore(step, args=arguments)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"the checkpoint of step {step} in {self.path} has not the arrays that this "
                "program and these settings need; finish it with the version of modsync_jax that "
                "its result.json or report names, or start again in another folder"
            ) from error
        placed = jax.tree.map(_placed_like, {name: restored[name] for name in there}, there)
        return type(like)(**placed, **newer)

    def append(self, row: Row) -> None:
        """Adds a row to `metrics.csv`, with any new columns; it is on disk on return."""
        path = self.path / "metrics.csv"
        header = next(csv.reader(_whole_lines(self.path)), [])
        if new := [name for name in row if name not in header]:
            columns = header + new
            text = io.StringIO()
            writer = csv.DictWriter(text, columns, restval="nan", lineterminator="\n")
            writer.writeheader()
            writer.writerows([*read_metrics(self.path), row])
            self.write_text("metrics.csv", text.getvalue())
            return
        with self.writing(), path.open("a", newline="") as file:
            csv.DictWriter(file, header, restval="nan", lineterminator="\n").writerow(row)
            file.flush()
            os.fsync(file.fileno())

    def rewind(self, step: int) -> list[Row]:
        """Drops the rows of `metrics.csv` after `step`, and returns those that stay."""
        header, *lines = _whole_lines(self.path) or [""]
        kept = [line for line in lines if int(line.partition(",")[0]) <= step]
        self.write_bytes("metrics.csv", "".join([header, *kept]).encode())
        return read_metrics(self.path)

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON file whole or not at all."""
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        self.write_bytes(name, text.encode())

    def write_text(self, name: str, content: str) -> None:
        """Writes a text file whole or not at all."""
        self.write_bytes(name, content.encode())

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes a `.npz` file whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        self.write_bytes(name, buffer.getvalue())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Writes a file whole or not at all."""
        partial = self.path / f".{name}.partial"
        with self.writing():
            partial.write_bytes(content)
            partial.replace(self.path / name)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A context for writes to the folder: a full disk and the like become a `RunError`."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = _disk_trouble(error)
            if reason is None:
                raise
            raise RunError(
                f"can't write to {self.path}: {reason}; make room or choose another folder, then "
                "resume from the last checkpoint with --resume"
            ) from error


def read_config(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the `config.json` of a run's folder, translated into the present format.

    Raises:
      RunError: when the file is missing, is no JSON, or has a newer format.
    """
    stored = _read_json(Path(path), "config.json")
    try:
        return upgraded(stored)
    except ConfigError as error:
        raise RunError(f"{path}: {error}") from None


def read_result(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the `result.json` of a finished run.

    Raises:
      RunError: when the file is missing or is no JSON.
    """
    return _read_json(Path(path), "result.json")


def read_best(path: str | os.PathLike, say: Callable[[str], None]) -> tuple[int, Any]:
    """Returns the step of a run's newest whole checkpoint, and the best parameters until then.

    Args:
      path: the run's folder.
      say: gets a line for each newer checkpoint that is damaged.

    Raises:
      RunError: when there is no checkpoint, or none is whole.
    """
    folder = (Path(path) / "checkpoints").absolute()
    manager = ocp.CheckpointManager(folder) if folder.exists() else None
    step = None if manager is None else newest_whole(Path(path), manager, say)
    if manager is None or step is None:
        raise RunError(f"{path} holds no checkpoint yet; let the run come to its first one")
    best = manager.restore(step, args=ocp.args.StandardRestore())["best_params"]
    for pair in (ModSyncParams, LossIndexed):
        if set(best) == set(pair._fields):
            return step, pair(**best)
    return step, best


def holds_checkpoint(path: str | os.PathLike, step: int) -> bool:
    """Whether a folder has the checkpoint of `step`, and it is not damaged."""
    there = (Path(path) / "checkpoints" / str(step)).is_dir()
    return there and _checksums(Path(path)).get(str(step)) == _checksum(Path(path), step)


def read_checkpoint(path: str | os.PathLike, step: int, like: Any) -> Any:
    """Returns the state in the checkpoint of `step` as NumPy arrays in the structure of `like`."""
    manager = ocp.CheckpointManager((Path(path) / "checkpoints").absolute())
    how = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), like)
    return manager.restore(step, args=ocp.args.PyTreeRestore(like, restore_args=how))


def read_metrics(path: str | os.PathLike) -> list[Row]:
    """Returns the complete rows of `metrics.csv`, numbers as floats; empty without the file."""
    rows = csv.DictReader(_whole_lines(path))
    return [{name: float(value) for name, value in row.items()} for row in rows]


def _whole_lines(path: str | os.PathLike) -> list[str]:
    file = Path(path) / "metrics.csv"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [line for line in lines if line.endswith("\n")]  # a kill may have torn the last one


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads((path / name).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{path} holds no {name}; name the folder of a run") from None
    except json.JSONDecodeError as error:
        raise RunError(f"{path / name} is not valid JSON ({error})") from None


def newest_whole(
    path: Path, manager: ocp.CheckpointManager, say: Callable[[str], None] = lambda text: None
) -> int | None:
    """The step of the newest checkpoint that is whole; see `RunFolder.latest`."""
    steps = sorted(manager.all_steps(), reverse=True)
    for step in steps:
        if _is_whole(path, step):
            return step
        say(f"the checkpoint of step {step} in {path} is damaged; using the one before")
    if steps:
        raise RunError(f"all checkpoints in {path} are damaged; start again in another folder")
    if gone := _checksums(path):
        raise RunError(
            f"the checkpoints of {path} are gone (it had those of step {', '.join(gone)}); bring "
            "them back, or start again in another folder"
        )
    return None


def _is_whole(path: Path, step: int) -> bool:
    # A kill between the checkpoint and its checksum leaves none; the checkpoint is complete.
    return _checksums(path).get(str(step)) in (None, _checksum(path, step))


def _checksum(path: Path, step: int) -> str:
    """Returns one checksum of all files in a checkpoint and their names."""
    folder, digest = path / "checkpoints" / str(step), hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(str(file.relative_to(folder)).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _checksums(path: Path) -> dict[str, str]:
    """Returns the checksums of checkpoints by step, as noted when they were written."""
    file = path / _CHECKSUMS
    try:
        return dict(json.loads(file.read_text())) if file.exists() else {}
    except ValueError:
        raise RunError(
            f"{file} is damaged; delete it to use the checkpoints as they are, unchecked"
        ) from None


def _placed_like(restored: jax.Array, like: Any) -> jax.Array:
    """Frees an array from its device if `like` is free: programs are compiled for one or the other.

    Without this, a resumed run compiles all of its programs again.
    """
    return restored if getattr(like, "committed", True) else jnp.array(np.asarray(restored))


def _locked(path: Path) -> IO[str]:
    """Returns an open file whose lock keeps other processes out; it is released at exit."""
    file = (path / ".lock").open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return file  # a file system without locks
        file.seek(0)
        owner = file.read().strip() or "another process"
        raise RunError(
            f"{path} is in use by {owner}; wait for it, stop it, or choose another folder"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    return file


def _taken(path: Path) -> bool:
    """Whether the folder holds more than hidden files and the diagnosis before a run's begin."""
    if not path.is_dir():
        return path.exists()
    names = (entry.name for entry in path.iterdir())
    return any(not name.startswith(".") and name != DIAGNOSIS for name in names)


def _check_same(
    path: Path, stored: Mapping[str, Any], config: Mapping[str, Any], leave_out: Collection[str]
) -> None:
    current = json.loads(json.dumps(config))
    defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
    known = {**defaults, **stored}  # settings that the folder lacks had their defaults
    differing = [k for k in current if known.get(k) != current[k] and k not in leave_out]
    if len(differing) > 1 and "architecture" in differing:
        differing.remove("architecture")  # follows from the settings
    if differing:
        what = ", ".join(f"{k}={stored.get(k)!r} (not {current[k]!r})" for k in differing)
        raise RunError(f"{path} holds a run of another configuration: {what}; resume it as it is")


def _disk_trouble(error: Exception) -> str | None:
    """Returns the operating system's message, also from within errors of the checkpoint library."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)
    return next((os.strerror(code) for code in codes if os.strerror(code) in str(error)), None)
