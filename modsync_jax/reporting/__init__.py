"""Figures and the report of a run, from its files alone."""

import os


def write_report(path: str | os.PathLike) -> None:
    """Placeholder."""
