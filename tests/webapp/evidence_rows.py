"""Rows of logd's reports for evidence sheets, for tests of the site."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from typing import Any

from logd.storage import merkle
from tests.webapp.conftest import STUDENT
from tests.webapp.fake_reports import FakeReports
from webapp.classroom.model.evidence import Sheet

ROOT, FORMER_ROOT = "5b" * 32, "0c" * 32

NS = 10**9


AT = 1_796_083_200 * NS  # Tue 1 Dec 2026, 00:00


def leaf(number: int) -> str:
    return b64encode(hashlib.sha256(str(number).encode()).digest()).decode()


def event_row(number: int, **more: Any) -> dict[str, Any]:
    row = {
        "id": number, "batch": 7, "ts_ns": AT + number * NS, "stored_ns": AT + number * NS + 5,
        "type": "page_view", "user": str(STUDENT), "producer": "1000-00ff", "sequence": number,
        "props": {"endpoint": "courses.index", "method": "GET", "status": 200},
        "time_in_doubt": False, "leaf": leaf(number), "proof": f"the proof of {number}\n\n",
        "unproven": None, "data": None,
    }  # fmt: skip
    return row | more


def root_of(numbers: list[int]) -> str:
    leaves = [hashlib.sha256(str(number).encode()).digest() for number in numbers]
    return b64encode(merkle.root(leaves)).decode()


def sheet_row(numbers: list[int], **more: Any) -> dict[str, Any]:
    row = {
        "trail": "9f1c00112233aabb", "made_ns": AT, "up_to": 99, "events": len(numbers),
        "more": False, "split_ns": None, "in_doubt": 0, "batches": 812, "root": ROOT,
        "head": "logd/9f1c00112233aabb\n812\nhead=\n\n— signed\n", "public_key": "logd/9f1c+8a+key",
        "unsigned": None, "caveats": [],
        "statement": f"title\nevents {len(numbers)} {root_of(numbers)}\n",
        "verified": "whole", "verified_ns": AT - 3600 * NS, "verified_batches": 800, "findings": 0,
        "anchored_ns": AT - 60 * NS, "anchored_batches": 810, "anchored_root": FORMER_ROOT,
        "anchored_in_file": False, "unheard_of": "a newer logd reports more",
    }  # fmt: skip
    return row | more


def fill(reports: FakeReports, numbers: list[int], **more: Any) -> None:
    """Has logd answer with a sheet of these events, in pages of the asked length."""
    reports.rows("evidence", sheet_row(numbers, **more))

    def page(params: dict[str, Any]) -> dict[str, Any]:
        left = [number for number in numbers if number > (params.get("after") or 0)]
        rows = [event_row(number) for number in left[: params["limit"]]]
        following = rows[-1]["id"] if len(left) > len(rows) else None
        return {"ok": True, "rows": rows, "next": following}

    reports.reports["evidence_events"] = page


def sheet_with(*caveats: dict[str, Any], **more: Any) -> Sheet:
    row = sheet_row([], caveats=[json.dumps(caveat) for caveat in caveats], **more)
    return Sheet(**{name: row[name] for name in Sheet.__dataclass_fields__})


LOSS = {
    "kind": "loss", "loss": 1, "producer": "1000-00ab", "first": 11, "last": 13, "events": 3,
    "cause": "not received", "from_ns": AT, "to_ns": AT + 3600 * NS, "detected_ns": AT,
}  # fmt: skip
