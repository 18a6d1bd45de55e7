"""Teachers' pages while logd hangs: one waits, the others are told at once, and it comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from logd_wire.circuit_breaker import CircuitBreaker
from tests.support.instance import until
from tests.webapp.browser import Browser
from tests.webapp.conftest import MakeApp, fill
from tests.webapp.fake_reports import FakeReports, Reply

TIMEOUT_S = 2.0
# What a page takes beside its reports, on a busy machine.
PAGE_S = 0.8
UNAVAILABLE = "Analytics are unavailable"
PLAIN = "logd, which keeps the activity log, does not answer."
CANNOT_RECORD = {"ok": False, "error": "unavailable", "message": "cannot be recorded now"}


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """A site whose pages wait for two seconds."""
    app = make_app(ACTIVITY_QUERY_TIMEOUT_S=TIMEOUT_S)
    fill(app)
    return app


@pytest.fixture
def working(reports: FakeReports) -> Iterator[threading.Event]:
    """Until it is cleared, all reports are answered; without it, none is."""
    works = threading.Event()
    works.set()

    def answer(_params: object) -> Reply:
        works.wait()
        return {"ok": True, "rows": [], "next": None}

    for report in ("daily_activity", "completions", "score_distribution", "summary"):
        reports.reports[report] = answer
    yield works
    works.set()


def look(browser: Browser, path: str = "/teacher/") -> tuple[bool, float]:
    """Whether the page has its figures, and the seconds it took."""
    begun_s = time.monotonic()
    response = browser.get(path)
    took_s = time.monotonic() - begun_s
    assert response.status_code == 200
    without = UNAVAILABLE in response.text
    assert (PLAIN in response.text) == without
    return not without, took_s


def test_four_dashboards_at_once_hold_one_thread_for_the_timeout(
    app: Flask, working: threading.Event
) -> None:
    browsers = [Browser(app) for _ in range(4)]
    for browser in browsers:
        browser.log_in("teacher")
        assert look(browser)[0]
    working.clear()
    looks: list[tuple[bool, float]] = []
    threads = [threading.Thread(target=lambda b=b: looks.append(look(b))) for b in browsers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found for found, _ in looks] == [False] * 4
    took = sorted(took_s for _, took_s in looks)
    assert took[2] < TIMEOUT_S / 4 + PAGE_S < TIMEOUT_S <= took[3]
    assert look(browsers[0])[1] < PAGE_S, "the next one is not held at all"


def test_a_dashboard_works_again_within_seconds(
    teacher: Browser, working: threading.Event, reports: FakeReports
) -> None:
    working.clear()
    assert not look(teacher)[0]
    asked = len(reports.requests)
    looks = [look(teacher) for _ in range(5)]
    assert not any(found for found, _ in looks)
    assert len(reports.requests) == asked, "for a while none is asked"
    working.set()
    until(lambda: look(teacher)[0], "figures", 5.0)
    assert look(teacher, "/teacher/courses/data")[0]


def test_each_panel_that_cannot_be_recorded_does_not_wait_again(
    teacher: Browser, reports: FakeReports
) -> None:
    """The report process runs, and the daemon that would record who reads hangs."""

    def refuse(_params: object) -> Reply:
        time.sleep(0.6 * TIMEOUT_S)
        return CANNOT_RECORD

    for report in ("daily_activity", "completions", "score_distribution"):
        reports.reports[report] = refuse
    begun_s = time.monotonic()
    text = teacher.get("/teacher/courses/data").text
    assert 0.6 * TIMEOUT_S <= time.monotonic() - begun_s < 1.2 * TIMEOUT_S, "once for the page"
    assert UNAVAILABLE in text and "cannot be recorded now" in text
    assert len(reports.requests) == 1
    assert look(teacher)[1] < PAGE_S


def test_nor_does_it_where_others_are_answered_meanwhile(
    teacher: Browser, reports: FakeReports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The auditor's totals name nobody, so that they close the circuit between two panels."""
    monkeypatch.setattr(CircuitBreaker, "timed_out", lambda self, *_: self.moved())

    def refuse(_params: object) -> Reply:
        time.sleep(0.3 * TIMEOUT_S)
        return CANNOT_RECORD

    for report in ("completions", "score_distribution"):
        reports.reports[report] = refuse
    assert "cannot be recorded now" in teacher.get("/teacher/courses/data").text
    assert len(reports.requests) == 1


def test_a_logd_that_is_gone_is_asked_by_each_page(
    teacher: Browser, directory: Path, app: Flask
) -> None:
    """It costs nothing, and the first page after its return has its figures."""
    for _ in range(5):
        found, took_s = look(teacher)
        assert not found and took_s < PAGE_S
    back = FakeReports(Path(app.config["ACTIVITY_QUERY_SOCKET"]))
    try:
        assert look(teacher)[0]
    finally:
        back.close()


def test_each_app_has_a_breaker_of_its_own(
    make_app: MakeApp, teacher: Browser, working: threading.Event
) -> None:
    other = make_app("other", ACTIVITY_QUERY_TIMEOUT_S=TIMEOUT_S)
    fill(other)
    working.clear()
    assert not look(teacher)[0]
    reports = FakeReports(Path(other.config["ACTIVITY_QUERY_SOCKET"]))
    try:
        browser = Browser(other)
        browser.log_in("teacher")
        assert look(browser)[0]
    finally:
        reports.close()
