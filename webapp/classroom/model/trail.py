"""The trail's own state in logd's reports: what an auditor needs in order to rely on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from logd_wire.query import Row
from webapp.classroom.model.accounts import User
from webapp.classroom.model.analytics import PAGE_EVENTS, Event, Page, event_page
from webapp.classroom.model.reports import Reports, or_unavailable, record, reports_for

REMOVALS_SHOWN = 20
READ = "report_read"
EXPORT_STARTED, EXPORT_ENDED = "trail_export_started", "trail_exported"


@dataclass(frozen=True)
class Run:
    """The last run of a maintenance command, and its last good one."""

    at_ns: int | None = None
    ok_ns: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class TrailState:
    """logd's report `trail_state`."""

    at_ns: int
    running: bool
    started_ns: int | None
    stats_ns: int | None
    pending: int | None
    trouble: str | None
    trouble_since_ns: int | None
    heads_signed: bool | None
    anchored_ns: int | None
    refused_by_clients: int
    quarantine_kept: int
    backups: int
    newest_backup_ns: int | None
    exports: int
    newest_export_ns: int | None
    anchor_interval_s: int | None
    anchor_file: str | None
    anchor_file_ns: int | None
    retention: Mapping[str, int] | None
    backup: Run = field(default_factory=Run)
    prune: Run = field(default_factory=Run)
    erasure: Run = field(default_factory=Run)


@dataclass(frozen=True)
class Removal:
    """A run of `logd prune` (past retention) or of `logd forget` (of a person)."""

    id: int
    kind: str
    asked_ns: int
    finished_ns: int | None
    events: int
    problem: str | None


@dataclass(frozen=True)
class QuarantineEntry:
    id: int
    detected_ns: int
    uid: int
    pid: int
    reason: str
    producer: str | None
    sequence: int | None
    size: int
    excerpt: bytes


@dataclass(frozen=True)
class Export:
    """A `logd export` that began, and its end's properties; None if it was killed, or still runs.

    Also None if its end is on another page of the list.
    """

    started: Event
    ended: Mapping[str, Any] | None


class Trail:
    """The figures of the auditor's overview and of its pages, each or an `Unavailable`."""

    def __init__(self, reports: Reports) -> None:
        self.reports = reports

    @or_unavailable
    def state(self) -> TrailState:
        row = dict(self.reports.ask("trail_state").rows[0])
        runs = {name: record(Run, row.pop(name)) for name in ("backup", "prune", "erasure")}
        return record(TrailState, row | runs)

    @or_unavailable
    def removals(self) -> Page[Removal]:
        """Returns the newest removals; the report names no person, and is no reading."""
        answer = self.reports.ask("removals", limit=REMOVALS_SHOWN)
        return Page([_removal(row) for row in answer.rows], answer.next)

    @or_unavailable
    def quarantine(self, before_id: int | None = None) -> Page[QuarantineEntry]:
        answer = self.reports.ask("quarantine", before_id=before_id, limit=PAGE_EVENTS)
        entries = [
            record(
                QuarantineEntry,
                {**row, "size": row["bytes"], "excerpt": bytes.fromhex(row["excerpt"])},
            )
            for row in answer.rows
        ]
        return Page(entries, answer.next)

    @or_unavailable
    def readings(self, before_id: int | None, before_ns: int | None) -> Page[Event]:
        """Returns the recorded readings of reports about persons, newest first."""
        return self._events(READ, before_id, before_ns)

    @or_unavailable
    def exports(self, before_id: int | None, before_ns: int | None) -> Page[Export]:
        started = self._events(EXPORT_STARTED, before_id, before_ns)
        ended = self._events(EXPORT_ENDED, None, None) if started.items else Page[Event]()
        ends = {str(event.props.get("export")): event.props for event in ended.items}
        return Page(
            [Export(event, ends.get(str(event.props.get("export")))) for event in started.items],
            started.next,
            started.next_ns,
        )

    def _events(self, kind: str, before_id: int | None, before_ns: int | None) -> Page[Event]:
        place = {"before_id": before_id, "before_ns": before_ns}
        return event_page(self.reports.ask("events", type=kind, limit=PAGE_EVENTS, **place))


def _removal(row: Row) -> Removal:
    outcome = dict(row["outcome"])
    # A prune counts by type; a forget counts events, and apart from these what it redacted.
    events = outcome.get("events", 0) if row["kind"] == "forget" else sum(outcome.values())
    return record(Removal, {**row, "events": events})


def trail_for(user: User) -> Trail:
    """Returns the trail's figures for `user`, with the current app's settings."""
    return Trail(reports_for(user))
