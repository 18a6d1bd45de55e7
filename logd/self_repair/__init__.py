"""Checks the files that a running daemon depends on, and puts each of them back."""
