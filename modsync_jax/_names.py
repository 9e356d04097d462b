"""Names that a user types: look one up, or list the existing ones in one sentence."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")


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
