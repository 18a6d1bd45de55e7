"""Reads and checks logd.toml."""
