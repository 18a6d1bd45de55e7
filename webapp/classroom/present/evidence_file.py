"""Writes an evidence sheet as one ZIP file, with all that is needed to check it elsewhere.

The same answers of logd give the same bytes.
"""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from webapp.classroom.model.evidence import Sheet, SheetEvent
from webapp.classroom.present.evidence_readme import README
from webapp.classroom.present.evidence_texts import completeness
from webapp.classroom.present.filters import iso

FORMAT = "logd/evidence-sheet@v1"
# A larger file is on the disk while it is sent.
_MEMORY_BYTES = 4 * 1024 * 1024
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Heading:
    """What a sheet is about, in words, and who made it."""

    person: str
    item: str | None
    made_by: str
    since_ns: int | None
    until_ns: int | None


def write(
    sheet: Sheet,
    events: Sequence[SheetEvent],
    heading: Heading,
    describe: Callable[[SheetEvent], str],
) -> IO[bytes]:
    """Returns a file with the ZIP, at its start. The caller closes it."""
    file = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115 - the caller closes it
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        _add(made, "README.txt", README)
        _add(made, "statement.txt", sheet.statement or "")
        _add(made, "head.txt", sheet.head)
        _add(made, "sheet.json", _json(sheet, events, heading, describe))
        for found in events:
            if found.proof is not None:
                _add(made, _proof_name(found), found.proof + sheet.head)
    file.seek(0)
    return file


def _add(made: zipfile.ZipFile, name: str, text: str) -> None:
    info = zipfile.ZipInfo(name, _TIME)
    info.create_system = 3  # Unix, on every system, as the mode says
    info.external_attr = 0o100644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    made.writestr(info, text.encode())


def _json(
    sheet: Sheet,
    events: Sequence[SheetEvent],
    heading: Heading,
    describe: Callable[[SheetEvent], str],
) -> str:
    found = {
        "format": FORMAT,
        "person": heading.person,
        "item": heading.item,
        "since": _time(heading.since_ns),
        "until": _time(heading.until_ns),
        "made": iso(sheet.made_ns),
        "made_by": heading.made_by,
        "completeness": completeness(sheet).sentences,
        "trail": {
            "origin": f"logd/{sheet.trail}",
            "batches": sheet.batches,
            "root": sheet.root,
            "public_key": sheet.public_key,
            "unsigned": sheet.unsigned,
            "verified": sheet.verified,
            "verified_at": _time(sheet.verified_ns),
            "verified_batches": sheet.verified_batches,
            "anchored_at": _time(sheet.anchored_ns),
            "anchored_batches": sheet.anchored_batches,
            "anchored_root": sheet.anchored_root,
        },
        "caveats": sheet.caveats,
        "events": [_event(one, describe) for one in events],
    }
    return json.dumps(_valid(found), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _event(found: SheetEvent, describe: Callable[[SheetEvent], str]) -> dict[str, Any]:
    event = found.event
    return {
        "id": event.id,
        "batch": found.batch,
        "time": iso(event.ts_ns),
        "ts_ns": event.ts_ns,
        "stored": iso(event.stored_ns),
        "stored_ns": event.stored_ns,
        "time_in_doubt": event.time_in_doubt,
        "what": describe(found),
        "type": event.type,
        "user": event.user,
        "producer": event.producer,
        "sequence": event.sequence,
        "props": event.props,
        "leaf": found.leaf,
        "proof": None if found.proof is None else _proof_name(found),
        "unproven": found.unproven,
        "data": found.data,
    }


def _proof_name(found: SheetEvent) -> str:
    return f"proofs/{found.event.id}.proof"


def _time(ts_ns: int | None) -> str | None:
    return None if ts_ns is None else iso(ts_ns)


def _valid(value: Any) -> Any:
    """Returns the value with NaN and the infinities as text, as logd's commands write them."""
    if isinstance(value, dict):
        return {name: _valid(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_valid(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
