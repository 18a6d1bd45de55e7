"""Checks the files that a running daemon depends on, and restores them."""
