"""The reports that clients can request, by name. A client sends parameters, never SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from logd.reports import (
    event_counts,
    event_queries,
    event_search,
    events_after,
    evidence,
    ledger_queries,
    person_reports,
    readings,
    removals,
    trail_state,
    verification,
)
from logd.reports.parameters import Parameters
from logd.reports.readings import Concern
from logd.storage.database import Connection
from logd_wire.query import Answer


@dataclass(frozen=True)
class Report:
    """A report that clients can request by name: the function that answers it, and its `concern`.

    Each reading of a report with a `concern` is recorded as an event, with the persons.

    A report without `concern` is about no person: it has totals of the whole trail, or is about
    producers.
    """

    run: Callable[[Connection, Parameters], Answer]
    concern: Concern | None = None


REPORTS: Mapping[str, Report] = {
    "summary": Report(event_queries.summary),
    "daily_activity": Report(event_queries.daily_activity, readings.counted_by_day),
    "completions": Report(event_queries.completions, readings.named_in_rows),
    "score_distribution": Report(event_queries.score_distribution, readings.counted_by_subject),
    "timeline": Report(event_search.timeline, readings.named_in_rows),
    "events": Report(event_search.events, readings.searched),
    "events_export": Report(event_search.events_export, readings.searched),
    "event_counts": Report(event_counts.event_counts, readings.counted_by_filter),
    "event": Report(event_search.event, readings.named_in_rows),
    "events_after": Report(events_after.events_after, events_after.named_if_any),
    "event_types": Report(event_queries.event_types),
    "losses": Report(ledger_queries.losses),
    "losses_by_cause": Report(ledger_queries.losses_by_cause),
    "quarantine": Report(ledger_queries.quarantine, readings.quoted),
    "verification": Report(verification.verification),
    "trail_state": Report(trail_state.trail_state),
    "removals": Report(removals.removals),
    "person_events": Report(person_reports.person_events, readings.about_one),
    "person_mentions": Report(person_reports.person_mentions, readings.named_by_others),
    "person_readings": Report(person_reports.person_readings, readings.about_one),
    "person_totals": Report(person_reports.person_totals, readings.about_one),
    "person_rollups": Report(person_reports.person_rollups, readings.about_one),
    "copies": Report(person_reports.copies),
    "evidence": Report(evidence.evidence, readings.about_one),
    "evidence_events": Report(evidence.evidence_events, readings.named_in_rows),
}
