"""Persons named in the properties of others' events: found, and taken out (pure).

A value names a person under a key that says so, at any depth: a report that was read about user 7
has `{"report": "timeline", "params": {"user": "7"}}`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from shared.wire import unpack_props

KEYS = frozenset({"user", "users", "user_id", "login"})
ERASED = "(erased)"
# Any of these is in packed properties that name somebody: most are passed over by this alone.
MARKS = (b"user", b"login")

IsPerson = Callable[[str], bool]


def redact(props: bytes, is_person: IsPerson) -> bytes | None:
    """The packed properties with `(erased)` for such a person; None when there is none in them.

    Raises Malformed for what is no msgpack.
    """
    if not any(mark in props for mark in MARKS):
        return None
    before = unpack_props(props)
    after = _redacted(before, is_person, named=False)
    return None if after is before else bytes(msgpack.packb(after))


def _redacted(value: Any, is_person: IsPerson, *, named: bool) -> Any:
    """The value itself where nothing is to be taken out of it. `named`: below one of the keys."""
    if isinstance(value, dict):
        made: Any = {
            key: _redacted(item, is_person, named=named or key in KEYS)
            for key, item in value.items()
        }
        return made if any(made[key] is not value[key] for key in value) else value
    if isinstance(value, list):
        made = [_redacted(item, is_person, named=named) for item in value]
        return made if any(a is not b for a, b in zip(made, value, strict=True)) else value
    if named and _may_name(value) and is_person(str(value)):
        return ERASED
    return value


def _may_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
