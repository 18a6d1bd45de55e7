"""The download of an evidence sheet: what is in the file, and when there is none."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.webapp.browser import Browser
from tests.webapp.conftest import STUDENT
from tests.webapp.evidence_rows import (
    LOSS,
    event_row,
    fill,
    leaf,
    root_of,
    sheet_row,
)
from tests.webapp.fake_reports import FakeReports
from webapp.classroom.model import evidence
from webapp.classroom.model.analytics import Event
from webapp.classroom.model.evidence import SheetEvent


def test_the_download_has_the_sheet_its_proofs_and_how_to_check_them(
    auditor: Browser, reports: FakeReports
) -> None:
    numbers = list(range(1, 601))
    fill(reports, numbers, caveats=[json.dumps(LOSS)])
    answer = auditor.get("/audit/evidence/download?user=student&item=task:data-dice")
    assert answer.status_code == 200 and answer.mimetype == "application/zip"
    name = f"evidence-{STUDENT}-2026-12-01.zip"
    assert answer.headers["Content-Disposition"] == f"attachment; filename={name}"
    with zipfile.ZipFile(io.BytesIO(answer.data)) as packed:
        files = {one: packed.read(one).decode() for one in packed.namelist()}
    assert len(files) == 4 + 600
    head = sheet_row([])["head"]
    assert files["head.txt"] == head
    assert files["proofs/17.proof"] == f"the proof of 17\n\n{head}"
    sheet = json.loads(files["sheet.json"])
    assert [one["id"] for one in sheet["events"]] == numbers
    assert sheet["caveats"] == [json.dumps(LOSS)]
    assert sheet["person"] == f"Noor Haddad (#{STUDENT})" and sheet["item"] == "A hundred dice"
    assert "This sheet may not be complete." in sheet["completeness"][0]
    for words in ("RFC 9162", "c2sp.org", "golang.org/x/mod", "aics-tlog", "does not show"):
        assert words in files["README.txt"]
    asked = reports.asked("evidence_events")
    assert {one["size"] for one in asked} == {812} and len(asked) == 3


def test_the_same_answers_give_the_same_bytes(auditor: Browser, reports: FakeReports) -> None:
    fill(reports, [1, 2, 3])
    path = "/audit/evidence/download?user=student"
    assert auditor.get(path).data == auditor.get(path).data


@pytest.mark.parametrize("numbers", [[1, 2], [1, 2, 3, 4], [1, 3, 2], [1, 2, 4], []])
def test_events_that_are_not_those_of_the_statement_are_no_sheet(
    auditor: Browser, reports: FakeReports, numbers: list[int]
) -> None:
    """Such as after an erasure between two of the questions."""
    fill(reports, numbers)
    reports.rows("evidence", sheet_row([1, 2, 3]))
    if numbers == [1, 3, 2]:
        reports.rows("evidence_events", *map(event_row, numbers))
    answer = auditor.get("/audit/evidence/download?user=student")
    assert answer.status_code == 503
    assert "events were removed while the sheet was made; make it again" in answer.text
    text = auditor.get("/audit/evidence?user=student&all=1").text
    assert "make it again" in text


def test_where_logd_is_too_slow_for_a_page_smaller_ones_are_asked_for(
    auditor: Browser, reports: FakeReports
) -> None:
    numbers = list(range(1, 101))
    fill(reports, numbers)
    whole = reports.reports["evidence_events"]

    def slow(params: dict[str, Any]) -> dict[str, Any]:
        if params["limit"] > 20:
            return {"ok": False, "error": "too_slow", "message": "stopped after 2 s"}
        return whole(params)

    reports.reports["evidence_events"] = slow
    assert auditor.get("/audit/evidence/download?user=student").status_code == 200
    assert [one["limit"] for one in reports.asked("evidence_events")] == [250, 50] + [10] * 10
    reports.refuse("evidence_events", "too_slow", "stopped after 2 s")
    assert auditor.get("/audit/evidence/download?user=student").status_code == 503


def test_an_event_without_a_proof_has_the_reason_and_its_data(
    auditor: Browser, reports: FakeReports
) -> None:
    reports.rows("evidence", sheet_row([1]))
    gone = {"proof": None, "unproven": "event 1 was redacted", "data": "AAAA"}
    reports.rows(
        "evidence_events", event_row(1, props={"n": float("nan"), "i": [-float("inf")]}, **gone)
    )
    answer = auditor.get("/audit/evidence/download?user=student")
    with zipfile.ZipFile(io.BytesIO(answer.data)) as packed:
        assert "proofs/1.proof" not in packed.namelist()
        (one,) = json.loads(packed.read("sheet.json"))["events"]
    assert {name: one[name] for name in gone} == gone
    assert one["props"] == {"n": "nan", "i": ["-inf"]}


@given(st.integers(0, 70))
def test_the_root_over_the_events_is_that_of_the_log(count: int) -> None:
    numbers = list(range(count))
    nothing = Event(1, 1, 1, "t", None, "p", 1, {})
    events = [SheetEvent(nothing, 1, leaf(number)) for number in numbers]
    assert evidence.root(events) == root_of(numbers)
