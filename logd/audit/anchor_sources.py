"""Reads anchors from the system's journal, or from lines of a file.

From the journal only lines of the daemon's unit are read. The journal itself sets the field
`_SYSTEMD_UNIT`: another user or another service cannot forge it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import IO

from logd.audit.anchors import Anchor, parse
from logd.errors import EXIT_UNAVAILABLE, LogdError

_MARK = "anchor batch="
LINE_CHARS_MAX = 1024 * 1024


class NoJournal(LogdError):
    """The journal cannot be read."""

    exit_code = EXIT_UNAVAILABLE


def from_journal(unit: str, since_ns: int | None = None) -> Iterator[Anchor]:
    """Reads a unit's anchors from the journal, oldest first, from `since_ns` on if it is given.

    Raises NoJournal.
    """
    since = [] if since_ns is None else [f"--since=@{since_ns // 10**9}"]
    command = [
        *("journalctl", "--output=json", "--output-fields=MESSAGE,_SYSTEMD_UNIT"),
        *("--no-pager", "--quiet", *since, f"_SYSTEMD_UNIT={unit}"),
    ]
    try:
        reading = subprocess.Popen(  # noqa: S603 - no shell is used, and the unit is one argument
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
        )
    except OSError as error:
        raise NoJournal(
            f"journalctl cannot be run: {error.strerror}. If anchors are kept elsewhere, name "
            "the file: --anchors FILE."
        ) from error
    with reading:
        assert reading.stdout is not None
        assert reading.stderr is not None
        yield from from_lines(bounded_lines(reading.stdout), unit)
        errors = reading.stderr.read().strip()
    if reading.returncode != 0:
        raise NoJournal(f"journalctl ended with {reading.returncode}: {errors}")


def bounded_lines(file: IO[str]) -> Iterator[str]:
    """Reads lines of any file, long lines in parts, since the file may have no line end at all."""
    return iter(lambda: file.readline(LINE_CHARS_MAX), "")


def from_lines(lines: Iterable[str], unit: str) -> Iterator[Anchor]:
    """Yields the anchors in lines of a text log, or in the journal's JSON lines of the unit."""
    for text in lines:
        if _MARK not in text:
            continue
        anchor = _from_json(text, unit) if text.startswith("{") else _from_text(text)
        if anchor is not None:
            yield anchor


def _from_text(text: str) -> Anchor | None:
    """Returns the anchor in a line, with the time in ISO 8601 at the line's beginning, if any."""
    try:
        moment = datetime.fromisoformat(text.split(maxsplit=1)[0])
        anchored_ns = int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * 10**9
    except (ValueError, OverflowError):
        anchored_ns = None
    return parse(text.rstrip("\r\n"), anchored_ns)


def _from_json(text: str, unit: str) -> Anchor | None:
    try:
        entry = json.loads(text)
        if entry.get("_SYSTEMD_UNIT") != unit:
            return None
        return parse(entry["MESSAGE"], int(entry["__REALTIME_TIMESTAMP"]) * 1000)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None  # the message is not text, or the line is truncated
