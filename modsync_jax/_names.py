"""Names that a user types: look one up, or list the existing ones in one sentence."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")
_COORDINATE = r"[^\W\d_]\d*"  # a letter, and a number where there are many


def unknown(kind: str, given: str, known: Iterable[str]) -> ValueError:
    """Returns the error for a name that does not exist; the caller raises it.

    Args:
      kind: the kind of name, in the reader's words ("problem", "activation").
      given: the name that was given.
      known: the names that exist.

    Example:
      >>> print(unknown("problem", "burger", ["burgers", "helmholtz2d"]))
      unknown problem 'burger'; did you mean 'burgers'? (known: burgers, helmholtz2d)
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(given), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return ValueError(f"unknown {kind} {given!r}{hint} (known: {', '.join(names) or 'none'})")


def lookup(kind: str, name: str, table: Mapping[str, Value]) -> Value:
    """Returns `table[name]`.

    Raises:
      ValueError: no such name; the message has the nearest one.
    """
    if name not in table:
        raise unknown(kind, name, table)
    return table[name]


def listed(names: Sequence[str]) -> str:
    """Returns names joined by commas; the first two and the last one of more than six.

    Example:
      >>> print(listed(["x", "y"]), "|", listed([f"x{k}" for k in range(1, 51)]))
      x, y | x1, x2, ..., x50
    """
    return ", ".join(names if len(names) <= 6 else [*names[:2], "...", names[-1]])


def is_coordinate(name: str) -> bool:
    """Returns whether a coordinate may have this name: a letter, `x`, or with a number, `x12`."""
    return re.fullmatch(_COORDINATE, name) is not None


def coordinates(text: str) -> list[str]:
    """Returns the coordinates of a derivative's name, `["t", "x"]` of `tx`.

    Other characters stand for themselves, so that a lookup of each name finds the wrong one.

    Example:
      >>> coordinates("tx2x2")
      ['t', 'x2', 'x2']
    """
    return re.findall(f"{_COORDINATE}|.", text)
