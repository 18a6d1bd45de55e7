"""Says in plain words who read what of whom, what was exported, and what was refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from logd_wire.schema import REPORT_READ
from webapp.classroom.model.analytics import Event
from webapp.classroom.present.filters import readable
from webapp.classroom.present.reading_texts import describe_report

DAY_NS = 86_400 * 10**9
EXCERPT_BYTES_SHOWN = 120
NAMES_MAX = 3


@dataclass(frozen=True)
class ReadingText:
    """A recorded reading: the report in words, whom it named, and whom else it may be about."""

    what: str
    persons: list[str]
    everyone: bool
    part: str | None


def describe_reading(event: Event) -> ReadingText:
    """Describes a `report_read` event; accepts properties of any type."""
    props = event.props
    report = readable(props.get("report"))
    params = props.get("params")
    params = params if isinstance(params, Mapping) else {}
    what = describe_report(REPORT_READ, report)
    if isinstance(kind := params.get("type"), str):
        what += f", of {readable(kind)}"
    found = [params.get("user"), *_texts(params.get("users")), *_texts(props.get("users"))]
    persons = list(dict.fromkeys(one for one in found if isinstance(one, str)))
    part = None
    if isinstance(props.get("part"), int) and isinstance(props.get("parts"), int):
        part = f"part {props['part']} of {props['parts']}"
    return ReadingText(what, persons, props.get("everyone") is True, part)


def _texts(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []


def describe_filters(filters: Any) -> str:
    """Describes what an export selected; accepts a value of any type."""
    if not isinstance(filters, Mapping) or not filters:
        return "everything"
    said = []
    if _texts(filters.get("types")):
        said.append("types " + ", ".join(map(readable, _texts(filters["types"]))))
    if filters.get("by_user"):
        said.append("of chosen persons")
    for name, word in (("since_ns", "from"), ("until_ns", "until")):
        if isinstance(filters.get(name), int):
            said.append(f"{word} {day(filters[name])}")
    if _texts(filters.get("by_property")):
        said.append("by the properties " + ", ".join(map(readable, _texts(filters["by_property"]))))
    return "; ".join(said) or "a selection"


def day(ts_ns: int) -> str:
    """Formats the day of a time; a time outside the calendar as its number."""
    try:
        return f"{datetime.fromtimestamp(ts_ns // 10**9, UTC):%-d %b %Y}"
    except (OverflowError, ValueError, OSError):
        return f"{ts_ns}"


def period(length_ns: int) -> str:
    """Formats a period of retention: "90 days", "2 years"."""
    for unit_ns, unit in ((365 * DAY_NS, "year"), (DAY_NS, "day"), (DAY_NS // 24, "hour")):
        if length_ns >= unit_ns and length_ns % unit_ns == 0:
            number = length_ns // unit_ns
            return f"{number:,} {unit}{'' if number == 1 else 's'}"
    return f"{length_ns // 10**9:,} seconds"


def excerpt(data: bytes) -> str:
    """Formats the beginning of refused input as text, other bytes as \\x00."""
    shown = re.sub(
        rb"[^ -\[\]-~]", lambda found: b"\\x%02x" % ord(found[0]), data[:EXCERPT_BYTES_SHOWN]
    ).decode("ascii")
    return shown + ("…" if len(data) > EXCERPT_BYTES_SHOWN else "")
