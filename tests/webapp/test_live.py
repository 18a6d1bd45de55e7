"""The live view: its page without a script, its stream, and what it costs."""

from __future__ import annotations

import html
import json
import re
import threading
from typing import Any

import pytest

from logd_wire.query import Unavailable
from tests.webapp.browser import Browser
from tests.webapp.conftest import AUDITOR, STUDENT
from tests.webapp.fake_reports import FakeReports
from tests.webapp.flask_apps import Clients
from webapp.classroom.views import live

NS = 10**9
AT_NS = 1_762_178_700_123 * 1_000_000


def row(at: int, event_type: str = "login", user: str | None = str(STUDENT), **props: Any) -> Any:
    return {"id": at, "ts_ns": AT_NS, "stored_ns": AT_NS, "type": event_type, "user": user,
            "producer": "0-1", "sequence": at, "props": props, "time_in_doubt": False}  # fmt: skip


def trail(reports: FakeReports, *rows: dict[str, Any], limit: int = 50) -> None:
    """Makes the stand-in answer `events_after` as logd does, of these rows."""

    def answer(params: dict[str, Any]) -> dict[str, Any]:
        found = [one for one in rows if params.get("type") in (None, one["type"])]
        if "after_id" not in params:
            return {"ok": True, "rows": found[-limit:], "next": None}
        found = [one for one in found if one["id"] > params["after_id"]]
        following = found[limit - 1]["id"] if len(found) > limit else None
        return {"ok": True, "rows": found[:limit], "next": following}

    reports.reports["events_after"] = answer


def messages(text: str) -> list[dict[str, str]]:
    """The messages of a stream, by the rules of server-sent events."""
    assert text.endswith("\n\n")
    return [
        dict(line.split(": ", 1) for line in message.split("\n"))
        for message in text[:-2].split("\n\n")
    ]


def stream(browser: Browser, query: str, **headers: str) -> tuple[list[Any], dict[str, Any], int]:
    """The events of an answer of the stream, its state, and after how many ms to ask again."""
    response = browser.get(f"/audit/live/stream?{query}", headers=headers)
    assert response.status_code == 200 and response.mimetype == "text/event-stream"
    first, *events, last = messages(response.text)
    assert list(first) == ["retry"] and last["event"] == "state"
    cards = [{"sent_id": one["id"], **json.loads(one["data"])} for one in events]
    assert {one["event"] for one in events} <= {"stored"}
    return cards, json.loads(last["data"]), int(first["retry"])


def test_the_page_shows_the_newest_events_and_needs_no_script(
    auditor: Browser, reports: FakeReports
) -> None:
    trail(reports, row(3), row(4, "essay_read", None, words=7), row(5, user="999", note="<b>"))
    reports.rows("event_types", {"type": "essay_read", "events": 1})
    text = auditor.get("/audit/live").text
    rows = re.findall(r'<li data-place="position" data-position="([^"]*)">', text)
    assert rows == [f"5.{AT_NS}", f"4.{AT_NS}", f"3.{AT_NS}", ""], "and the empty one of the script"
    assert f'data-after="5.{AT_NS}"' in text
    assert "Noor Haddad #11" in text and "no such account #999" in text and "no user" in text
    assert "2025-11-03 14:05:00" in text and "note: &lt;b&gt;" in text and "Logged in" in text
    assert '<a class="button quiet" href="/audit/live"' in text
    assert re.search(r"<template>.*</template>", text, re.S)
    assert reports.asked("events_after") == [{"limit": 50}]
    assert {message["asked_by"] for message in reports.requests} == {str(AUDITOR)}


def test_the_stream_continues_after_the_browsers_last_event_and_ends(
    auditor: Browser, reports: FakeReports
) -> None:
    trail(reports, *(row(at) for at in range(1, 9)))
    cards, state, retry_ms = stream(auditor, f"after=5.{AT_NS}")
    assert [card["id"] for card in cards] == ["6", "7", "8"], "oldest first"
    assert [card["sent_id"] for card in cards] == [f"{at}.{AT_NS}" for at in (6, 7, 8)]
    assert cards[0]["who"] == "Noor Haddad #11" and cards[0]["told"] == "Logged in"
    assert state == {"more": False} and retry_ms == live.RETRY_MS
    assert reports.asked("events_after")[-1] == {"after_id": 5, "after_ns": AT_NS, "limit": 50}
    # The header of a browser that asks again wins over the address with which it began.
    cards, _, _ = stream(auditor, f"after=5.{AT_NS}", **{"Last-Event-ID": f"7.{AT_NS}"})
    assert [card["id"] for card in cards] == ["8"]
    cards, state, _ = stream(auditor, "after=8")
    assert cards == [] and state == {"more": False}


def test_a_backlog_comes_in_bounded_answers_at_a_quicker_pace(
    auditor: Browser, reports: FakeReports
) -> None:
    trail(reports, *(row(at) for at in range(1, 121)))
    found: list[str] = []
    after = "0"
    for count, pace_ms in ((50, 250), (50, 250), (20, 2000)):
        cards, state, retry_ms = stream(auditor, f"after={after}")
        assert (len(cards), retry_ms, state["more"]) == (count, pace_ms, count == 50)
        found += [card["id"] for card in cards]
        after = cards[-1]["sent_id"]
    assert found == [str(at) for at in range(1, 121)]


def test_only_one_type_is_shown_if_it_is_chosen(auditor: Browser, reports: FakeReports) -> None:
    trail(reports, row(1), row(2, "logout"), row(3), row(4, "report_read"))
    text = auditor.get("/audit/live?type=+logout+").text
    assert 'data-stream="/audit/live/stream?type=logout"' in text
    assert re.findall(r'data-position="(\d)', text) == ["2"]
    cards, _, _ = stream(auditor, "type=report_read&after=1")
    assert [card["id"] for card in cards] == ["4"]


@pytest.mark.parametrize("typed", ["Not A Type", "a..b", "x" * 500, "<b>"])
def test_a_wrong_type_is_explained(auditor: Browser, reports: FakeReports, typed: str) -> None:
    response = auditor.get("/audit/live", query_string={"type": typed})
    assert response.status_code == 200 and "A type has small letters" in response.text
    assert "<b>" not in response.text and not reports.asked("events_after")
    assert 'id="live"' not in response.text, "nothing to follow"


@pytest.mark.parametrize(
    "after", ["", "x", "-1", "1.", "1.x", "²", "9" * 30, str(2**63), f"1.{2**63}", "1 2", "1\n"]
)
def test_a_stream_from_an_impossible_position_is_refused(
    auditor: Browser, reports: FakeReports, after: str
) -> None:
    response = auditor.get("/audit/live/stream", query_string={"after": after})
    assert response.status_code == 400
    assert not reports.asked("events_after")


def test_while_logd_is_away_the_page_and_the_stream_say_so_and_go_on(
    auditor: Browser, app: Any
) -> None:
    text = auditor.get("/audit/live").text
    assert 'data-after="new"' in text and "does not answer" in text
    cards, state, retry_ms = stream(auditor, "after=new")
    assert cards == [] and "does not answer" in state["away"] and retry_ms == live.RETRY_MS
    fake = FakeReports(app.config["ACTIVITY_QUERY_SOCKET"])
    try:
        trail(fake, row(1), row(2))
        cards, state, _ = stream(auditor, "after=new")
        assert [card["id"] for card in cards] == ["1", "2"] and "away" not in state
    finally:
        fake.close()


def test_a_replaced_trail_is_said_and_not_shown_as_if_nothing_was(
    auditor: Browser, reports: FakeReports
) -> None:
    reports.refuse("events_after", "replaced", "after_id: event 9 is another one now")
    cards, state, _ = stream(auditor, "after=9.1")
    assert cards == [] and state == {"replaced": True}


def test_its_requests_are_no_page_views_but_its_page_and_refusals_are_logged(
    auditor: Browser, reports: FakeReports, clients: Clients
) -> None:
    """Else it would show its own requests, every 2 s, to whoever watches."""
    trail(reports, row(1))
    before = len(clients.events)
    auditor.get("/audit/live")
    for _ in range(3):
        stream(auditor, "after=0")
    (seen,) = clients.events[before:]
    assert (seen.type, seen.props["endpoint"]) == ("page_view", "live.page")
    auditor.get("/audit/live/stream?after=x")
    assert clients.events[-1].type == "request_refused"
    auditor.post("/logout")
    auditor.log_in("student")
    assert auditor.get("/audit/live/stream?after=0").status_code == 403
    refused = clients.events[-1]
    assert (refused.type, refused.user) == ("request_refused", str(STUDENT))


def test_streams_take_one_thread_of_a_worker_at_most_while_logd_hangs(
    app: Any, auditor: Browser, reports: FakeReports
) -> None:
    """gunicorn has four threads in a worker, and pupils need them."""
    entered, leave = threading.Event(), threading.Event()

    def hang(_params: dict[str, Any]) -> dict[str, Any]:
        entered.set()
        assert leave.wait(20)
        return {"ok": True, "rows": [row(1)], "next": None}

    other = Browser(app)
    other.log_in("auditor")
    app.config["ACTIVITY_QUERY_TIMEOUT_S"] = 20.0
    reports.reports["events_after"] = hang
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(stream(auditor, "after=0")))
    thread.start()
    try:
        assert entered.wait(20)
        for _ in range(3):
            cards, state, retry_ms = stream(other, "after=0")
            assert (cards, state, retry_ms) == ([], {"busy": True}, live.RETRY_BUSY_MS)
        assert len(reports.asked("events_after")) == 1
    finally:
        leave.set()
        thread.join()
    assert len(answers[0][0]) == 1
    assert len(stream(other, "after=0")[0]) == 1, "the place is free again"


def test_the_place_of_a_stream_is_free_again_after_any_error(
    auditor: Browser, monkeypatch: pytest.MonkeyPatch, app: Any
) -> None:
    app.config.update(TESTING=False, PROPAGATE_EXCEPTIONS=False)
    for error in (RuntimeError("a mistake"), Unavailable("gone")):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("webapp.classroom.model.reports.Reports.ask", fail)
        for _ in range(2 * live.STREAMS_MAX):
            response = auditor.get("/audit/live/stream?after=0")
            assert response.status_code == 500 or "busy" not in response.text


def test_any_text_of_an_event_is_data_and_no_message(
    auditor: Browser, reports: FakeReports
) -> None:
    odd = "a\n\nid: 99\nevent: state\ndata: {}\r\u2028</script><b>\0"
    trail(reports, row(1, "essay_read", odd, text=odd, **{odd: odd}))
    cards, state, _ = stream(auditor, "after=0")
    assert len(cards) == 1 and state == {"more": False}
    assert "\n" not in cards[0]["props"].replace(odd, "") or cards[0]["id"] == "1"
    page = auditor.get("/audit/live").text
    assert "<b>" not in html.unescape(re.sub("<[^>]+>", "", page)).replace("</script><b>", "")
    assert "</script><b>" not in page


def test_an_event_with_many_properties_is_shown_in_bounded_length(
    auditor: Browser, reports: FakeReports
) -> None:
    trail(reports, row(1, **{f"p{number}": "x" * 1000 for number in range(3000)}))
    (card,) = stream(auditor, "after=0")[0]
    assert len(card["props"]) < 3000 and card["props"].endswith("…")
