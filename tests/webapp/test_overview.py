"""The auditor's overview: whether the record can be relied on, in one line, and its pages."""

from __future__ import annotations

import html
import re
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd.reports.registry import REPORTS as LOGD_REPORTS
from tests.webapp.browser import Browser
from tests.webapp.conftest import AUDITOR, OTHER_STUDENT, STUDENT, TEACHER
from tests.webapp.fake_reports import FakeReports
from webapp.classroom.model.analytics import CauseTotal, Event, LossTotals, Summary, Verification
from webapp.classroom.model.reports import Unavailable
from webapp.classroom.model.trail import Run, TrailState
from webapp.classroom.present.health import Figures, Level, assess
from webapp.classroom.present.trail_texts import (
    describe_filters,
    describe_reading,
    excerpt,
    period,
)

NS = 10**9
HOUR_NS = 3600 * NS
DAY_NS = 24 * HOUR_NS
NOW_NS = 1_796_000_000 * NS
RUN = {"at_ns": NOW_NS - HOUR_NS, "ok_ns": NOW_NS - HOUR_NS, "problem": None}
NO_RUN = dict.fromkeys(RUN)

SUMMARY: dict[str, Any] = {
    "stored": 48_211, "lost": 0, "quarantined": 0, "duplicates_ignored": 17, "commits": 900,
    "producers": 4, "batches": 900, "last_stored_ns": NOW_NS, "schema": 1, "pruned": 1200,
    "erased": 34, "unheard_of": "a newer logd reports more",
}  # fmt: skip
STATE: dict[str, Any] = {
    "at_ns": NOW_NS, "running": True, "started_ns": NOW_NS - DAY_NS, "stats_ns": NOW_NS,
    "pending": 3, "trouble": None, "trouble_since_ns": None, "heads_signed": True,
    "anchored_ns": NOW_NS - HOUR_NS, "refused_by_clients": 0, "quarantine_kept": 0,
    "backup": RUN, "prune": RUN, "erasure": NO_RUN, "backups": 7,
    "newest_backup_ns": NOW_NS - HOUR_NS, "exports": 2, "newest_export_ns": NOW_NS - HOUR_NS,
    "anchor_interval_s": 60, "anchor_file": None, "anchor_file_ns": None,
    "retention": {"page_view": 90 * DAY_NS}, "unheard_of": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NOW_NS)


def well(reports: FakeReports) -> None:
    """logd as it should be."""
    reports.rows("summary", SUMMARY)
    reports.rows("losses_by_cause")
    reports.rows("verification", {"answer": "whole", "verified_ns": NOW_NS - HOUR_NS})
    reports.rows("trail_state", STATE)
    reports.rows("event_types", {"type": "page_view", "events": 44_000})
    forget = {"id": 4, "kind": "forget", "asked_ns": NOW_NS - DAY_NS, "finished_ns": NOW_NS}
    reports.rows(
        "removals",
        {**forget, "outcome": {"events": 34, "redacted": 9, "quarantine": 1}, "problem": None},
        {**forget, "id": 3, "kind": "prune", "finished_ns": None, "problem": "the clock is odd",
         "outcome": {"page_view": 1000, "login": 200}},
    )  # fmt: skip


def line(text: str) -> str:
    found = re.search(r'<p class="notice health[^>]*><strong>(.*?)</strong>', text)
    assert found
    return html.unescape(found[1])


def test_a_record_without_problems_has_one_calm_line(
    auditor: Browser, reports: FakeReports
) -> None:
    well(reports)
    text = auditor.get("/audit/").text
    verified = "Sun 29 Nov 2026, 23:53"
    assert line(text) == f"Everything recorded is there. Verified whole on {verified}."
    assert 'class="problems"' not in text and "notice health wrong" not in text
    for figure in ("48,211", "90 days", "7 kept", "2 may still exist", "signed"):
        assert figure in text, figure
    assert "1,200 by retention, 34 by erasure of a person" in text
    rows = re.findall(r"<td>the events of one person</td><td[^>]*>(\d+)</td>", text)
    assert rows == ["34"], "what was redacted is not removed"
    assert ">1,200</td><td>not yet: the clock is odd</td>" in text
    assert "All other types are kept for ever" in text
    assert '<a href="/audit/events?type=page_view">' in text


def test_the_overview_asks_for_nothing_whose_reading_is_recorded(
    auditor: Browser, reports: FakeReports
) -> None:
    """Else every visit would be a reading of persons whom it does not show."""
    well(reports)
    auditor.get("/audit/")
    asked = {message["report"] for message in reports.requests}
    assert "trail_state" in asked and len(asked) == 6
    assert all(LOGD_REPORTS[report].concern is None for report in asked)


def figures(**changes: Any) -> Figures:
    summary = {name: SUMMARY[name] for name in SUMMARY if name != "unheard_of"}
    state = {name: value for name, value in STATE.items() if name != "unheard_of"}
    for run in ("backup", "prune", "erasure"):
        state[run] = Run(**state[run])
    made = Figures(
        Summary(**summary), LossTotals([]), Verification("whole", NOW_NS - HOUR_NS),
        TrailState(**state), NOW_NS,
    )  # fmt: skip
    return replace(made, **changes)


def with_state(**changes: Any) -> Figures:
    state = figures().state
    assert isinstance(state, TrailState)
    return figures(state=replace(state, **changes))


def with_summary(**changes: Any) -> Figures:
    summary = figures().summary
    assert isinstance(summary, Summary)
    return figures(summary=replace(summary, **changes))


def of_cause(cause: str, **counts: int) -> LossTotals:
    zeros = {"entries": 0, "events": 0, "unknown_extent": 0}
    return LossTotals([CauseTotal(cause, **{**zeros, **counts}, last_detected_ns=1)])


AWAY = Unavailable("logd, which keeps the activity log, does not answer.")
FAULT, WARNING, NOTE = Level.FAULT, Level.WARNING, Level.NOTE
PROBLEMS = [
    (figures(verification=Verification("not_whole", NOW_NS)), FAULT, "NOT WHOLE", "the evidence"),
    (with_summary(lost=5), FAULT, "5 events are known to be lost.", "loss ledger"),
    (with_summary(lost=1), FAULT, "1 event is known to be lost.", "loss ledger"),
    (with_state(trouble="the disk is full", trouble_since_ns=NOW_NS), FAULT, "the disk is full",
     "loses power"),
    (figures(verification=Verification("not_proven", NOW_NS)), WARNING, "not proven",
     "no reason to restore a backup"),
    (figures(verification=Verification(None, None)), WARNING, "not been verified", "logd verify"),
    (figures(verification=Verification("whole", NOW_NS - 9 * DAY_NS)), WARNING,
     "more than a week ago", "nightly"),
    (figures(losses=of_cause("tail unknown", entries=2, unknown_extent=2)), WARNING,
     "2 losses of unknown size", "ledger"),
    (with_state(pending=50_000), WARNING, "50,000 events wait to be stored", "administrator"),
    (with_state(anchor_interval_s=0), WARNING, "No anchors are made", "anchor_interval_s"),
    (with_state(anchored_ns=NOW_NS - 15 * HOUR_NS), WARNING, "Anchors are missing", "rewrite"),
    (with_state(anchored_ns=None), WARNING, "none since logd started", "rewrite"),
    (with_state(anchor_file="/a", anchor_file_ns=None), WARNING, "none at all", "/a"),
    (with_state(anchor_file="/a", anchor_file_ns=NOW_NS - 16 * HOUR_NS), WARNING,
     "no new ones", "/a"),
    (with_state(backup=Run(), newest_backup_ns=None), WARNING, "no backup", "logd backup"),
    (with_state(backup=Run(NOW_NS, NOW_NS - 3 * DAY_NS)), WARNING, "more than two days ago",
     "logd backup"),
    (with_state(backup=Run(NOW_NS, NOW_NS, "no room")), WARNING, "no room", "mend"),
    (with_state(prune=Run(NOW_NS, None, "the clock")), WARNING, "past their retention", "mend"),
    (with_state(erasure=Run(NOW_NS, None, "locked")), WARNING, "erasure of a person", "mend"),
    (figures(summary=AWAY), WARNING, "cannot say", "does not answer"),
    (figures(state=AWAY), WARNING, "cannot say", "does not answer"),
    (figures(losses=AWAY), WARNING, "cannot say", "does not answer"),
    (figures(verification=AWAY), WARNING, "cannot say", "does not answer"),
    (with_summary(quarantined=3), NOTE, "3 inputs were refused", "itself recorded"),
    (with_state(refused_by_clients=1), NOTE, "1 event was refused", "journal"),
    (with_state(heads_signed=False), NOTE, "not signed", "genkey"),
    (figures(losses=of_cause("claimed", entries=40, events=9)), NOTE, "40 losses are only claimed",
     "existed"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "level", "what", "advice"), PROBLEMS)
def test_each_problem_is_named_with_what_to_do(
    found: Figures, level: Level, what: str, advice: str
) -> None:
    health = assess(found)
    assert health.level is level
    (problem,) = health.problems
    assert what in problem.what and advice in problem.advice
    is_calm = level is Level.NOTE
    assert health.line.startswith("Everything recorded is there.") is is_calm
    assert is_calm or health.line == problem.what


def test_the_worst_problem_is_the_line_and_the_others_follow(
    auditor: Browser, reports: FakeReports
) -> None:
    well(reports)
    reports.rows("summary", SUMMARY | {"lost": 5, "quarantined": 3})
    reports.rows("trail_state", STATE | {"backup": NO_RUN, "newest_backup_ns": None})
    reports.rows("verification", {"answer": "not_whole", "verified_ns": NOW_NS})
    text = auditor.get("/audit/").text
    assert line(text).startswith("NOT WHOLE") and "notice health wrong" in text
    others = re.findall(r'<li class="(\w+)"><p><strong>(.*?)</strong>', text)
    assert [level for level, _ in others] == ["fault", "warning", "note"]
    assert "5 events are known" in others[0][1] and "3 inputs" in others[2][1]
    assert '<a href="/audit/losses">The loss ledger</a>' in text
    assert '<a href="/audit/quarantine">Quarantine</a>' in text


def test_what_is_found_later_comes_first_if_it_is_worse() -> None:
    found = replace(
        with_state(trouble="the disk is full", trouble_since_ns=None),
        verification=Verification(None, None),
    )
    health = assess(found)
    assert health.level is Level.FAULT and "the disk is full." in health.line
    assert [problem.level for problem in health.problems] == [Level.FAULT, Level.WARNING]


def test_a_daemon_that_has_just_started_need_not_have_said_an_anchor() -> None:
    assert assess(with_state(anchored_ns=None, started_ns=NOW_NS - 60 * NS)).problems == []


def test_a_logd_that_does_not_know_the_report_spoils_no_page(
    auditor: Browser, reports: FakeReports
) -> None:
    well(reports)
    reports.refuse("trail_state", "unknown_report", "reports are: summary")
    reports.refuse("removals", "unknown_report", "reports are: summary")
    text = auditor.get("/audit/").text
    assert "48,211" in text and "cannot say that the record is complete" in line(text)
    reports.rows("trail_state", {"at_ns": 1})  # of another version
    response = auditor.get("/audit/")
    assert response.status_code == 200 and "does not fit this version" in response.text


@pytest.mark.parametrize("page", ["quarantine", "readings", "exports"])
def test_without_logd_the_pages_say_so(auditor: Browser, page: str) -> None:
    response = auditor.get(f"/audit/{page}")
    assert response.status_code == 200
    assert "Analytics are unavailable" in response.text


def test_quarantine_shows_sender_reason_and_excerpt_as_text(
    auditor: Browser, reports: FakeReports
) -> None:
    entry = {"id": 9, "detected_ns": NOW_NS, "uid": 1000, "pid": 77, "reason": "malformed: <it>",
             "producer": "1000-00ff", "sequence": 1234, "bytes": 4000,
             "excerpt": b"<b>\x00\\\xc3\xb6".hex()}  # fmt: skip
    gone = {**entry, "id": 8, "excerpt": "", "producer": None, "sequence": None}
    reports.rows("quarantine", entry, gone, following=8)
    text = auditor.get("/audit/quarantine?before=50").text
    assert reports.asked("quarantine") == [{"before_id": 50, "limit": 50}]
    assert {message["asked_by"] for message in reports.requests} == {str(AUDITOR)}
    assert r">&lt;b&gt;\x00\x5c\xc3\xb6</code>" in text
    assert "user 1000, process 77" in text and "number 1,234" in text and "4,000 bytes" in text
    assert "malformed: &lt;it&gt;" in text and text.count("The excerpt was removed.") == 1
    assert 'href="/audit/quarantine?before=8"' in text


def test_an_excerpt_is_bounded_and_has_no_control_character() -> None:
    assert len(excerpt(bytes(256))) <= 4 * 120 + 1
    assert excerpt(bytes(range(256))).isprintable()


def reading(at: int, user: str | None, **props: Any) -> dict[str, Any]:
    return {"id": at, "ts_ns": NOW_NS, "stored_ns": NOW_NS, "type": "report_read", "user": user,
            "producer": "0-1", "sequence": at, "props": props}  # fmt: skip


def test_readings_say_who_read_what_of_whom(auditor: Browser, reports: FakeReports) -> None:
    many = [str(number) for number in range(100, 1300)]
    reports.rows(
        "events",
        reading(9, str(TEACHER), report="timeline", params={"user": str(STUDENT)}),
        reading(8, str(TEACHER), report="completions", params={"users": many, "type": "login"},
                everyone=False, part=1, parts=2),
        reading(7, "999", report="events", params={}, users=[str(OTHER_STUDENT), "7"]),
        reading(6, None, report="daily_activity", params={}, everyone=True),
        reading(5, "4", report="<b>", params=[]),
        following=5,
    )  # fmt: skip
    text = html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]+>", "", auditor.get(
        "/audit/readings").text)))  # fmt: skip
    for sentence in (
        f"Ada Brandt #{TEACHER} looked at one person's activity, entry by entry."
        f" About Noor Haddad #{STUDENT}.",
        "looked at who has finished which tasks and quizzes, of login. About 1,200 persons."
        " (part 1 of 2)",
        "no such account #999 looked at a list of entries of the log."
        f" About Emil Sørensen #{OTHER_STUDENT}, no such account #7.",
        "A program, for no account, looked at a chart of how many were active each day."
        " Totals or excerpts that may be",
        "looked at the report “<b>”. About no one: it was empty.",
    ):
        assert sentence in text, sentence
    (asked,) = reports.asked("events")
    assert asked == {"type": "report_read", "limit": 50}
    raw = auditor.get("/audit/readings").text
    assert f'href="/audit/events?type=report_read&amp;user={TEACHER}"' in raw
    assert f'href="/audit/readings?before=5&amp;before_ns={NOW_NS}"' in raw


@given(
    st.dictionaries(
        st.sampled_from(["report", "params", "users", "everyone", "part", "parts"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner) | st.dictionaries(st.sampled_from(["user", "users", "type"]), inner)
            ),
            max_leaves=6,
        ),
    )
)
def test_a_reading_with_any_properties_is_described(props: dict[str, Any]) -> None:
    text = describe_reading(Event(1, 1, 1, "report_read", "1", "", 1, props))
    assert text.what and all(isinstance(person, str) for person in text.persons)
    assert describe_filters(props)


def test_exports_say_who_took_what_and_how_it_ended(auditor: Browser, reports: FakeReports) -> None:
    facts = {"export": "ab", "uid": 1001, "format": "csv", "expires_ns": NOW_NS,
             "filters": {"types": ["login"], "by_user": True, "since_ns": NOW_NS}}  # fmt: skip
    killed = {"export": "cd", "format": "jsonl", "filters": {}, "expires_ns": "soon"}
    started = [reading(9, None, **facts), reading(8, None, **killed)]
    ended = [reading(10, None, **facts, events=12, complete=False, kept=False)]
    rows = {"trail_export_started": started, "trail_exported": ended}
    reports.reports["events"] = lambda params: {
        "ok": True, "rows": rows[params["type"]], "next": None,
    }  # fmt: skip
    text = auditor.get("/audit/exports").text
    assert "types login; of chosen persons; from 30 Nov 2026, as csv" in text
    assert "User 1001 of the machine exported" in text and "12 events, broken off." in text
    assert "No file was kept." in text and "To be deleted by" not in text
    assert "An administrator exported everything, as jsonl" in text
    assert text.count("Its end is not recorded.") == 1


@pytest.mark.parametrize(
    ("length_ns", "text"),
    [(DAY_NS, "1 day"), (730 * DAY_NS, "2 years"), (36 * HOUR_NS, "36 hours"), (90 * NS, "90 sec")],
)
def test_a_period_is_formatted_in_its_largest_whole_unit(length_ns: int, text: str) -> None:
    assert period(length_ns).startswith(text)
