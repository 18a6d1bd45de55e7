"""The auditor's pages: overview, events with their filters, loss ledger."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logd.reports.ledger_queries import CAUSES
from tests.webapp.browser import Browser
from tests.webapp.conftest import AUDITOR, STUDENT
from tests.webapp.fake_reports import FakeReports
from webapp.classroom.model.analytics import Event
from webapp.classroom.present.texts import LOSS_CAUSES, describe_event

NS = 1_000_000_000
SUMMARY = {
    "stored": 48_211,
    "lost": 0,
    "quarantined": 3,
    "duplicates_ignored": 17,
    "commits": 900,
    "producers": 4,
    "batches": 900,
    "last_stored_ns": 1_762_178_700 * NS,
    "schema": 1,
    "unheard_of": "a newer logd reports more",
}


def cause(name: str, entries: int = 0, events: int = 0, unknown_extent: int = 0) -> dict[str, Any]:
    return {
        "cause": name,
        "entries": entries,
        "events": events,
        "unknown_extent": unknown_extent,
        "last_detected_ns": 1_762_178_700 * NS if entries else None,
    }


def cells(text: str, row: str) -> list[str]:
    """Returns the figures in the table row with that heading."""
    found = re.search(rf'<th scope="row">{row}</th>(.*?)</tr>', text, re.DOTALL)
    assert found, row
    return re.findall(r'<td class="figure">(.*?)</td>', found[1])


def event_row(at: int, user: str | None = str(STUDENT), **props: Any) -> dict[str, Any]:
    return {
        "id": at,
        "ts_ns": 1_762_178_700_123 * 1_000_000,
        "stored_ns": 1_762_178_701 * NS,
        "type": "page_view",
        "user": user,
        "producer": "00ff",
        "sequence": at,
        "props": props,
    }


def test_a_doubtful_time_is_shown_with_the_time_of_storing(
    auditor: Browser, reports: FakeReports
) -> None:
    doubtful = event_row(8) | {"ts_ns": 0, "time_in_doubt": True}
    reports.rows("events", event_row(9) | {"time_in_doubt": False}, doubtful, event_row(7))
    text = auditor.get("/audit/events").text
    assert text.count("by the sender's clock; stored") == 1
    assert "1970-01-01 00:00:00.000</time>" in text
    assert (
        text.count('<time datetime="2025-11-03T14:05:01.000Z">2025-11-03 14:05:01.000</time>') == 1
    )


def test_an_empty_ledger_is_shown_as_zero_losses(auditor: Browser, reports: FakeReports) -> None:
    reports.rows("losses_by_cause", cause("not received"), cause("tail unknown"))
    text = auditor.get("/audit/losses").text
    for name in ("Known lost events", "Losses of unknown extent", "Entries in the ledger"):
        assert f"<dt>{name}</dt><dd>0</dd>" in text
    assert "No event is known to be missing." in text
    for row in ("not received", "tail unknown", "All causes"):
        assert cells(text, row) == ["0", "0", "0"]
    assert "The ledger is empty: 0 entries." in text


def test_the_ledger_shows_producer_range_cause_time_and_unknown_extents(
    auditor: Browser, reports: FakeReports
) -> None:
    reports.rows("summary", SUMMARY | {"lost": 5})
    reports.rows(
        "losses_by_cause",
        cause("not received", entries=1, events=5),
        cause("tail unknown", entries=2, unknown_extent=2),
        cause("restored"),
        cause("<b>of a newer logd", entries=1_000, events=2_000),
    )
    reports.rows(
        "losses",
        {"id": 2, "producer": "00ff", "first": None, "last": None, "events": None}
        | {"cause": "tail unknown", "detected_ns": NS},
        {"id": 1, "producer": "1000-00ab", "first": 1_010, "last": 1_014, "events": 5}
        | {"cause": "not received", "detected_ns": 1_762_178_700 * NS},
        following=1,
    )
    text = auditor.get("/audit/losses").text
    assert "No event is known to be missing." not in text
    assert text.count("unknown</td>") == 4  # first, last and how many; and a cause of that name
    assert "<code>1000-00ab</code>" in text
    assert "1,010" in text and "1,014" in text
    assert "Mon 3 Nov 2025, 14:05" in text
    assert cells(text, "not received") == ["5", "0", "1"]
    assert cells(text, "tail unknown") == ["0", "2", "2"]
    assert cells(text, "restored") == ["0", "0", "0"]
    assert cells(text, "&lt;b&gt;of a newer logd") == ["2,000", "0", "1,000"]
    assert cells(text, "All causes") == ["2,005", "2", "1,003"]
    assert 'href="/audit/losses?before=1"' in text


def test_claimed_losses_are_shown_separately(auditor: Browser, reports: FakeReports) -> None:
    reports.rows("summary", SUMMARY)
    reports.rows("losses_by_cause", cause("claimed", entries=40, events=10**6, unknown_extent=2))
    text = auditor.get("/audit/losses").text
    assert "<dt>Known lost events</dt><dd>0</dd>" in text
    assert "<dt>Losses of unknown extent</dt><dd>0</dd>" in text
    assert "<dt>Entries that are only claimed</dt><dd>40</dd>" in text
    assert cells(text, "claimed") == ["1,000,000", "2", "40"] == cells(text, "All causes")
    text = auditor.get("/audit/").text
    assert "no event is known to be lost" in text
    assert "40 losses are only claimed" in text


def test_every_cause_of_a_loss_is_explained() -> None:
    assert set(LOSS_CAUSES) == set(CAUSES)


def test_an_event_is_shown_with_its_user_s_name_and_formatted_properties(
    auditor: Browser, reports: FakeReports
) -> None:
    reports.rows(
        "events",
        event_row(3, route="/courses/", duration_ms=12.34567, ok=True, tags=["a"], note="<b>"),
        event_row(2, user=None),
        event_row(1, user="999"),
    )
    text = auditor.get("/audit/events").text
    assert "Noor Haddad" in text
    assert f"#{STUDENT}" in text
    assert "no user" in text
    assert "no such account" in text
    assert "<bdi>12.35</bdi>" in text
    assert "<bdi>yes</bdi>" in text
    assert "<bdi>&lt;b&gt;</bdi>" in text
    assert "2025-11-03 14:05:00.123" in text
    assert {message["asked_by"] for message in reports.requests} == {str(AUDITOR)}


def test_a_reading_of_many_shows_the_first_of_them_and_how_many_more_there_are(
    auditor: Browser, reports: FakeReports
) -> None:
    members = [str(number) for number in range(1000)]
    params = {"type": "quiz_submitted", "users": members}
    reports.rows("events", event_row(3, report="completions", params=params, users=members[:6]))
    text = auditor.get("/audit/events").text
    shown = re.findall(r"<bdi>(and .* more|[0-9]+)</bdi>", text)
    assert shown == ["0", "1", "2", "3", "4", "and 995 more", "0", "1", "2", "3", "4", "and 1 more"]


def test_an_event_of_thousands_of_properties_or_long_ones_is_cut(
    auditor: Browser, reports: FakeReports
) -> None:
    """Whoever may log can log them, and a page has 50 events."""
    props: dict[str, Any] = {
        f"p{number}": "x" * 10_000 if number == 1 else number for number in range(6000)
    }
    reports.rows("events", *(event_row(number, **props) for number in range(1, 51)))
    text = auditor.get("/audit/events").text
    assert text.count("<dt>") == 50 * 41
    assert text.count("and 5,960 more") == 50
    assert text.count("x" * 199 + "…") == 50 and "x" * 200 not in text


def test_the_filters_become_parameters_of_the_report(
    auditor: Browser, reports: FakeReports
) -> None:
    auditor.get(
        "/audit/events?type=login&user=Student&since=2026-11-01T08:30&until=2026-11-02&before=50"
    )
    (asked,) = reports.asked("events")
    assert asked == {
        "type": "login",
        "user": str(STUDENT),
        "since_ns": int(datetime(2026, 11, 1, 8, 30, tzinfo=UTC).timestamp()) * NS,
        "until_ns": int(datetime(2026, 11, 2, tzinfo=UTC).timestamp()) * NS,
        "before_id": 50,
        "limit": 50,
    }


def test_events_of_a_removed_account_can_be_filtered_by_its_number(
    auditor: Browser, reports: FakeReports
) -> None:
    auditor.get("/audit/events?user=999")
    assert reports.asked("events")[0]["user"] == "999"


def test_paging_keeps_the_filters(auditor: Browser, reports: FakeReports) -> None:
    reports.rows("events", event_row(7), following=7, searched_to_ns=1762178700123000000)
    text = auditor.get("/audit/events?type=page_view&user=student&before=9").text
    older = "user=student&amp;type=page_view&amp;before=7&amp;before_ns=1762178700123000000"
    assert f'href="/audit/events?{older}"' in text
    assert 'href="/audit/events?user=student&amp;type=page_view"' in text


def test_a_timeline_shows_an_unknown_type_as_words() -> None:
    names = ("order.paid", "user-login", "essay_read")
    events = [Event(1, 1, 1, name, "7", "1-1", 1, {}) for name in names]
    assert [describe_event(event, {}) for event in events] == [
        "Order paid",
        "User login",
        "Essay read",
    ]


@pytest.mark.parametrize("event_type", ["order.paid", "user-login"])
def test_a_type_with_dots_or_hyphens_is_listed_linked_and_filtered_by(
    auditor: Browser, reports: FakeReports, event_type: str
) -> None:
    reports.rows("event_types", {"type": event_type, "events": 1})
    assert f'href="/audit/events?type={event_type}"' in auditor.get("/audit/").text
    auditor.get(f"/audit/events?type={event_type}")
    assert reports.asked("events")[0]["type"] == event_type


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("type=Not+A+Type!", "small letters"),
        ("type=order..paid", "small letters"),
        ("user=somebody", "No account has a name or login with"),
        ("since=yesterday", "Not a valid"),
        ("since=2026-11-02&until=2026-11-01", "has to come after"),
        ("since=2026-11-02&until=2026-11-02", "has to come after"),
        ("since=0001-01-01", "Choose a year"),
        ("since=9999-12-31", "Choose a year"),
        ("since=1796000000", "Not a valid"),
        ("until=\u0662\u0660\u0662\u0666-11-01", "Not a valid"),
        ("until=9999-12-31T23:59", "Choose a year"),
        ("type=" + "x" * 500, "longer than"),
    ],
)
def test_an_invalid_filter_is_explained_and_requests_no_report(
    auditor: Browser, reports: FakeReports, query: str, words: str
) -> None:
    response = auditor.get(f"/audit/events?{query}")
    assert response.status_code == 200
    assert words in response.text
    assert "please correct the filter" in response.text
    assert not reports.asked("events")


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    query=st.dictionaries(
        st.sampled_from(["type", "user", "since", "until", "before"]), st.text(max_size=30)
    )
)
def test_the_event_list_accepts_or_refuses_any_query(
    auditor: Browser, reports: FakeReports, query: dict[str, str]
) -> None:
    response = auditor.client.get(
        "/audit/events", query_string=query, base_url="https://classroom.example"
    )
    assert response.status_code in {200, 400}


@pytest.mark.parametrize("path", ["/audit/", "/audit/events", "/audit/losses"])
def test_without_logd_the_pages_say_so(auditor: Browser, path: str) -> None:
    response = auditor.get(path)
    assert response.status_code == 200
    assert "Analytics are unavailable" in response.text


def test_an_invalid_summary_does_not_break_the_page(auditor: Browser, reports: FakeReports) -> None:
    reports.rows("summary", {"stored": 1})
    response = auditor.get("/audit/")
    assert response.status_code == 200
    assert "does not fit this version of the site" in response.text
