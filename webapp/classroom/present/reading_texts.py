"""Words for logd's reports, as what someone looked at."""

from __future__ import annotations

from webapp.classroom.present.filters import readable

REPORTS = {
    "timeline": "one person's activity, entry by entry",
    "events": "a list of entries of the log",
    "events_after": "the live view of the log",
    "completions": "who has finished which tasks and quizzes",
    "score_distribution": "a chart of quiz results",
    "daily_activity": "a chart of how many were active each day",
    "quarantine": "data that the log refused",
    "person_events": "“My data”: the entries about one person",
    "person_mentions": "“My data”: entries of others that name one person",
    "person_readings": "“My data”: who looked at one person's data",
    "person_totals": "“My data”: how many entries there are about one person",
    "person_rollups": "“My data”: the sums about one person",
}
EXPORT_STARTED = "trail_export_started"


def describe_report(event_type: str, report: str | None) -> str:
    """Describes what a reading showed, in words that follow "looked at"."""
    if event_type == EXPORT_STARTED:
        return "a copy of log entries, made as a file on the server"
    if report is None:
        return "a report"
    return REPORTS.get(report) or f"the report “{readable(report)}”"
