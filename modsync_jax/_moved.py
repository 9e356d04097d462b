"""Removed names: the error for an old name gives the new one."""

from collections.abc import Mapping


def missing(owner: str, name: str, moved: Mapping[str, str]) -> AttributeError:
    """Returns the error for a missing attribute; the caller raises it.

    Args:
      owner: the module or class without the attribute.
      name: the name of the attribute.
      moved: the replacements of removed names.

    Example:
      >>> print(missing("modsync_jax.methods", "is_masked", {"is_masked": "indexed(name).kept"}))
      modsync_jax.methods.is_masked is gone; use indexed(name).kept
    """
    if name in moved:
        return AttributeError(f"{owner}.{name} is gone; use {moved[name]}")
    return AttributeError(f"{owner!r} has no attribute {name!r}")
