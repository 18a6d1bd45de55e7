"""Persons named in the properties of events, other than as an event's own user (pure).

A value names a person under a key that says so, at any depth: a report that was read about user 7
has `{"report": "timeline", "params": {"user": "7"}}`. This is the one definition for those who read
about a person and for those who take a person out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from logd_wire.wire import unpack_props

KEYS = frozenset({"user", "users", "user_id", "login", "actor", "switched_to"})
ERASED = "(erased)"
ANOTHER = "(another)"
# Any of these is in packed properties that name somebody: most are passed over by this alone.
MARKS = (b"user", b"login", b"actor", b"switched_to")

IsPerson = Callable[[str], bool]
Change = Callable[[str | int], str | int]


def mentions(props: Mapping[str, Any], user: str) -> bool:
    """Whether the properties name that user."""
    changed = _changed(props, lambda value: ERASED if str(value) == user else value, named=False)
    return changed is not props


def redact(props: bytes, is_person: IsPerson) -> bytes | None:
    """The packed properties with `(erased)` for such a person; None when there is none in them.

    Raises Malformed for what is no msgpack.
    """
    if not any(mark in props for mark in MARKS):
        return None
    before = unpack_props(props)
    after = _changed(before, lambda v: ERASED if is_person(str(v)) else v, named=False)
    return None if after is before else bytes(msgpack.packb(after))


def without_others(props: Mapping[str, Any], user: str) -> dict[str, Any]:
    """The properties with `(another)` for whoever is named and not that user.

    So that what is held about one person can be handed over without telling of another.
    """

    def change(value: str | int) -> str | int:
        return value if str(value) in (user, ERASED) else ANOTHER

    return dict(_changed(props, change, named=False))


def _changed(value: Any, change: Change, *, named: bool) -> Any:
    """The value itself where nothing in it changes. `named`: below one of the keys."""
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
