"""Benchmarks of the cost of logging; README.md explains the parts and their tables."""
