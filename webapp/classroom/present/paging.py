"""Paging by key: a page is asked for by the id it starts below, never by a count to skip."""

from __future__ import annotations

from collections.abc import Mapping

from flask import abort

KEY_MAX = 2**63 - 1


def key_argument(arguments: Mapping[str, str], name: str) -> int | None:
    """The paging key in an address, None for the first page. 400 for what cannot be a key."""
    text = arguments.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(KEY_MAX))):
        abort(400)
    key = int(text)
    if key > KEY_MAX:
        abort(400)
    return key
