"""Writes the network of a run for other programs: plain NumPy, and a portable program of JAX.

python -m experiments.export --run=runs/x
python -m experiments.export --run=runs/x --output_dir=network

`from network import network` needs NumPy alone. `network.jax` needs JAX alone, as
`jax.export.deserialize(path.read_bytes()).call(points)`.
"""

from pathlib import Path

from absl import flags

from modsync_jax.training import ConfigError

from . import _program

_RUN = flags.DEFINE_string("run", "", "folder of the run")
_OUTPUT = flags.DEFINE_string("output_dir", "", "folder of the files; <run>/network if empty")
_program.define_device()
flags.adopt_module_key_flags(_program)


def main() -> None:
    """Exports a run by the flags."""
    config = _program.opened(_RUN.value)
    solution = _program.loaded(_RUN.value, config)
    folder = Path(_OUTPUT.value or Path(_RUN.value) / "network")
    try:
        files = solution.export(folder, tuple(config["outputs"]))
    except OSError as error:
        raise ConfigError(
            f"can't write into {folder}: {error.strerror or error}; name another place with "
            "--output_dir"
        ) from None
    for path in files:
        print(f"{path.stat().st_size:9,} bytes  {path}")


if __name__ == "__main__":
    _program.run(main)
