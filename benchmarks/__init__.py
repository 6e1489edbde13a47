"""Measures what the board promises about speed and memory. See docs/benchmarks.md."""
