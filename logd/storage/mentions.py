"""Mentions of persons in the properties of events, other than as the event's user (pure).

A value under one of KEYS names a person, at any depth: a report that was read about user 7 has
`{"report": "timeline", "params": {"user": "7"}}`. Reports about a person and erasure both use this
definition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from logd_wire.wire import unpack_props

KEYS = frozenset({"user", "users", "user_id", "login", "actor", "switched_to"})
ERASED = "(erased)"
ANOTHER = "(another)"
# Packed properties with a mention contain one of these: most events are skipped by this alone.
MARKS = (b"user", b"login", b"actor", b"switched_to")

IsPerson = Callable[[str], bool]
Change = Callable[[str | int], str | int]


def mentions(props: Mapping[str, Any], user: str) -> bool:
    """Whether the properties mention that user."""
    changed = _changed(props, lambda value: ERASED if str(value) == user else value, named=False)
    return changed is not props


def persons(props: Mapping[str, Any]) -> set[str]:
    """The users whom the properties mention."""
    found: set[str] = set()

    def collect(value: str | int) -> str | int:
        found.add(str(value))
        return value

    _changed(props, collect, named=False)
    return found - {ERASED}


def redact(props: bytes, is_person: IsPerson) -> bytes | None:
    """The packed properties with `(erased)` for each such person; None if they mention none.

    Raises Malformed for invalid msgpack.
    """
    if not any(mark in props for mark in MARKS):
        return None
    before = unpack_props(props)
    after = _changed(before, lambda v: ERASED if is_person(str(v)) else v, named=False)
    return None if after is before else bytes(msgpack.packb(after))


def without_others(props: Mapping[str, Any], user: str) -> dict[str, Any]:
    """The properties with `(another)` for every person but that user.

    Data about one person can then be handed over without revealing another.
    """

    def change(value: str | int) -> str | int:
        return value if str(value) in (user, ERASED) else ANOTHER

    return dict(_changed(props, change, named=False))


def _changed(value: Any, change: Change, *, named: bool) -> Any:
    """The value itself if nothing in it changes. `named`: it is under one of KEYS."""
    if isinstance(value, Mapping):
        made: Any = {
            key: _changed(item, change, named=named or key in KEYS) for key, item in value.items()
        }
        return made if any(made[key] is not value[key] for key in value) else value
    if isinstance(value, list):
        made = [_changed(item, change, named=named) for item in value]
        return made if any(a is not b for a, b in zip(made, value, strict=True)) else value
    return change(value) if named and _may_name(value) else value


def _may_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
