"""Checks types and lengths of stored rows before they are hashed (pure).

SQLite stores any value in any column. A hash identifies one row only if each part of it has the
type and length that the daemon writes: with a longer salt, the bytes of one event could be those of
another. Each check returns what is wrong, or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from logd.storage.batch_hash import SALT_BYTES
from logd_wire.schema import INT64_MAX, PAYLOAD_BYTES_MAX, USER_BYTES_MAX, is_event_type

HASH_BYTES = 32
UID_MAX = 2**32 - 1
# The limit is far above any `batch_events_max`. Whoever has the key can
# write any number, and `verify` must not iterate over that many events.
BATCH_EVENTS_MAX = 2**24
LEVEL_MAX = 24  # the highest level of a block of events in a batch's tree
CAUSE_CHARS_MAX = 100
KIND_CHARS_MAX = 20
# Properties may grow after they were logged:
# "(erased)" may be longer than the name that it replaces.
PROPS_BYTES_MAX = 16 * PAYLOAD_BYTES_MAX

Check = Callable[[object], str | None]

_KEY = re.compile(r"[0-9a-f]{16}\Z")


def whole(low: int, high: int = INT64_MAX) -> Check:
    """Returns a check for a whole number between two bounds, both included."""

    def check(value: object) -> str | None:
        if type(value) is not int:
            return f"is {_kind(value)}, expected a whole number"
        return None if low <= value <= high else f"is {value}, expected {low} to {high}"

    return check


def blob(length: int) -> Check:
    """Returns a check for exactly `length` bytes."""

    def check(value: object) -> str | None:
        if type(value) is not bytes:
            return f"is {_kind(value)}, expected {length} bytes"
        return None if len(value) == length else f"has {len(value)} bytes, expected {length}"

    return check


def blob_up_to(length: int) -> Check:
    """Returns a check for at most `length` bytes."""

    def check(value: object) -> str | None:
        if type(value) is not bytes:
            return f"is {_kind(value)}, expected bytes"
        return (
            None if len(value) <= length else f"has {len(value)} bytes, expected {length} at most"
        )

    return check


def matching(pattern: re.Pattern[str], expected: str) -> Check:
    """Returns a check for a text that matches the pattern."""

    def check(value: object) -> str | None:
        if type(value) is not str:
            return f"is {_kind(value)}, expected {expected}"
        return None if pattern.match(value) else f"is {value[:80]!a}, expected {expected}"

    return check


def text_up_to(length: int) -> Check:
    """Returns a check for a text of 1 to `length` bytes in UTF-8."""

    def check(value: object) -> str | None:
        if type(value) is not str:
            return f"is {_kind(value)}, expected text"
        size = len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        return None if 1 <= size <= length else f"has {size} bytes, expected 1 to {length}"

    return check


def type_name(value: object) -> str | None:
    """Checks for the name of an event type."""
    if type(value) is not str:
        return f"is {_kind(value)}, expected a type's name"
    return None if is_event_type(value) else f"is {value[:80]!a}, expected a type's name"


def nothing_or(other: Check) -> Check:
    """Returns a check for no value, or for one that passes another check."""
    return lambda value: None if value is None else other(value)


def problem(row: Sequence[object], checks: Mapping[str, Check]) -> str | None:
    """Returns the row's first invalid column and what is wrong with it; None if all are valid."""
    for value, (column, check) in zip(row, checks.items(), strict=True):
        found = check(value)
        if found is not None:
            return f"{column} {found}"
    return None


_ID = whole(1)
_UID = whole(0, UID_MAX)
_PRODUCER_KEY = matching(_KEY, "16 hexadecimal digits")
_HASH = blob(HASH_BYTES)
# Most users are checked without encoding them, since a character takes at most four bytes.
_USER_CHARS_SURE = USER_BYTES_MAX // 4

EVENT: Mapping[str, Check] = {
    "salt": blob(SALT_BYTES),
    "id": _ID,
    "the producer's uid": _UID,
    "the producer's id": _PRODUCER_KEY,
    "sequence": _ID,
    "ts_ns": whole(0),
    "type": type_name,
    "user": nothing_or(text_up_to(USER_BYTES_MAX)),
    "props": blob_up_to(PROPS_BYTES_MAX),
}
BATCH: Mapping[str, Check] = {
    "id": _ID,
    "stored_ns": whole(0),
    "first_event": _ID,
    "events": whole(0, BATCH_EVENTS_MAX),
    "leaves_hash": _HASH,
    "hash": _HASH,
}
LOSS: Mapping[str, Check] = {
    "the producer's uid": _UID,
    "the producer's id": _PRODUCER_KEY,
    "first": _ID,
    "last": nothing_or(_ID),
    "cause": text_up_to(CAUSE_CHARS_MAX),
}
REMOVAL: Mapping[str, Check] = {
    "id": _ID,
    "event": _ID,
    "kind": text_up_to(KIND_CHARS_MAX),
    "events": whole(0),
    "hash": _HASH,
    "collapsed_events": whole(0),
    "waiting_events": whole(0),
}
COLLAPSE: Mapping[str, Check] = {
    "id": _ID,
    "event": _ID,
    "first": _ID,
    "last": _ID,
    "batches": _ID,
    "events": _ID,
}
REMOVED: Mapping[str, Check] = {"first": _ID, "last": _ID, "removal": _ID}
LEAF: Mapping[str, Check] = {"event": _ID, "level": whole(0, LEVEL_MAX), "hash": _HASH}
REDACTED: Mapping[str, Check] = {"event": _ID, "removal": _ID, "hash": _HASH}


def event_problem(row: Sequence[object]) -> str | None:
    """Returns what is wrong in a row of EVENT, as `problem` does, but faster for valid rows."""
    salt, event_id, uid, key, sequence, ts_ns, kind, user, props = row
    if (
        type(salt) is bytes
        and len(salt) == SALT_BYTES
        and type(event_id) is type(sequence) is type(ts_ns) is int
        and event_id > 0
        and sequence > 0
        and ts_ns >= 0
        and type(props) is bytes
        and len(props) <= PROPS_BYTES_MAX
        and (user is None or (type(user) is str and 0 < len(user) <= _USER_CHARS_SURE))
        and _names_problem(uid, key, kind) is None
    ):
        return None
    return problem(row, EVENT)


@lru_cache(maxsize=4096, typed=True)
def _names_problem(uid: object, key: object, kind: object) -> str | None:
    return _UID(uid) or _PRODUCER_KEY(key) or type_name(kind)


def _kind(value: object) -> str:
    names = {
        type(None): "missing",
        bytes: "bytes",
        str: "text",
        float: "a fraction",
        int: "a whole number",
    }
    return names.get(type(value), type(value).__name__)
