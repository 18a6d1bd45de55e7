"""Makes the events that record the reading of a report: what was asked, and about whom (pure).

    {"report": name, "params": the question, "peer_uid": u, "peer_pid": p,
     "everyone": whether it may be about persons who are not listed,
     "users": [persons whom the answer is about and the question does not name]}

A person whom another parameter than `user` or `users` names is recorded under one of these two
keys: `about` as {"user": person}, and an item of `props` as {"path": path, "user": person}.

Lists are never shortened: those too long for one event are spread over several, with `part` and
`parts`. `logd person` and `logd forget` find persons in `params` and `users` as in any event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgpack

from logd.reports.readings import Concerned
from logd_wire.query import QueryError
from logd_wire.schema import PAYLOAD_BYTES_MAX, USER_BYTES_MAX

# Texts are cut to this length, since a question may be longer than an event; users are shorter.
TEXT_CHARS_MAX = USER_BYTES_MAX
CUT = "\N{HORIZONTAL ELLIPSIS}"
# The most events for one reading: as many as the daemon stores in one commit.
EVENTS_MAX = 64
# Bytes for the event's type, time and user, and for the counts of parts and items.
_RESERVED_BYTES = 1024
_ITEM_HEAD_BYTES = 5


def access_events(
    report: str, params: Mapping[str, Any], concerned: Concerned, *, uid: int, pid: int
) -> list[dict[str, Any]]:
    """Returns the properties of each event that records a reading.

    Raises QueryError if the answer is about more persons than EVENTS_MAX events can list.
    """
    if concerned.question is not None:
        params = concerned.question
    lists = {name: value for name, value in params.items() if isinstance(value, list)}
    named = {*lists.get("users", ()), params.get("user")}
    items = [(name, _cut(item)) for name, value in lists.items() for item in value]
    items += [("", person) for person in sorted(concerned.persons - named)]
    common = {
        "report": report,
        "params": {name: _cut(value) for name, value in params.items() if name not in lists},
        "peer_uid": uid,
        "peer_pid": pid,
        "everyone": concerned.everyone,
    }
    room = PAYLOAD_BYTES_MAX - _RESERVED_BYTES - len(msgpack.packb(common))
    parts = list(_parts(items, room))
    if len(parts) > EVENTS_MAX:
        raise QueryError("too_large", "the answer names too many persons: ask for fewer rows")
    events = [_event(common, part) for part in parts]
    for name in lists:
        events[0]["params"].setdefault(name, [])
    if len(events) > 1:
        for number, event in enumerate(events, start=1):
            event |= {"part": number, "parts": len(events)}
    return events


def _event(common: Mapping[str, Any], items: list[tuple[str, Any]]) -> dict[str, Any]:
    event = {**common, "params": dict(common["params"])}
    for name, item in items:
        (event["params"].setdefault(name, []) if name else event.setdefault("users", [])).append(
            item
        )
    return event


def _parts(items: list[tuple[str, Any]], room: int) -> Iterator[list[tuple[str, Any]]]:
    """Yields lists of the items that each fit into an event; at least one list."""
    part: list[tuple[str, Any]] = []
    used = 0
    for item in items:
        size = _ITEM_HEAD_BYTES + len(str(item[1]).encode())
        if used + size > room:
            yield part
            part, used = [], 0
        part.append(item)
        used += size
    yield part


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > TEXT_CHARS_MAX:
        return value[:TEXT_CHARS_MAX] + CUT
    return value
