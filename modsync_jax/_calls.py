"""Names with hyperparameters as a user types them: `cagrad(c=0.3)`."""

import ast
import math
from collections.abc import Mapping
from typing import Any


def split(text: str, separator: str) -> list[str]:
    """Returns the pieces between separators outside parentheses, without blanks."""
    pieces, depth = [""], 0
    for letter in text.replace(" ", ""):
        depth += (letter == "(") - (letter == ")")
        if letter == separator and not depth:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces


def read(text: str) -> tuple[str, dict[str, Any]]:
    """Returns the name and the settings of `name(key=value,...)`, or of `name` alone.

    Values are numbers, words with or without quotes, booleans, or tuples of them.

    Raises:
      ValueError: on any other form.
    """
    name, opened, _ = text.partition("(")
    if not opened:
        return name, {}
    try:
        call = ast.parse(text.replace("-", "_", name.count("-")), mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise SyntaxError
        return name, {str(k.arg): _literal(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(f"{text!r} is not name(key=value,...)") from None


def written(name: str, settings: Mapping[str, Any]) -> str:
    """Returns the text that `read` reads."""
    inside = ",".join(f"{key}={value}" for key, value in settings.items())
    return f"{name}({inside})" if inside else name


def _literal(node: ast.expr) -> Any:
    """Returns a number, a tuple, or a word, written with or without quotes."""
    if isinstance(node, ast.Name):
        return math.inf if node.id == "inf" else node.id
    return ast.literal_eval(node)
