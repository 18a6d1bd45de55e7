"""Words for logd's reports, as what someone looked at."""

from __future__ import annotations

from webapp.classroom.present.filters import readable

REPORTS = {
    "timeline": "{whose} activity, entry by entry",
    "events": "a list of entries of the log",
    "events_export": "a copy of log entries, made as a file",
    "event_counts": "counts of entries of the log",
    "event": "one entry of the log",
    "evidence": "an evidence sheet about one person",
    "evidence_events": "the entries of an evidence sheet about one person",
    "events_after": "the live view of the log",
    "completions": "who has finished which tasks and quizzes",
    "score_distribution": "a chart of quiz results",
    "daily_activity": "a chart of how many were active each day",
    "quarantine": "data that the log refused",
    "logd person": "all that the log has about {whom}, by a command on the server",
    "person_events": "“My data”: the entries about {whom}",
    "person_mentions": "“My data”: entries of others that name {whom}",
    "person_readings": "“My data”: who looked at {whose} data",
    "person_totals": "“My data”: how many entries there are about {whom}",
    "person_rollups": "“My data”: the sums about {whom}",
}
EXPORT_STARTED = "trail_export_started"


def describe_report(event_type: str, report: str | None, *, about_you: bool = False) -> str:
    """Describes what a reading showed, in words that follow "looked at".

    `about_you` is true for a reading about the one who reads these words.
    """
    if event_type == EXPORT_STARTED:
        return "a copy of log entries, made as a file on the server"
    if report is None:
        return "a report"
    words = REPORTS.get(report)
    if words is None:
        return f"the report “{readable(report)}”"
    whose, whom = ("your", "you") if about_you else ("one person's", "one person")
    return words.format(whose=whose, whom=whom)
