"""Draws an error of a finished sweep against any axis of its grid.

python -m experiments.plot --sweep=sweeps/x --against=width
"""

from absl import flags

from modsync_jax import reporting
from modsync_jax.training import ConfigError

from . import _program

_SWEEP = flags.DEFINE_string("sweep", None, "folder of a finished sweep", required=True)
_AGAINST = flags.DEFINE_list("against", ["width"], "axes of its grid, joined by ','")
_MEASURE = flags.DEFINE_string(
    "measure", "selected", "a column of its results.csv, such as selected, final or keep"
)


def main() -> None:
    """Draws a sweep by the flags."""
    for name in _AGAINST.value:
        try:
            print(reporting.draw_axis(_SWEEP.value, name, _MEASURE.value))
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError(str(error)) from None


if __name__ == "__main__":
    _program.run(main)
