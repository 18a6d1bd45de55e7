"""Exports of the explorer: formats, exactly what is shown, constant memory, and visible stops."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask, Response
from hypothesis import given
from hypothesis import strategies as st

from logd import render
from logd_wire.query import Answer, QueryClient, QueryError, Row, Unavailable
from tests.webapp.browser import ORIGIN, Browser
from tests.webapp.conftest import AUDITOR
from tests.webapp.fake_reports import FakeReports
from tests.webapp.flask_apps import Clients
from tests.webapp.test_audit import event_row
from webapp.classroom.model.accounts import Role, User
from webapp.classroom.model.explorer import (
    EXPORT_TRIES,
    EventSearch,
    Explorer,
    ExportStopped,
)
from webapp.classroom.model.reports import Reports
from webapp.classroom.present.event_export import FORMATS, INCOMPLETE
from webapp.classroom.views.event_download import EXPORTS_MAX, download

READER = User(AUDITOR, "auditor", "Ruth Keller", Role.AUDITOR)
LIST = "/audit/events"

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=4) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(1, 2**63 - 1),
        "ts_ns": st.integers(0, 2**63 - 1),
        "stored_ns": st.integers(0, 2**63 - 1),
        "type": st.sampled_from(["login", "order.paid"]),
        "user": st.none() | st.text(min_size=1) | st.sampled_from(["007", "=1+1", "-1", "12e3"]),
        "producer": st.just("1000-00ab"),
        "sequence": st.integers(1, 2**63 - 1),
        "props": st.dictionaries(st.text(), VALUES, max_size=3),
        "time_in_doubt": st.booleans(),
    }
)


@given(st.lists(ROWS, max_size=3))
def test_each_format_is_that_of_logd_export_byte_for_byte(rows: list[Row]) -> None:
    stored = [{name: row[name] for name in render.COLUMNS} for row in rows]
    for name, lines in (
        ("csv", render.csv_lines),
        ("spreadsheet", render.spreadsheet_lines),
        ("jsonl", render.json_lines),
    ):
        ours = "".join(FORMATS[name].lines(iter(rows)))
        assert ours == "".join(f"{line}\n" for line in lines(stored)), name


def test_no_cell_for_a_spreadsheet_is_a_formula() -> None:
    evil = [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        " =1",
        "a;=1",
        "\uff1d1",
        "007",
        "12e3",
        "9" * 21,
    ]
    rows = [event_row(at, user) for at, user in enumerate(evil)]
    text = "".join(FORMATS["spreadsheet"].lines(rows))
    assert text.startswith("\ufeff")
    cells = [row[4] for row in csv.reader(io.StringIO(text[1:]))][1:]
    assert cells == [
        "'=1+1", "'+1", "'-1", "'@SUM(A1)", "\\t=1", "' =1", "a;'=1", "'\uff1d1", "'007", "'12e3",
        "'" + "9" * 21,
    ]  # fmt: skip


def test_an_export_has_what_the_list_shows_in_its_order_and_is_recorded(
    auditor: Browser, reports: FakeReports, clients: Clients
) -> None:
    pages = {None: ([event_row(9), event_row(8)], 8), 8: ([event_row(3)], None)}

    def answer(params: dict[str, Any]) -> dict[str, Any]:
        rows, following = pages[params.get("before_id")]
        assert params.get("before_ns") == (None if params.get("before_id") is None else 88)
        searched = None if following is None else 88
        return {"ok": True, "rows": rows, "next": following, "searched_to_ns": searched}

    reports.reports["events_export"] = answer
    query = "user=noor&type=page_view,login&prop=a%3D1&status=403&text=x&since=2026-01-01&about=4"
    auditor.get(f"{LIST}?{query}")
    (shown,) = reports.asked("events")
    for form, parse in (
        ("csv", lambda text: [row["id"] for row in csv.DictReader(io.StringIO(text))]),
        (
            "spreadsheet",
            lambda text: [row["\ufeffid"] for row in csv.DictReader(io.StringIO(text))],
        ),
        ("jsonl", lambda text: [str(json.loads(line)["id"]) for line in text.splitlines()]),
    ):
        reports.requests.clear()
        response = auditor.get(f"{LIST}/export/{form}?{query}")
        assert (
            response.status_code == 200 and "attachment" in response.headers["Content-Disposition"]
        )
        assert parse(response.text) == ["9", "8", "3"]
        first, second = reports.asked("events_export")
        assert first == {name: value for name, value in shown.items() if name != "limit"}
        assert second == first | {"before_id": 8, "before_ns": 88}
        assert {message["asked_by"] for message in reports.requests} == {str(AUDITOR)}
        response.close()
        logged = clients.of("events_exported")[-1]
        assert logged.user == str(AUDITOR)
        assert {n: logged.props[n] for n in ("format", "events", "complete")} == {
            "format": form, "events": 3, "complete": True,
        }  # fmt: skip


class Source:
    """Stands in for logd: answers pages of one row, and fails at the given requests."""

    def __init__(self, pages: int, page: list[Row], fails: dict[int, QueryError] | None = None):
        self.asked = 0
        self._pages, self._page, self._fails = pages, page, fails or {}
        self._answered = 0

    def ask(self, report: str, *, asked_by: str | None = None, **params: Any) -> Answer:
        assert (report, asked_by) == ("events_export", READER.key)
        self.asked += 1
        if self.asked in self._fails:
            raise self._fails[self.asked]
        self._answered += 1
        more = self._answered < self._pages
        return Answer([dict(row) for row in self._page], 1 if more else None, 1 if more else None)


def rows_of(monkeypatch: pytest.MonkeyPatch, source: Source) -> tuple[Iterator[Row], list[float]]:
    """Returns an export of the source, and the list of its pauses."""
    monkeypatch.setattr(QueryClient, "ask", lambda _self, *args, **kw: source.ask(*args, **kw))
    slept: list[float] = []
    reports = Reports(QueryClient("/nowhere"), READER)
    found = Explorer(reports, slept.append).rows(EventSearch())
    assert not isinstance(found, tuple)
    return found, slept  # type: ignore[return-value] # not Unavailable: no logd is asked


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("form", "rows_sent"), [("csv", 10**6), ("spreadsheet", 10**5), ("jsonl", 10**5)]
)
def test_a_million_rows_are_sent_in_constant_memory(
    app: Flask, monkeypatch: pytest.MonkeyPatch, form: str, rows_sent: int
) -> None:
    """A file of over 200 MB; the two other formats differ in their lines only."""
    page = [event_row(at, note="x" * 100) for at in range(1000)]
    with app.test_request_context("/"):
        rows, _slept = rows_of(monkeypatch, Source(rows_sent // 1000, page))
        before = peak = resident_bytes()
        answer = download(FORMATS[form], lambda: rows, READER)
        assert isinstance(answer, Response)
        assert not isinstance(answer, Unavailable)
        sent = chunks = 0
        largest = 0
        for chunk in cast(Iterator[bytes], answer.response):
            sent += chunk.count(b"\n")
            chunks += 1
            largest = max(largest, len(chunk))
            if chunks % 50 == 0:
                peak = max(peak, resident_bytes())
        answer.close()
    assert sent == rows_sent + (form != "jsonl")
    assert largest < 100_000
    assert peak - before < 16 * 1024 * 1024
    assert chunks > rows_sent // 1000


GONE = Unavailable("logd is restarting")


@pytest.mark.parametrize("code", ["unavailable", "busy", "too_slow", "database"])
def test_an_export_continues_after_a_restart_of_logd(
    app: Flask, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    passing = QueryError(code, "at present")
    source = Source(3, [event_row(1)], {2: passing, 3: passing, 5: passing})
    rows, slept = rows_of(monkeypatch, source)
    assert len(list(rows)) == 3
    assert slept == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("error", "tries"), [(GONE, EXPORT_TRIES), (QueryError("forbidden", "not you"), 1)]
)
def test_an_export_that_cannot_continue_stops_after_its_tries(
    app: Flask, monkeypatch: pytest.MonkeyPatch, error: QueryError, tries: int
) -> None:
    source = Source(3, [event_row(1)], dict.fromkeys(range(3, 99), error))
    rows, _slept = rows_of(monkeypatch, source)
    taken = [next(rows), next(rows)]
    with pytest.raises(ExportStopped, match=str(error)):
        next(rows)
    assert (len(taken), source.asked) == (2, 2 + tries)


def last_line(form: str, text: str) -> str:
    line = text.splitlines()[-1]
    return str(json.loads(line)["error"]) if form == "jsonl" else next(csv.reader([line]))[0]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("stop", "why"),
    [
        (lambda: {"ok": False, "error": "forbidden", "message": "=not you"}, "=not you"),
        (lambda: {"ok": True, "rows": [{"id": 1}], "next": None}, "does not fit this version"),
    ],
)
def test_a_stop_in_the_middle_is_the_last_line_and_aborts_the_transfer(
    app: Flask,
    auditor: Browser,
    reports: FakeReports,
    clients: Clients,
    form: str,
    stop: Callable[[], dict[str, Any]],
    why: str,
) -> None:
    def answer(params: dict[str, Any]) -> dict[str, Any]:
        if params.get("before_id"):
            return stop()
        return {"ok": True, "rows": [event_row(9)], "next": 9, "searched_to_ns": 9}

    reports.reports["events_export"] = answer
    response = auditor.client.get(f"{LIST}/export/{form}", base_url=ORIGIN, buffered=False)
    assert response.status_code == 200
    assert response.content_length is None  # so that a server sends chunks, and can abort them
    received = b""
    with pytest.raises(ExportStopped):  # noqa: PT012 - what came before it is the file
        for chunk in response.response:
            received += chunk
    response.close()
    told = last_line(form, received.decode())
    assert told.startswith(f"{INCOMPLETE}: ") and why in told
    (logged,) = clients.of("events_exported")
    assert (logged.props["events"], logged.props["complete"]) == (1 + (why[0] != "="), False)


def test_an_export_that_the_reader_cancels_is_logged_as_incomplete(
    auditor: Browser, reports: FakeReports, clients: Clients
) -> None:
    row = event_row(9, note="x" * 10_000)
    reports.rows("events_export", *[row] * 100, following=9, searched_to_ns=9)
    response = auditor.client.get(f"{LIST}/export/csv", base_url=ORIGIN, buffered=False)
    next(iter(response.response))
    response.close()
    (logged,) = clients.of("events_exported")
    assert logged.props["complete"] is False and logged.props["events"] < 100


def test_without_logd_there_is_a_page_and_no_file(auditor: Browser, clients: Clients) -> None:
    response = auditor.get(f"{LIST}/export/csv?user=noor")
    assert response.status_code == 503
    assert response.mimetype == "text/html" and "does not answer" in response.text
    assert 'value="noor"' in response.text
    assert not clients.of("events_exported")


def test_a_bad_filter_or_format_exports_nothing(auditor: Browser, reports: FakeReports) -> None:
    assert auditor.get(f"{LIST}/export/csv?user=nobody").status_code == 400
    assert auditor.get(f"{LIST}/export/exe").status_code == 404
    assert not reports.asked("events_export")


def test_exports_leave_threads_for_others_and_free_their_place(
    app: Flask, auditor: Browser, reports: FakeReports
) -> None:
    reports.rows("events_export", event_row(9))
    # Responses of which nobody takes the body, as after a lost connection.
    held = [
        auditor.client.get(f"{LIST}/export/csv", base_url=ORIGIN, buffered=False)
        for _ in range(EXPORTS_MAX)
    ]
    asked = len(reports.asked("events_export"))
    refused = auditor.get(f"{LIST}/export/csv")
    assert refused.status_code == 503 and "Other exports are running" in refused.text
    assert len(reports.asked("events_export")) == asked  # nothing is read, so nothing is recorded
    for response in held:
        response.close()
    for _ in range(EXPORTS_MAX + 1):
        response = auditor.get(f"{LIST}/export/csv")
        assert response.status_code == 200
        response.close()
    reports.refuse("events_export", "busy", "too many")
    for _ in range(EXPORTS_MAX + 1):
        assert "too many" in auditor.get(f"{LIST}/export/csv").text
