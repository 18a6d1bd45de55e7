"""Every report says all of it: a list is whole, or it has a `next`, whatever it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logd.audit.verify import verify
from logd.batch import Batch
from logd.reports.event_queries import COMPLETIONS_MAX, DAYS_MAX, TYPES_MAX
from logd.reports.ledger_queries import CAUSES
from logd.reports.parameters import PAGE_ROWS_MAX
from logd.reports.registry import REPORTS
from logd_wire.query import ROWS_MAX, encode_frame
from tests.logd.test_reports import Trail, quiz, view

MORE = 7


@pytest.fixture
def trail(directory: Path) -> Iterator[Trail]:
    made = Trail(directory / "a.db", quarantine_rows_max=10**6)
    yield made
    made.store.close()


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
    "event_types": (put_types, TYPES_MAX + MORE, ("type",), {}),
    "losses": (put_losses, PAGE_ROWS_MAX + MORE, ("id",), {"limit": PAGE_ROWS_MAX}),
    "losses_by_cause": (put_losses, ROWS_MAX + MORE, ("cause",), {}),
    "verification": (put_events, 1, ("answer",), {}),
    "quarantine": (put_quarantine, PAGE_ROWS_MAX + MORE, ("id",), {"limit": PAGE_ROWS_MAX}),
}  # fmt: skip
IN_ONE_PAGE = {"summary", "daily_activity", "verification"}


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
