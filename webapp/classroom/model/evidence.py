"""Evidence sheets: one person's events with what may be missing, from two of logd's reports.

A sheet is of one moment: its statement fixes the number of its events and the root over them, and
`up_to` the last event that was looked at. Events that are stored later are on no page of it.
"""

from __future__ import annotations

import hashlib
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from logd_wire.query import QueryError, Row
from webapp.classroom.model.accounts import User
from webapp.classroom.model.analytics import Event, event_of
from webapp.classroom.model.reports import Reports, or_unavailable, record, reports_for

PAGE_EVENTS = 100
# The most events with proofs that one request asks for: logd makes each proof within its two
# seconds for a page.
PROVEN_EVENTS = 250
WHOLE_EVENTS = 500
# Where it does not, the next request asks for a fifth, down to this many.
PROVEN_EVENTS_MIN = 10
# After this many seconds no further page is requested.
SHEET_S_MAX = 30.0

Caveat = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Whose events, about what, and of which time; the names are those of logd's parameters."""

    user: str
    items: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None
    up_to: int | None = None

    def params(self) -> dict[str, Any]:
        """Returns the parameters of the reports."""
        return {
            "user": self.user,
            "items": list(self.items) or None,
            "since_ns": self.since_ns,
            "until_ns": self.until_ns,
            "up_to": self.up_to,
        }


@dataclass(frozen=True)
class Sheet:
    """What logd says of a sheet: how many events, what may be missing, and the trail's head."""

    trail: str
    made_ns: int
    up_to: int
    events: int
    more: bool
    split_ns: int | None
    in_doubt: int
    batches: int
    root: str
    head: str
    public_key: str | None
    unsigned: str | None
    caveats: list[str]
    statement: str | None
    verified: str | None
    verified_ns: int | None
    verified_batches: int | None
    anchored_ns: int | None = None
    anchored_batches: int = 0
    anchored_root: str = ""
    anchored_in_file: bool = False

    @property
    def found_caveats(self) -> list[Caveat]:
        """The caveats, each a map with its `kind`."""
        return [json.loads(line) for line in self.caveats]


@dataclass(frozen=True)
class SheetEvent:
    """An event of a sheet, with the hash of its leaf; with its proof, or why there is none."""

    event: Event
    batch: int
    leaf: str
    proof: str | None = None
    unproven: str | None = None
    data: str | None = None


@dataclass(frozen=True)
class SheetPage:
    """A page of a sheet's events, and the event after which the next page begins."""

    events: list[SheetEvent] = field(default_factory=list)
    next: int | None = None


class Evidence:
    """The evidence sheets that one account asks for."""

    def __init__(self, reports: Reports) -> None:
        self.reports = reports

    @or_unavailable
    def sheet(self, wanted: Wanted) -> Sheet:
        return record(Sheet, self.reports.ask("evidence", **wanted.params()).rows[0])

    @or_unavailable
    def page(self, wanted: Wanted, after: int | None) -> SheetPage:
        """Returns a page of the events up to `wanted.up_to`, from after an event on."""
        found: list[SheetEvent] = []
        while True:
            answer = self.reports.ask(
                "evidence_events",
                **wanted.params(),
                after=after,
                limit=PAGE_EVENTS - len(found),
            )
            found += map(_event, answer.rows)
            after = answer.next
            # A page of logd's may be short: where events are large, or few are about the item.
            if after is None or len(found) >= PAGE_EVENTS:
                return SheetPage(found, after)

    @or_unavailable
    def every_event(self, wanted: Wanted, sheet: Sheet, *, proofs: bool) -> list[SheetEvent]:
        """Returns all events of a sheet, which are those of its statement.

        Raises QueryError if they are not: events were removed since the statement was made.
        """
        params = {**wanted.params(), "size": sheet.batches if proofs else None}
        events = [
            _event(row) for row in self._rows(params, PROVEN_EVENTS if proofs else WHOLE_EVENTS)
        ]
        if stated_events(sheet.statement or "") != (len(events), root(events)):
            raise QueryError(
                "changed", "events were removed while the sheet was made; make it again"
            )
        return events

    def _rows(self, params: dict[str, Any], limit: int) -> Iterator[Row]:
        """Yields all events; where logd is too slow for a page, it asks for smaller ones."""
        after, until_s = None, time.monotonic() + SHEET_S_MAX
        while True:
            if time.monotonic() > until_s:
                raise QueryError("too_slow", f"the sheet takes over {SHEET_S_MAX:.0f} s")
            try:
                answer = self.reports.ask("evidence_events", **params, after=after, limit=limit)
            except QueryError as error:
                if error.code != "too_slow" or limit <= PROVEN_EVENTS_MIN:
                    raise
                limit = max(limit // 5, PROVEN_EVENTS_MIN)
                continue
            yield from answer.rows
            if answer.next is None:
                return
            after = answer.next


def evidence_for(user: User) -> Evidence:
    """Returns the evidence sheets for `user`, with the current app's settings."""
    return Evidence(reports_for(user))


def stated_events(statement: str) -> tuple[int, str]:
    """Returns the number of events that a statement has, and the root over them."""
    for line in statement.splitlines():
        name, _, value = line.partition(" ")
        if name == "events":
            count, _, digest = value.partition(" ")
            return int(count), digest
    raise ValueError("the statement has no line of events")


def root(events: Sequence[SheetEvent]) -> str:
    """Returns the root of the tree over the events' leaves, as RFC 9162 defines it."""
    level = [b64decode(event.leaf) for event in events] or [hashlib.sha256().digest()]
    while len(level) > 1:
        # The odd one out at the end is a subtree of its own, one level up.
        pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
        level = [
            hashlib.sha256(b"\x01" + b"".join(pair)).digest() if len(pair) == 2 else pair[0]
            for pair in pairs
        ]
    return b64encode(level[0]).decode()


def _event(row: Row) -> SheetEvent:
    return SheetEvent(
        event_of(row), row["batch"], row["leaf"], row["proof"], row["unproven"], row["data"]
    )
