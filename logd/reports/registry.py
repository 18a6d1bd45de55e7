"""The named reports: parameters checked, one bounded page each, no cursor left open.

A report is a function of a connection and its parameters. Nobody outside sends SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logd.batch import (
    LOST_BEGINNING_UNKNOWN,
    LOST_CLAIMED,
    LOST_DAMAGED,
    LOST_NOT_RECEIVED,
    LOST_OUTBOX_GONE,
    LOST_RESTORED,
    LOST_TAIL_UNKNOWN,
)
from logd.clock.event_age import is_plausible
from logd.storage.database import Connection
from logd.storage.store import COUNTERS
from logd.storage.time_blocks import BLOCK_BITS, BLOCK_EVENTS
from logd_wire.query import ROWS_MAX, Answer, QueryError, Row
from logd_wire.schema import SUBJECTS
from logd_wire.wire import unpack_props

PAGE_ROWS_MAX = 200
# Small rows, of a whole school: each further page is asked, opened and walked to anew.
COMPLETIONS_MAX = 5000
USERS_MAX = 1000
DAYS_MAX = 3700
BUCKETS_MAX = 100
SHOWN_CHARS_MAX = 60
CAUSES = (
    LOST_NOT_RECEIVED,
    LOST_DAMAGED,
    LOST_RESTORED,
    LOST_TAIL_UNKNOWN,
    LOST_OUTBOX_GONE,
    LOST_BEGINNING_UNKNOWN,
    LOST_CLAIMED,
)


class BadParameter(QueryError):
    """A parameter that the report does not take, or not with that value."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_parameter", message)


class Parameters:
    """A report's parameters, each taken once by its type; what is left over is refused."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def whole(self, name: str, default: int | None = None, *, low: int = 0, high: int) -> int:
        """A whole number within low..high. Required when `default` is None."""
        value = self._values.pop(name, default)
        if type(value) is not int or not low <= value <= high:
            raise BadParameter(
                f"{name}: expected a whole number from {low} to {high}, not {_shown(value)}"
            )
        return value

    def maybe_whole(self, name: str, *, low: int = 0, high: int = 2**63 - 1) -> int | None:
        """A whole number within low..high, or None when not given."""
        return None if name not in self._values else self.whole(name, low=low, high=high)

    def text(self, name: str, default: str | None = None) -> str:
        """A text. Required when `default` is None."""
        value = self._values.pop(name, default)
        if not isinstance(value, str):
            raise BadParameter(f"{name}: expected text, not {_shown(value)}")
        return value

    def maybe_text(self, name: str) -> str | None:
        """A text, or None when not given."""
        return None if name not in self._values else self.text(name)

    def maybe_texts(self, name: str) -> list[str] | None:
        """A list of at most 1000 texts, or None when not given."""
        value = self._values.pop(name, None)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or len(value) > USERS_MAX
            or not all(isinstance(item, str) for item in value)
        ):
            raise BadParameter(f"{name}: expected a list of at most {USERS_MAX} texts")
        return value

    def done(self) -> None:
        """Raises BadParameter for whatever was not taken."""
        if self._values:
            raise BadParameter(f"unknown parameter: {', '.join(sorted(map(str, self._values)))}")


def _shown(value: object) -> str:
    """A parameter for a message: short, whatever was sent."""
    text = ascii(value)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[: SHOWN_CHARS_MAX - 3]}..."


def _among(column: str, values: list[str] | None) -> tuple[str, list[str]]:
    """A condition that a column is one of the values; always true for None."""
    if values is None:
        return "1", []
    return f"{column} IN ({', '.join('?' * len(values))})", values


def _rows(connection: Connection, sql: str, values: list[Any]) -> list[Row]:
    cursor = connection.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def summary(connection: Connection, parameters: Parameters) -> Answer:
    """Totals of the whole trail: one row."""
    parameters.done()
    counters = dict(connection.execute("SELECT name, value FROM counter").fetchall())
    producers, schema = connection.execute(
        "SELECT (SELECT count(*) FROM producer), (SELECT max(version) FROM migration)"
    ).fetchone()
    last = connection.execute(
        "SELECT id, stored_ns FROM batch ORDER BY id DESC LIMIT 1"
    ).fetchone() or (0, None)
    row: Row = {name: counters.get(name, 0) for name in COUNTERS}
    row |= {"producers": producers, "batches": last[0], "last_stored_ns": last[1], "schema": schema}
    return Answer([row])


def daily_activity(connection: Connection, parameters: Parameters) -> Answer:
    """Events and different users per day (days since 1970, UTC) of one type."""
    since = parameters.whole("since_day", high=10**6)
    until = parameters.whole("until_day", high=10**6)
    event_type = parameters.text("type", "page_view")
    among, users = _among("user", parameters.maybe_texts("users"))
    parameters.done()
    if until - since >= DAYS_MAX:
        raise BadParameter(f"until_day: at most {DAYS_MAX - 1} days after since_day")
    return Answer(
        _rows(
            connection,
            "SELECT day, sum(events) AS events, sum(user <> '') AS users FROM rollup_day"  # noqa: S608 - question marks only
            f" WHERE type = (SELECT id FROM event_type WHERE name = ?)"
            f" AND day BETWEEN ? AND ? AND {among} GROUP BY day ORDER BY day",
            [event_type, since, until, *users],
        )
    )


def completions(connection: Connection, parameters: Parameters) -> Answer:
    """Each user's state in each subject: attempts, first and last time, last and best value."""
    event_type = parameters.text("type", "task_completed")
    users_sql, users = _among("user", parameters.maybe_texts("users"))
    subjects_sql, subjects = _among("subject", parameters.maybe_texts("subjects"))
    after = parameters.whole("after", 0, high=10**9)
    parameters.done()
    _check_subject_type(event_type)
    rows = _rows(
        connection,
        "SELECT user, subject, events, first_ts_ns, last_ts_ns, last_value, best_value"  # noqa: S608 - question marks only
        " FROM rollup_subject WHERE type = (SELECT id FROM event_type WHERE name = ?)"
        f" AND {users_sql} AND {subjects_sql} ORDER BY subject, user LIMIT ? OFFSET ?",
        [event_type, *users, *subjects, COMPLETIONS_MAX + 1, after],
    )
    more = len(rows) > COMPLETIONS_MAX
    return Answer(rows[:COMPLETIONS_MAX], after + COMPLETIONS_MAX if more else None)


def score_distribution(connection: Connection, parameters: Parameters) -> Answer:
    """How many users' latest value (0 to 1) falls into each of `buckets` equal parts."""
    event_type = parameters.text("type", "quiz_submitted")
    subject = parameters.maybe_text("subject")
    among, users = _among("user", parameters.maybe_texts("users"))
    buckets = parameters.whole("buckets", 10, low=1, high=BUCKETS_MAX)
    parameters.done()
    _check_subject_type(event_type)
    return Answer(
        _rows(
            connection,
            "SELECT subject, max(0, min(CAST(last_value * ? AS INTEGER), ? - 1)) AS bucket,"  # noqa: S608 - question marks only
            " count(*) AS users FROM rollup_subject"
            " WHERE type = (SELECT id FROM event_type WHERE name = ?)"
            f" AND last_value IS NOT NULL AND (? IS NULL OR subject = ?) AND {among}"
            " GROUP BY subject, bucket ORDER BY subject, bucket LIMIT ?",
            [buckets, buckets, event_type, subject, subject, *users, ROWS_MAX],
        )
    )


def _check_subject_type(event_type: str) -> None:
    if event_type not in SUBJECTS:
        raise BadParameter(f"type: expected one of {', '.join(SUBJECTS)}")


def timeline(connection: Connection, parameters: Parameters) -> Answer:
    """One user's events, newest first."""
    user = parameters.text("user")
    before, limit = _page(parameters)
    parameters.done()
    return _marked(event_page(connection, user=user, before_id=before, limit=limit))


def events(connection: Connection, parameters: Parameters) -> Answer:
    """Events by type, user and the client's time, newest first."""
    event_type, user = parameters.maybe_text("type"), parameters.maybe_text("user")
    since, until = parameters.maybe_whole("since_ns"), parameters.maybe_whole("until_ns")
    before, limit = _page(parameters)
    parameters.done()
    return _marked(
        event_page(
            connection,
            event_type=event_type,
            user=user,
            since_ns=since,
            until_ns=until,
            before_id=before,
            limit=limit,
        )
    )


def _marked(answer: Answer) -> Answer:
    """Adds whether an event's own time, which its client claims, fits that of its storing."""
    for row in answer.rows:
        row["time_in_doubt"] = not is_plausible(row["ts_ns"], row["stored_ns"])
    return answer


def _page(parameters: Parameters) -> tuple[int | None, int]:
    return (
        parameters.maybe_whole("before_id"),
        parameters.whole("limit", 50, low=1, high=PAGE_ROWS_MAX),
    )


def event_page(
    connection: Connection,
    *,
    event_type: str | Sequence[str] | None = None,
    user: str | Sequence[str] | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    before_id: int | None = None,
    after_id: int | None = None,
    limit: int,
) -> Answer:
    """A page of events, newest first, or oldest first with `after_id`; `next` continues it.

    Of several types, of several users: those of any of them; of an empty list, of any at all.
    `since_ns` is inclusive, `until_ns` is not.
    """
    types, users = _several(event_type), _several(user)
    direction = "DESC" if after_id is None else "ASC"
    conditions: list[tuple[str, Any]] = [
        ("e.ts_ns >= ?", since_ns),
        ("e.ts_ns < ?", until_ns),
        ("e.id < ?", before_id),
        ("e.id > ?", after_id),
    ]
    if len(types) == 1:
        conditions += [("e.type = (SELECT id FROM event_type WHERE name = ?)", types[0])]
    source, order = "event e", f"e.id {direction}"
    if users or len(types) > 1 or since_ns is not None or until_ns is not None:
        source, order = _by_block(types, users), f"b.block {direction}, e.id {direction}"
        conditions += [
            ("b.last_ts_ns >= ?", since_ns),
            ("b.first_ts_ns < ?", until_ns),
            (f"b.block <= ? >> {BLOCK_BITS}", before_id),
            (f"b.block >= ? >> {BLOCK_BITS}", after_id),
        ]
    asked = [(sql, [value]) for sql, value in conditions if value is not None]
    if users:
        asked.append(_among("e.user", users))
    if len(types) > 1:
        among, names = _among("name", types)
        asked.append((f"e.type IN (SELECT id FROM event_type WHERE {among})", names))  # noqa: S608 - question marks only
    where = " AND ".join(sql for sql, _ in asked) or "1"
    # First the ids alone: of what is sorted within a block no row is read but those of the page.
    ids = f"SELECT e.id FROM {source} WHERE {where} ORDER BY {order} LIMIT ?"  # noqa: S608 - question marks only
    rows = _rows(
        connection,
        "SELECT e.id, e.ts_ns, (SELECT stored_ns FROM batch WHERE first_event <= e.id"  # noqa: S608 - the same
        " ORDER BY first_event DESC, batch.id DESC LIMIT 1) AS stored_ns, t.name AS type, e.user,"
        " p.uid || '-' || p.key AS producer, e.sequence, e.props"
        " FROM event e CROSS JOIN event_type t ON t.id = e.type"
        " CROSS JOIN producer p ON p.id = e.producer"
        f" WHERE e.id IN ({ids}) ORDER BY e.id {direction}",
        [*(value for _, values in asked for value in values), limit + 1],
    )
    more = len(rows) > limit
    rows = rows[:limit]
    for row in rows:
        row["props"] = unpack_props(row["props"])
    return Answer(rows, rows[-1]["id"] if more else None)


def _several(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _by_block(types: list[str], users: list[str]) -> str:
    """Events, block by block, by the index that finds those asked for within one."""
    if users:
        # The plus takes away the column's affinity, with which the expression's index is not used.
        here = f"(e.id >> {BLOCK_BITS}) = +b.block"
        return f"event_block b CROSS JOIN event e INDEXED BY event_user ON {here}"
    first = f"b.block << {BLOCK_BITS}"
    index = "NOT INDEXED" if not types else "INDEXED BY event_type_id"
    here = f"e.id BETWEEN {first} AND ({first}) + {BLOCK_EVENTS - 1}"
    return f"event_block b CROSS JOIN event e {index} ON {here}"


def event_types(connection: Connection, parameters: Parameters) -> Answer:
    """The types, with their number of events: those with the most first, as far as a page goes."""
    parameters.done()
    return Answer(
        _rows(
            connection,
            "SELECT name AS type, events FROM event_type ORDER BY events DESC, name LIMIT ?",
            [ROWS_MAX],
        )
    )


def losses(connection: Connection, parameters: Parameters) -> Answer:
    """The loss ledger, newest first."""
    before, limit = _page(parameters)
    parameters.done()
    return loss_page(connection, before, limit)


def loss_page(
    connection: Connection, before: int | None, limit: int, *, claimed: bool = True
) -> Answer:
    """A page of the ledger, newest first, from below entry `before`; `next` continues it.

    Without `claimed`, only what is more than an outbox's own word.
    """
    rows = _rows(
        connection,
        "SELECT l.id, p.uid || '-' || p.key AS producer, l.first, l.last,"
        " l.last - l.first + 1 AS events, l.cause, l.detected_ns"
        " FROM loss l JOIN producer p ON p.id = l.producer"
        " WHERE (? IS NULL OR l.id < ?) AND (? OR l.cause <> ?) ORDER BY l.id DESC LIMIT ?",
        [before, before, claimed, LOST_CLAIMED, limit + 1],
    )
    more = len(rows) > limit
    return Answer(rows[:limit], rows[limit - 1]["id"] if more else None)


def all_losses(connection: Connection) -> Iterator[Row]:
    """Yields every entry of the ledger, newest first."""
    before: int | None = None
    while True:
        page = loss_page(connection, before, PAGE_ROWS_MAX)
        yield from page.rows
        before = page.next
        if before is None:
            return


def losses_by_user(connection: Connection, limit: int) -> list[Row]:
    """Whose the losses are, with what is claimed apart; who has lost most first."""
    return _rows(
        connection,
        "SELECT p.uid, count(*) AS entries,"
        " coalesce(sum((l.last - l.first + 1) * (l.cause <> ?1)), 0) AS events,"
        " sum(l.last IS NULL AND l.cause <> ?1) AS unknown_extent,"
        " coalesce(sum((l.last - l.first + 1) * (l.cause = ?1)), 0) AS claimed,"
        " sum(l.last IS NULL AND l.cause = ?1) AS claimed_unknown_extent"
        " FROM loss l JOIN producer p ON p.id = l.producer GROUP BY p.uid"
        " ORDER BY events DESC, unknown_extent DESC, entries DESC LIMIT ?2",
        [LOST_CLAIMED, limit],
    )


def losses_by_cause(connection: Connection, parameters: Parameters) -> Answer:
    """The ledger's totals for each cause; one that never was has zeros, and is not left out."""
    parameters.done()
    rows = _rows(
        connection,
        "SELECT cause, count(*) AS entries, coalesce(sum(last - first + 1), 0) AS events,"
        " sum(last IS NULL) AS unknown_extent, max(detected_ns) AS last_detected_ns"
        " FROM loss GROUP BY cause ORDER BY cause LIMIT ?",
        [ROWS_MAX - len(CAUSES)],
    )
    there = {row["cause"]: row for row in rows}
    zeros = {"entries": 0, "events": 0, "unknown_extent": 0, "last_detected_ns": None}
    known = [there.pop(cause, {"cause": cause, **zeros}) for cause in CAUSES]
    return Answer([*known, *there.values()])


def quarantine(connection: Connection, parameters: Parameters) -> Answer:
    """What was refused, newest first; excerpts in hexadecimal."""
    before, limit = _page(parameters)
    parameters.done()
    return quarantine_page(connection, before, limit)


def quarantine_page(connection: Connection, before: int | None, limit: int) -> Answer:
    """A page of quarantine, newest first, from below row `before`; `next` continues it."""
    rows = _rows(
        connection,
        "SELECT q.id, q.detected_ns, q.uid, q.pid, q.reason, p.uid || '-' || p.key AS producer,"
        " q.sequence, q.bytes, lower(hex(q.excerpt)) AS excerpt"
        " FROM quarantine q LEFT JOIN producer p ON p.id = q.producer"
        " WHERE ? IS NULL OR q.id < ? ORDER BY q.id DESC LIMIT ?",
        [before, before, limit + 1],
    )
    more = len(rows) > limit
    return Answer(rows[:limit], rows[limit - 1]["id"] if more else None)


@dataclass(frozen=True)
class Report:
    """A report, and whether it names persons: reading such a one is itself an event."""

    run: Callable[[Connection, Parameters], Answer]
    names_persons: bool = False


REPORTS: Mapping[str, Report] = {
    "summary": Report(summary),
    "daily_activity": Report(daily_activity),
    "completions": Report(completions, names_persons=True),
    "score_distribution": Report(score_distribution),
    "timeline": Report(timeline, names_persons=True),
    "events": Report(events, names_persons=True),
    "event_types": Report(event_types),
    "losses": Report(losses),
    "losses_by_cause": Report(losses_by_cause),
    "quarantine": Report(quarantine),
}
