"""Every report says all of it: a list is whole, or it has a `next`, whatever it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logd.audit.verify import verify
from logd.batch import Batch, Producer
from logd.reports import event_counts, event_search
from logd.reports.event_queries import COMPLETIONS_MAX, DAYS_MAX, TYPES_MAX
from logd.reports.event_search import EXPORT_ROWS_MAX
from logd.reports.evidence import PAGE_EVENTS_MAX
from logd.reports.ledger_queries import CAUSES
from logd.reports.parameters import PAGE_ROWS_MAX, BadParameter
from logd.reports.readings import named_in_rows
from logd.reports.registry import REPORTS
from logd.serve.access_events import access_events
from logd.storage.job_table import FORGET, PRUNE, add_job
from logd.storage.mentions import DEFAULT_KEYS
from logd_wire.query import ROWS_MAX, encode_frame
from logd_wire.wire import producer_seed
from tests.logd.test_reports import Trail, quiz, view

MORE = 7


@pytest.fixture
def trail(directory: Path) -> Iterator[Trail]:
    made = Trail(directory / "a.db", quarantine_rows_max=10**6)
    yield made
    made.store.close()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a page would end early."""
    for module, name in (
        (event_search, "PAGE_S"), (event_search, "EXPORT_PAGE_S"), (event_counts, "COUNT_S")
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 100.0)


def put_events(trail: Trail, count: int) -> None:
    trail.put(*(view("1", day) for day in range(count)))


def put_quizzes(trail: Trail, count: int) -> None:
    trail.put(*(quiz("1", f"{number:05}", 0.5) for number in range(count)))


def put_types(trail: Trail, count: int) -> None:
    # Not by events: a user may introduce fewer than a page of them.
    trail.store.connection.execute(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT ?)"
        " INSERT INTO event_type (name) SELECT 'type_' || n FROM n",
        (count,),
    )


def put_types_of_events(trail: Trail, count: int) -> None:
    trail.put(*((f"type_{number}", None, 1, {}) for number in range(count)))


def put_losses(trail: Trail, count: int) -> None:
    batch = Batch(10**6, 10**9)
    for number in range(1, count + 1):
        batch.add_loss(trail.producer, number, number, f"cause {number:05}")
    trail.store.commit(batch, 5)


def put_quarantine(trail: Trail, count: int) -> None:
    batch = Batch(10**6, 10**9)
    for number in range(count):
        batch.add_quarantine(1, 2, f"reason {number}", b"x")
    trail.store.commit(batch, 5)


def put_jobs(trail: Trail, count: int) -> None:
    for at in range(count):
        add_job(trail.store.connection, (PRUNE, FORGET)[at % 2], {}, at)


def put_mentions(trail: Trail, count: int) -> None:
    trail.put(*(("graded", "8", day, {"users": ["1", "9"]}) for day in range(count)))


def put_readings(trail: Trail, count: int) -> None:
    read = {"report": "timeline", "params": {"user": "1"}, "everyone": False}
    trail.put(*(("report_read", "8", day, read) for day in range(count)))


def put_person_types(trail: Trail, count: int) -> None:
    for at in range(0, count, 400):  # one uid may introduce 500 types
        trail.producer = Producer(uid=2000 + at, id=9, seed=producer_seed(9))
        numbers = range(at, min(at + 400, count))
        trail.put(*((f"type_{number}", "1", 5, {}) for number in numbers))


def put_copies(trail: Trail, count: int) -> None:
    trail.store.connection.executemany(
        "INSERT INTO copy (kind, made_ns, expires_ns, place) VALUES ('backup', ?, NULL, '/b')",
        [(number,) for number in range(count)],
    )


# For each report: what fills it, with how many rows, which columns tell them apart, and with which
# parameters all of it is asked.
WHOLE: dict[str, tuple[Callable[[Trail, int], None], int, tuple[str, ...], dict[str, Any]]] = {
    "summary": (put_events, 1, ("stored",), {}),
    "daily_activity": (put_events, DAYS_MAX, ("day",), {"since_day": 0, "until_day": DAYS_MAX - 1}),
    "completions": (
        put_quizzes, COMPLETIONS_MAX + MORE, ("subject",), {"type": "quiz_submitted"}
    ),
    "score_distribution": (put_quizzes, ROWS_MAX + MORE, ("subject",), {}),
    "timeline": (put_events, PAGE_ROWS_MAX + MORE, ("id",), {"user": "1", "limit": PAGE_ROWS_MAX}),
    "events": (put_events, PAGE_ROWS_MAX + MORE, ("id",), {"limit": PAGE_ROWS_MAX}),
    "events_after": (
        put_events, PAGE_ROWS_MAX + MORE, ("id",), {"after_id": 0, "limit": PAGE_ROWS_MAX}
    ),
    "events_export": (put_events, EXPORT_ROWS_MAX + MORE, ("id",), {}),
    "event": (put_events, 1, ("id",), {"id": 1}),
    "event_counts": (put_types_of_events, 500, ("type",), {}),
    "event_types": (put_types, TYPES_MAX + MORE, ("type",), {}),
    "person_events": (
        put_events, PAGE_ROWS_MAX + MORE, ("id",), {"user": "1", "limit": PAGE_ROWS_MAX}
    ),
    "person_mentions": (
        put_mentions, PAGE_ROWS_MAX + MORE, ("id",), {"user": "1", "limit": PAGE_ROWS_MAX}
    ),
    "person_readings": (
        put_readings, PAGE_ROWS_MAX + MORE, ("id",), {"user": "1", "limit": PAGE_ROWS_MAX}
    ),
    "person_totals": (put_person_types, ROWS_MAX + MORE, ("type",), {"user": "1"}),
    "person_rollups": (put_events, ROWS_MAX + MORE, ("kind", "part"), {"user": "1"}),
    "copies": (put_copies, PAGE_ROWS_MAX + MORE, ("id",), {"limit": PAGE_ROWS_MAX}),
    "losses": (put_losses, PAGE_ROWS_MAX + MORE, ("id",), {"limit": PAGE_ROWS_MAX}),
    "losses_by_cause": (put_losses, ROWS_MAX + MORE, ("cause",), {}),
    "verification": (put_events, 1, ("answer",), {}),
    "evidence": (put_events, 1, ("events",), {"user": "1"}),
    "evidence_events": (
        put_events, PAGE_EVENTS_MAX + MORE, ("id",),
        {"user": "1", "up_to": 10**6, "limit": PAGE_EVENTS_MAX},
    ),
    "trail_state": (put_events, 1, ("at_ns",), {}),
    "removals": (put_jobs, PAGE_ROWS_MAX + MORE, ("id",), {"limit": PAGE_ROWS_MAX}),
    "quarantine": (put_quarantine, PAGE_ROWS_MAX + MORE, ("id",), {"limit": PAGE_ROWS_MAX}),
}  # fmt: skip
IN_ONE_PAGE = {
    *("summary", "daily_activity", "verification", "event", "event_counts", "trail_state"),
    "evidence",
}


def test_every_report_is_among_those_tried() -> None:
    assert set(WHOLE) == set(REPORTS)


@pytest.mark.parametrize("report", sorted(WHOLE))
def test_a_report_has_every_row_on_some_page_or_a_next(trail: Trail, report: str) -> None:
    fill, count, columns, params = WHOLE[report]
    fill(trail, count)
    pages = list(trail.pages(report, **params))
    found = [tuple(row[column] for column in columns) for page in pages for row in page.rows]
    zeros = len(CAUSES) if report == "losses_by_cause" else 0
    assert len(found) == len(set(found)) == count + zeros
    assert (len(pages) == 1) is (report in IN_ONE_PAGE)
    assert verify(trail.store.connection).findings == []


@pytest.mark.parametrize("report", ["completions", "score_distribution"])
def test_long_subjects_make_shorter_pages_and_no_refusal(trail: Trail, report: str) -> None:
    count, long = 300, "\N{GRINNING FACE}" * 7900
    for start in range(0, count, 50):
        trail.put(*(quiz("1", f"{long}{number:05}", 0.5) for number in range(start, start + 50)))
    pages = list(trail.pages(report, type="quiz_submitted"))
    for page in pages:
        encode_frame({"ok": True, "rows": page.rows, "next": page.next})  # it fits into a frame
    assert len(pages) > 1
    assert len({row["subject"] for page in pages for row in page.rows}) == count


def fill_pages(trail: Trail, report: str) -> None:
    """Two pages and a half of each report, in which rows can be put before the first one's end."""
    if report == "event_types":
        put_types(trail, 25)
    else:
        for user in ("3", "5"):
            trail.put(*(quiz(user, f"{number:05}", 0.25) for number in range(25)))


# As storing and erasing change the tables.
CHANGES = {
    "a user is stored": "INSERT INTO rollup_subject SELECT type, subject, '4', 1, 1, 1, 0.25,"
    " 0.25, 0 FROM rollup_subject WHERE user = '3'",
    "a subject is stored": "INSERT INTO rollup_subject SELECT type, '000005', '5', 1, 1, 1, 0.25,"
    " 0.25, 0 FROM rollup_subject LIMIT 1",
    "a user is erased": "DELETE FROM rollup_subject WHERE user = '3'",
    "types are stored": "UPDATE event_type SET events = events + id % 7 WHERE id > 9",
    "a type is new": "INSERT INTO event_type (name, events) VALUES ('a_type', 100)",
}


@pytest.mark.parametrize("change", sorted(CHANGES))
@pytest.mark.parametrize("report", ["completions", "score_distribution", "event_types"])
def test_what_changes_between_two_pages_shifts_no_other_row(
    directory: Path, report: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COMPLETIONS_MAX", "ROWS_MAX", "TYPES_MAX"):
        monkeypatch.setattr(f"logd.reports.event_queries.{name}", 10)
    trail = Trail(directory / "a.db")
    fill_pages(trail, report)
    columns = WHOLE[report][2] + (("user",) if report == "completions" else ())
    pages = trail.pages(report, **WHOLE[report][3])
    rows = list(next(pages).rows)
    trail.store.connection.execute(CHANGES[change])
    for page in pages:
        rows += page.rows
    found = [tuple(row[column] for column in columns) for row in rows]
    expected: set[tuple[str, ...]]
    if report == "event_types":
        expected = {(f"type_{number}",) for number in range(1, 26)}
    elif report == "completions":
        expected = {(f"{number:05}", "5") for number in range(25)}
    else:
        expected = {(f"{number:05}",) for number in range(25)}
    assert len(found) == len(set(found)), "no row comes twice"
    assert expected <= set(found), "and none is left out"
    trail.store.close()


def test_a_subject_is_on_one_page_with_all_its_users(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two pages a user's latest score may move from one part to another."""
    monkeypatch.setattr("logd.reports.event_queries.ROWS_MAX", 10)
    for subject, parts in (("a", 4), ("b", 4), ("c", 4), ("d", 9)):
        trail.put(*(quiz(str(part), subject, part / 10) for part in range(parts)))
    pages = [[row["subject"] for row in page.rows] for page in trail.pages("score_distribution")]
    assert pages == [["a"] * 4 + ["b"] * 4, ["c"] * 4, ["d"] * 9]


@pytest.mark.parametrize(
    ("report", "after"),
    [("completions", "a"), ("completions", ["a"]), ("completions", ["a", "b", "c"]),
     ("score_distribution", 1), ("score_distribution", ["a"]), ("event_types", 1)],
)  # fmt: skip
def test_a_key_of_another_form_is_refused(trail: Trail, report: str, after: Any) -> None:
    with pytest.raises(BadParameter, match=r"^after: "):
        trail.ask(report, after=after)


def test_events_that_name_more_persons_than_one_reading_can_list_make_shorter_pages(
    trail: Trail,
) -> None:
    """Each names another 5,000 by short ids, as a client may log them: on the page of an auditor,
    which asks for 50 events.
    """
    events, limit = 45, 50
    for at in range(events):
        users = [f"{number:x}" for number in range(at * 5000, at * 5000 + 5000)]
        trail.put(("grouped", None, 1, {"users": users}))
    found: list[int] = []
    for page in trail.pages("events", limit=limit):
        concerned = named_in_rows(trail.store.connection, {}, page, DEFAULT_KEYS.persons)
        read = access_events("events", {"limit": limit}, concerned, uid=1, pid=2)
        assert sum(len(props["users"]) for props in read) == 5000 * len(page.rows)
        found += [row["id"] for row in page.rows]
    assert found == list(range(events, 0, -1))
