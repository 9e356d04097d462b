"""Benchmarks: each script states its question and prints its answer."""
