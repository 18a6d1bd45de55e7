"""The auditor's evidence sheets: what they say, what they ask logd for, and the download."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.webapp.browser import Browser
from tests.webapp.conftest import AUDITOR, STUDENT
from tests.webapp.evidence_rows import AT, FORMER_ROOT, LOSS, NS, ROOT, fill, sheet_with
from tests.webapp.fake_reports import FakeReports
from webapp.classroom.present.evidence_texts import completeness

# -- the page --------------------------------------------------------------------------------------


def test_the_form_alone_asks_nothing(auditor: Browser, reports: FakeReports) -> None:
    text = auditor.get("/audit/evidence").text
    assert "Make the sheet" in text and "That you made a sheet is itself recorded" in text
    assert not reports.requests


def test_a_sheet_says_whose_what_when_and_by_whom_and_lists_the_events(
    auditor: Browser, reports: FakeReports
) -> None:
    fill(reports, [3, 5])
    text = auditor.get("/audit/evidence?user=student&since=2026-11-30T10:00&until=2026-12-02").text
    assert f"<dd>Noor Haddad (#{STUDENT})</dd>" in text
    assert f"by Ruth Keller (#{AUDITOR})" in text
    assert "2026-11-30 10:00:00.000" in text and "to before <time" in text
    assert "No number is missing in this range." in text
    assert "It was last verified whole on Mon 30 Nov 2026, 23:00" in text
    assert f"<code>{ROOT}</code>" in text and f"<code>{FORMER_ROOT}</code>" in text
    assert text.count("Opened the list of courses") == 2
    assert text.index('class="figure" data-label="Number">3<') < text.index(">5<")
    asked = {
        "user": str(STUDENT),
        "since_ns": (AT // NS - 14 * 3600) * NS,
        "until_ns": AT + 86_400 * NS,
    }
    assert reports.asked("evidence") == [asked]
    assert reports.asked("evidence_events") == [{**asked, "up_to": 99, "limit": 100}]
    assert {message["asked_by"] for message in reports.requests} == {str(AUDITOR)}


def test_pages_keep_the_question_and_the_last_event_of_the_first(
    auditor: Browser, reports: FakeReports
) -> None:
    numbers = list(range(1, 251))
    fill(reports, numbers)
    text = auditor.get(f"/audit/evidence?user={STUDENT}").text
    seen: list[int] = []
    for _ in range(4):
        seen += [int(part.partition("<")[0]) for part in text.split('data-label="Number">')[1:]]
        link = text.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0]
        if 'rel="next"' not in text:
            break
        assert "up_to=99" in link
        text = auditor.get(link.replace("&amp;", "&")).text
    assert seen == numbers
    assert all(one["up_to"] == 99 for one in reports.asked("evidence_events"))
    assert [one.get("up_to") for one in reports.asked("evidence")] == [None, 99, 99]


def test_all_of_a_sheet_can_be_on_one_page_to_print_it(
    auditor: Browser, reports: FakeReports
) -> None:
    fill(reports, list(range(1, 1301)))
    text = auditor.get(f"/audit/evidence?user={STUDENT}&all=1").text
    assert text.count('data-label="Number"') == 1300 and 'rel="next"' not in text
    assert "This is one page of the sheet" not in text
    assert "This is one page of the sheet" in auditor.get(f"/audit/evidence?user={STUDENT}").text


@pytest.mark.parametrize(
    ("item", "asked"),
    [
        ("task:data-dice", ["task=data-dice", "task_id=data-dice"]),
        ("quiz:data-chance-quiz", ["quiz=data-chance-quiz", "quiz_id=data-chance-quiz"]),
        ("lesson:data/chance", ["slug=data&lesson_slug=chance"]),
    ],
)
def test_what_a_sheet_is_about_becomes_a_parameter(
    auditor: Browser, reports: FakeReports, item: str, asked: list[str]
) -> None:
    fill(reports, [1])
    assert auditor.get(f"/audit/evidence?user=7&item={item}").status_code == 200
    assert reports.asked("evidence")[0]["items"] == asked


def test_a_course_is_its_pages_and_its_tasks_and_quizzes(
    auditor: Browser, reports: FakeReports
) -> None:
    fill(reports, [1])
    text = auditor.get("/audit/evidence?user=7&item=course:data").text
    assert "<dd>Reading data with care</dd>" in text
    items = reports.asked("evidence")[0]["items"]
    assert {"slug=data", "task=data-dice", "quiz=data-chance-quiz"} <= set(items)
    assert "no account any more (#7)" in text


def test_too_many_events_are_told_with_parts_and_without_a_download(
    auditor: Browser, reports: FakeReports
) -> None:
    fill(reports, [1, 2], more=True, statement=None, split_ns=AT + 90 * NS)
    text = auditor.get(f"/audit/evidence?user={STUDENT}&until=2026-12-05").text
    assert "more events than one sheet holds" in text and "download?" not in text
    assert f"?user={STUDENT}&amp;until=2026-12-01T00:01" in text
    assert f"?user={STUDENT}&amp;until=2026-12-05&amp;since=2026-12-01T00:01" in text
    answer = auditor.get(f"/audit/evidence/download?user={STUDENT}")
    assert answer.status_code == 400


def test_a_part_of_one_minute_is_not_offered_again(auditor: Browser, reports: FakeReports) -> None:
    fill(reports, [1], more=True, statement=None, split_ns=AT + 9 * NS)
    text = auditor.get(f"/audit/evidence?user={STUDENT}&since=2026-12-01T00:00").text
    assert "The time before" not in text and "more events than one sheet holds" in text


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("user=", "Say whose sheet"),
        ("user=somebody", "No account has the login"),
        ("user=7&item=task:nothing", "There is no such"),
        ("user=7&item=x", "There is no such"),
        ("user=7&since=2026-11-02&until=2026-11-01", "has to come after"),
        ("user=7&since=yesterday", "Not a valid"),
        ("user=7&until=9999-12-31", "Choose a year"),
        ("item=task:data-dice", "Say whose sheet"),
    ],
)
@pytest.mark.parametrize("page", ["", "/download"])
def test_an_invalid_question_is_explained_and_asks_nothing(
    auditor: Browser, reports: FakeReports, query: str, words: str, page: str
) -> None:
    answer = auditor.get(f"/audit/evidence{page}?{query}")
    assert answer.status_code == (400 if page else 200)
    assert words in answer.text and "No sheet was made" in answer.text
    assert not reports.requests


@pytest.mark.parametrize("query", ["after=x", "up_to=-1", "after=9223372036854775808"])
def test_a_place_that_is_no_number_is_refused(auditor: Browser, query: str) -> None:
    assert auditor.get(f"/audit/evidence?user=7&{query}").status_code == 400


def test_without_logd_there_is_a_reason_and_no_file(auditor: Browser) -> None:
    text = auditor.get("/audit/evidence?user=7").text
    assert "Analytics are unavailable" in text and "No number is missing" not in text
    answer = auditor.get("/audit/evidence/download?user=7")
    assert answer.status_code == 503 and "Analytics are unavailable" in answer.text


# -- completeness ----------------------------------------------------------------------------------

CAVEATS: list[tuple[dict[str, Any], str]] = [
    (LOSS, "Numbers 11 to 13 of program 1000-00ab (not received), made between Tue 1 Dec 2026,"
     " 00:00 and Tue 1 Dec 2026, 01:00: lost."),
    ({**LOSS, "last": None, "events": None, "cause": "tail unknown"}, "From number 11 of program"
     " 1000-00ab (tail unknown), made between Tue 1 Dec 2026, 00:00 and Tue 1 Dec 2026, 01:00: how"
     " many are missing cannot be known."),
    ({"kind": "open_tail", "producers": 2, "from_ns": AT}, "Not known: the last numbers of 2"
     " programs that keep no copy"),
    ({"kind": "pending", "events": 12, "at_ns": AT, "from_ns": AT - 60 * NS}, "Not stored yet on"
     " Tue 1 Dec 2026, 00:00: 12 events, some of them since Mon 30 Nov 2026, 23:59."),
    ({"kind": "more_losses", "listed": 200}, "more entries since then than the 200"),
]  # fmt: skip
NOTES: list[tuple[dict[str, Any], str]] = [
    ({"kind": "pending", "events": 1, "at_ns": AT, "from_ns": AT - 10 * NS},
     "on the next one only: 1 event of the last seconds."),
    ({**LOSS, "kind": "claimed"}, "Program 1000-00ab claims in its own file"),
    ({"kind": "quarantined", "after": False, "entries": 2, "events": 1,
      "reasons": {"malformed": 2}},
     "Refused by logd in this range: 2 pieces of input (malformed: 2), of which 1 had the number"),
    ({"kind": "quarantined", "after": True, "entries": 1, "events": 0, "reasons": {"checksum": 1}},
     "in the seven days after this range (they may have waited since): 1 piece of input"),
    ({"kind": "quarantine_cut", "entries": 9, "before_ns": AT},
     "What logd refused before Tue 1 Dec"),
    ({"kind": "quarantine_cut", "entries": 1, "before_ns": None}, "1 older entry of the quarantine."
     " What logd refused cannot be known."),
    ({"kind": "refused", "events": 7, "causes": {"outbox_full": 7}, "from_ns": AT, "to_ns": AT},
     "refused to log 7 events (outbox_full: 7), by their own count."),
    ({"kind": "removed", "how": "pruned", "events": 120, "redacted": 0, "acts": 1,
      "first_act": 4711, "last_act": 4711, "from_ns": AT, "to_ns": AT},
     "Removed because their time of keeping was over, as event 4,711 records (Tue 1 Dec 2026,"
     " 00:00): 120 events stored around this range."),
    ({"kind": "removed", "how": "erased", "events": 1, "redacted": 2, "acts": 3,
      "first_act": 5, "last_act": 9, "from_ns": AT, "to_ns": AT + 60 * NS},
     "Erased because a person was forgotten, as events from 5 to 9 record (Tue 1 Dec 2026, 00:00 to"
     " Tue 1 Dec 2026, 00:01): 1 event stored around this range"
     " and the name of that person in 2 more events."),
    ({"kind": "removed_others", "events": 3},
     "3 events stored at other times, or at times no longer known. What times they were of cannot"
     " be known."),
    ({"kind": "begins", "at_ns": AT}, "The log begins on Tue 1 Dec 2026, 00:00."),
    ({"kind": "of a newer logd", "n": 1}, "logd also reports"),
]  # fmt: skip


@pytest.mark.parametrize(("caveat", "sentence"), CAVEATS)
def test_a_number_that_is_or_may_be_missing_is_said_first(
    auditor: Browser, reports: FakeReports, caveat: dict[str, Any], sentence: str
) -> None:
    said = completeness(sheet_with(caveat))
    assert not said.complete and not said.notes
    assert "No number is missing" not in " ".join(said.sentences)
    assert "whose events they are cannot be known" in said.first
    assert len(said.missing) == 1 and sentence in said.missing[0]
    fill(reports, [1], caveats=[json.dumps(caveat)])
    text = auditor.get(f"/audit/evidence?user={STUDENT}").text
    assert '<div class="notice wrong" role="status">' in text and "No number is missing" not in text


@pytest.mark.parametrize(("caveat", "sentence"), NOTES)
def test_what_had_no_number_or_was_removed_is_a_note(caveat: dict[str, Any], sentence: str) -> None:
    said = completeness(sheet_with(caveat))
    assert said.complete and said.first == "No number is missing in this range."
    assert len(said.notes) == 1 and sentence in said.notes[0]


def test_many_losses_are_summed_up() -> None:
    said = completeness(sheet_with(*[LOSS] * 25))
    assert len(said.missing) == 21
    assert "5 more entries of the loss ledger, with 15 known events" in said.missing[-1]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {},
            "last verified whole on Mon 30 Nov 2026, 23:00, with its first 800 batches of 812.",
        ),
        ({"verified": "not_whole"}, "IT WAS NOT WHOLE"),
        ({"verified": "not_proven"}, "whole in itself, but not proven"),
        ({"verified": None, "verified_ns": None}, "has not been verified yet"),
        ({"anchored_ns": None}, "No head was written to the journal since logd was started."),
        ({}, f"The head of 810 batches, {FORMER_ROOT[:16]}…, was written to the journal on"),
        (
            {"anchored_root": ROOT},
            "This head was written to the journal on Mon 30 Nov 2026, 23:59.",
        ),
        ({"anchored_in_file": True}, "written to the journal and the file of anchors"),
        ({"unsigned": "there is no key"}, "The head is not signed: there is no key."),
    ],
)
def test_what_is_said_of_the_log(row: dict[str, Any], sentence: str) -> None:
    said = " ".join(completeness(sheet_with(**row)).trail)
    assert sentence in said
    assert ("verified whole" in said) is (row.get("verified", "whole") == "whole")
