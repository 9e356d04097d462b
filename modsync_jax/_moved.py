"""Names that are gone: who asks for one is told the new one."""

from collections.abc import Mapping


def missing(owner: str, name: str, moved: Mapping[str, str]) -> AttributeError:
    """Returns the error for an attribute that is not there; the caller raises it.

    Args:
      owner: the module or class that was asked.
      name: the attribute.
      moved: what to use in place of names that were there once.

    Example:
      >>> print(missing("modsync_jax.methods", "is_masked", {"is_masked": "parse(name).masked"}))
      modsync_jax.methods.is_masked is gone; use parse(name).masked
    """
    if name in moved:
        return AttributeError(f"{owner}.{name} is gone; use {moved[name]}")
    return AttributeError(f"{owner!r} has no attribute {name!r}")
