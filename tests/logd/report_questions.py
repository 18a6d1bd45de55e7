"""A trail about eight persons, and questions with every parameter of each report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from logd.batch import Batch
from logd.storage.rollups import DAY_NS
from logd.storage.store import Store
from logd_wire.wire import Event

Stored = tuple[str, int, str | None, dict[str, Any]]  # type, day, user, properties

FLOOR = 5


PERSONS = [f"u{number}" for number in range(1, 9)]


U = dict(enumerate(PERSONS, start=1))


GONE = "somebody"


BYTES = {person: f"\x81 words of {person}".encode() for person in PERSONS}


def events() -> Iterator[Stored]:
    for at, person in enumerate(PERSONS):
        yield "page_view", 100, person, {}
        yield "task_completed", 100, person, {"task": "common"}
        yield "quiz_submitted", 100, person, {"quiz": "common", "score": at / 10}
    for person in PERSONS[:3]:
        yield "page_view", 101, person, {}
    yield "page_view", 102, U[4], {}
    yield "page_view", 103, None, {}
    yield "task_completed", 101, U[5], {"task": "rare"}
    yield "quiz_submitted", 100, U[1], {"quiz": "rare", "score": 0.37}
    yield "quiz_submitted", 100, U[2], {"quiz": "rare", "score": 0.9}
    yield "quiz_submitted", 101, U[3], {"quiz": "single", "score": 1.0}
    yield "quiz_submitted", 101, U[3], {"quiz": "without a score"}
    yield "login_failed", 100, U[6], {}
    yield "group_graded", 100, U[1], {"users": [U[7], U[2]]}
    yield "invited", 100, None, {"deep": [{"user": U[8]}]}
    yield "report_read", 104, U[1], {"params": {"users": [U[2], U[3]]}}


def without(value: Any, person: str | None) -> Any:
    if isinstance(value, dict):
        return {key: without(item, person) for key, item in value.items()}
    if isinstance(value, list):
        return [without(item, person) for item in value]
    return GONE if value == person and value is not None else value


def trail(directory: Path, gone: str | None = None) -> Store:
    """The trail, as it would be without that person."""
    store = Store(directory / f"{gone}.db", bytes(32), 1, 100)
    producer, batch = store.producer(1000, 7), Batch(10**4, 10**8)
    for at, (kind, day, user, props) in enumerate(events()):
        if gone is None or user != gone:
            producer.taken += 1
            packed = msgpack.packb(without(props, gone))
            event = Event(kind, day * DAY_NS + at, user, packed)
            batch.add(producer, producer.taken, event, 10)
    batch.add_loss(producer, producer.taken + 1, None, "outbox gone")
    for person, data in BYTES.items():
        batch.add_quarantine(1000, 5, "malformed", b"" if person == gone else data)
    store.commit(batch, 200 * DAY_NS)
    return store


DAYS = {"since_day": 90, "until_day": 110}


GROUPS: list[list[str]] = [
    [], [U[1]], [U[4]], [U[1], U[2]], ["u9"], [U[7], "u9", "x1", "x2", "x3", "x4"], PERSONS[:5],
    PERSONS[1:], PERSONS, PERSONS + ["u9"],
]  # fmt: skip


EVENT_PAGES: list[dict[str, Any]] = [{}, {"limit": 3}, {"before_id": 12, "limit": 4}]


PAGES = [*EVENT_PAGES, {"before_id": 0}]


REMOVED = {"before_id": 10**6, "before_ns": 101 * DAY_NS}


TYPES = ["page_view", "task_completed", "quiz_submitted", "login_failed", "no_such_type"]


def narrowed_by_users(params: dict[str, Any]) -> list[dict[str, Any]]:
    return [params, *({**params, "users": group} for group in GROUPS)]


LAST_ID = len(list(events()))


LAST_NS = [day * DAY_NS + at for at, (_, day, *_) in enumerate(events())][-1]


QUESTIONS: dict[str, list[dict[str, Any]]] = {
    "summary": [{}],
    "event_types": [{}, {"after": "login_failed"}],
    "losses": PAGES,
    "losses_by_cause": [{}, {"after": 1}],
    "quarantine": PAGES,
    "verification": [{}],
    "trail_state": [{}],
    "removals": PAGES,
    "events_after": [
        {**kind, **page}
        for kind in ({}, {"type": "group_graded"}, {"type": "invited"}, {"type": "report_read"})
        for page in ({}, {"limit": 3}, {"after_id": 0}, {"after_id": 12, "limit": 4})
    ]
    + [{"after_id": LAST_ID, "after_ns": LAST_NS}],
    "daily_activity": [
        one
        for days in (DAYS, {"since_day": 101, "until_day": 101}, {"since_day": 1, "until_day": 2})
        for kind in ({}, *({"type": name} for name in TYPES))
        for one in narrowed_by_users({**days, **kind})
    ],
    "score_distribution": [
        one
        for subject in ({}, *({"subject": name} for name in ("common", "rare", "single", "none")))
        for more in (
            {},
            {"type": "quiz_submitted", "buckets": 100},
            {"type": "task_completed"},
            {"after": "common"},
        )
        for one in narrowed_by_users({**subject, **more})
    ],
    "completions": [
        one
        for subjects in ({}, {"subjects": ["rare"]}, {"subjects": ["single", "common", "none"]})
        for more in ({}, {"type": "quiz_submitted"}, {"after": ["common", U[3]]})
        for one in narrowed_by_users({**subjects, **more})
    ],
    "timeline": [
        {"user": user, **page} for user in (*PERSONS, "u9") for page in [*EVENT_PAGES, REMOVED]
    ],
    **{
        f"person_{what}": [{"user": user, **page} for user in (*PERSONS, "u9") for page in pages]
        for what, pages in (
            ("events", EVENT_PAGES),
            ("mentions", EVENT_PAGES),
            ("readings", [*EVENT_PAGES, {"by": "others"}, {"by": "self"}]),
            ("totals", [{}, {"after": "login_failed"}]),
            ("rollups", [{}, {"after": ["day", "page_view", "", ""]}]),
        )
    },
    "copies": PAGES,
    "events": [
        {**user, **kind, **times, **page}
        for user in ({}, {"user": U[1]}, {"user": "u9"})
        for kind in ({}, {"type": "group_graded"}, {"type": "invited"}, {"type": "report_read"})
        for times in ({}, {"since_ns": 101 * DAY_NS}, {"until_ns": 101 * DAY_NS})
        for page in [*EVENT_PAGES, REMOVED]
    ],
    "evidence": [
        {"user": user, **about, **times}
        for user in (*PERSONS, "u9")
        for about in ({}, {"items": ["task=rare", "quiz=rare"]})
        for times in ({}, {"since_ns": 101 * DAY_NS, "up_to": 15}, {"until_ns": 101 * DAY_NS})
    ],
    "evidence_events": [
        {"user": user, "up_to": 10**6, **about, **times, **page}
        for user in (*PERSONS, "u9")
        for about in ({}, {"items": ["task=rare", "quiz=rare"]})
        for times in ({}, {"since_ns": 101 * DAY_NS}, {"until_ns": 101 * DAY_NS})
        for page in ({}, {"size": 1, "limit": 3}, {"after": 12})
    ],
}


# Each filter by itself and beside others: whom it names, is in no row of some answers.
SEARCHES: list[dict[str, Any]] = [
    {},
    {"types": ["group_graded", "invited"]},
    {"users": [U[1], U[4]]},
    {"users": ["u9"], "about": U[2]},
    {"about": U[7]},
    {"about": "u9"},
    {"about": U[2], "types": ["report_read"]},
    {"props": [f"users={U[7]}"]},
    {"props": [f"deep.user={U[8]}"]},
    {"props": [f"params.users={U[2]}", f"params.users={U[3]}"]},
    {"props": [f"users={U[6]}"]},
    {"props": [f"users.{U[6]}=1"]},
    {"props": ["quiz=rare", "score=0.37"]},
    {"props": ["quiz=common"], "types": ["quiz_submitted"]},
    {"text": U[7]},
    {"text": U[6]},
    {"text": "7"},
    {"text": "U"},
    {"text": "COMMON"},
    {"text": "single", "users": [U[3]]},
    {"type": "page_view", "user": U[4], "since_ns": DAY_NS, "until_ns": 102 * DAY_NS + 10**6},
    {"since_ns": 100 * DAY_NS + 3, "until_ns": 101 * DAY_NS + 99},
]

QUESTIONS["events"] += [{**one, **page} for one in SEARCHES for page in ({}, {"limit": 1})]
QUESTIONS["events_export"] = [
    {**one, **page} for one in SEARCHES for page in ({}, {"limit": 2}, REMOVED)
]
QUESTIONS["event_counts"] = [
    {**one, **by} for one in SEARCHES for by in ({}, {"by": "type"}, {"by": "day"})
]
QUESTIONS["event"] = [{"id": number} for number in (*range(1, 36), 10**6)]
