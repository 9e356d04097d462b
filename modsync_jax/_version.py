"""The version of the package, importable before any of its dependencies."""

__version__ = "0.3.0"
