"""The reports that clients can ask for, by name. A client sends parameters, never SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from logd.reports import event_queries, ledger_queries, verification
from logd.reports.parameters import Parameters
from logd.storage.database import Connection
from logd_wire.query import Answer


@dataclass(frozen=True)
class Report:
    """A report. Reading one that names persons is recorded as an event."""

    run: Callable[[Connection, Parameters], Answer]
    names_persons: bool = False


REPORTS: Mapping[str, Report] = {
    "summary": Report(event_queries.summary),
    "daily_activity": Report(event_queries.daily_activity),
    "completions": Report(event_queries.completions, names_persons=True),
    "score_distribution": Report(event_queries.score_distribution),
    "timeline": Report(event_queries.timeline, names_persons=True),
    "events": Report(event_queries.events, names_persons=True),
    "event_types": Report(event_queries.event_types),
    "losses": Report(ledger_queries.losses),
    "losses_by_cause": Report(ledger_queries.losses_by_cause),
    "quarantine": Report(ledger_queries.quarantine),
    "verification": Report(verification.verification),
}
