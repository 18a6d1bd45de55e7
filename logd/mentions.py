"""Mentions: where an event's properties name a person other than as the event's own user (pure).

One definition, for who reads about a person and for who takes a person out: a value below one of
`KEYS`, at any depth, that is the person's id. A report that was read about user 7 has
`{"report": "timeline", "params": {"user": "7"}}`. An id is compared as the trail keeps users: a
whole number is its decimal text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from shared.wire import unpack_props

KEYS = frozenset({"user", "users", "user_id", "login"})
ERASED = "(erased)"
ANOTHER = "(another)"
# Any of these is in packed properties that name somebody: most are passed over by this alone.
MARKS = (b"user", b"login")

IsPerson = Callable[[str], bool]


def mentions(props: Mapping[str, Any], user: str) -> bool:
    """Whether the properties name that user."""
    return without(props, lambda name: name == user) is not props


def redact(packed: bytes, is_person: IsPerson) -> bytes | None:
    """Packed properties with ERASED for each such person; None when there is none in them.

    Raises Malformed for what is no msgpack.
    """
    if not any(mark in packed for mark in MARKS):
        return None
    before = unpack_props(packed)
    after = without(before, is_person)
    return None if after is before else bytes(msgpack.packb(after))


def without(
    props: Mapping[str, Any], is_person: IsPerson, with_: str = ERASED
) -> Mapping[str, Any]:
    """The properties with `with_` for each such person; the very same where there is none."""
    made: Mapping[str, Any] = _without(props, is_person, with_, named=False)
    return made


def without_others(props: Mapping[str, Any], user: str) -> Mapping[str, Any]:
    """The properties in which only that user is named, and ANOTHER for whoever else is.

    So that what is held about one person can be handed over without telling of another.
    """
    return without(props, lambda name: name != user, ANOTHER)


def _without(value: Any, is_person: IsPerson, with_: str, *, named: bool) -> Any:
    """`named`: below one of the keys."""
    made: Any
    if isinstance(value, dict):
        made = {
            key: _without(item, is_person, with_, named=named or key in KEYS)
            for key, item in value.items()
        }
        return made if any(made[key] is not value[key] for key in value) else value
    if isinstance(value, list | tuple):
        made = [_without(item, is_person, with_, named=named) for item in value]
        return made if any(a is not b for a, b in zip(made, value, strict=True)) else value
    return with_ if named and _may_name(value) and is_person(str(value)) else value


def _may_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
