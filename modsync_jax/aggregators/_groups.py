"""Groups of parameters that are aggregated separately, each with its own Gramian."""

from collections.abc import Callable, Hashable
from typing import Any, Literal

import jax
from jax import Array

from modsync_jax import gradients

Groups = Literal["leaf"] | Callable[[str, Array], Hashable] | None


def check(groups: Groups) -> None:
    """Raises a ValueError on anything but None, `"leaf"` or a function."""
    if not (groups is None or groups == "leaf" or callable(groups)):
        raise ValueError(f"groups is {groups!r}; give None, 'leaf' or a function (path, leaf)")


def split(groups: Groups, params: Any) -> list[list[int]]:
    """The indices of the leaves of each group."""
    parts: dict[Hashable, list[int]] = {}
    for index, (path, leaf) in enumerate(jax.tree.leaves_with_path(params)):
        if callable(groups):
            label = groups(gradients.path_name(path), leaf)
        else:
            label = index if groups == "leaf" else None
        parts.setdefault(label, []).append(index)
    return list(parts.values())
