"""The files that a running daemon depends on, and what puts each of them back."""
