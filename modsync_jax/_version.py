"""The version of the package, importable before any of its dependencies."""

__version__ = "0.2.0"
