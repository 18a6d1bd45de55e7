"""Shared by all parts of `make bench`: processes, sums, tables, pictures, targets."""
