"""One sentence, with the line, about an error in a user's function."""

import linecache
import traceback
from pathlib import Path

import jax

_LIBRARIES = ("site-packages", "dist-packages", str(Path(__file__).parents[1]))
_SENTENCES: tuple[tuple[type[Exception], str, str], ...] = (
    (
        jax.errors.TracerArrayConversionError,
        "",
        "NumPy can't compute with JAX's arrays here; use jax.numpy, such as jnp.sin for np.sin",
    ),
    (
        jax.errors.TracerBoolConversionError,
        "",
        "a Python if, and, or, min or max can't depend on a traced value; use jnp.where, "
        "jnp.minimum or jnp.maximum",
    ),
    (
        jax.errors.ConcretizationTypeError,
        "",
        "float(), int() or a Python loop can't depend on a traced value; use jax.numpy",
    ),
    (
        TypeError,
        "'tuple'",
        "partials returns a tuple, also of one derivative; unpack it: (u_t,) = partials(u, x, 't')",
    ),
)


def explained(error: Exception, gets: str) -> str:
    """Returns one line about the place of a failure in a user's function and the remedy.

    Args:
      error: the exception that the function raised.
      gets: the arguments of the call, in words.
    """
    text = str(error).strip().partition("\n")[0]
    sentence = next(
        (s for kind, part, s in _SENTENCES if isinstance(error, kind) and part in str(error)), ""
    )
    if isinstance(error, TypeError) and "argument" in text and "()" in text:
        sentence = f"{text}; it is called with {gets}"
    if not sentence:
        sentence = text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(part in f.filename for part in _LIBRARIES)]
    if not own or isinstance(error, ValueError):  # our own messages already name the cause
        return sentence
    name, line = own[-1].filename, own[-1].lineno or 0
    source = linecache.getline(name, line).strip()
    return f"{Path(name).name}, line {line}" + (f", {source!r}" if source else "") + f": {sentence}"
