"""Reports and pages of stored events and their roll-ups. Each reads one bounded page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from logd.reports import sql
from logd.reports.parameters import BadParameter, Parameters, key_after, keys_after
from logd.storage.database import Connection
from logd.storage.store import COUNTERS
from logd.storage.time_blocks import BLOCK_BITS, BLOCK_EVENTS
from logd_wire.query import ROWS_MAX, Answer, Row
from logd_wire.schema import SUBJECTS
from logd_wire.wire import unpack_props

# The most rows of a page: they are small,
# and each further page costs a request, a connection and a scan.
COMPLETIONS_MAX = 5000
TYPES_MAX = 5000
DAYS_MAX = 3700
BUCKETS_MAX = 100
# The types that reports use if they are requested without a type.
DAILY_TYPE = "page_view"
SCORE_TYPE = "quiz_submitted"


def summary(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the totals of the whole trail, in one row."""
    parameters.done()
    return Answer([trail_totals(connection)])


def trail_totals(connection: Connection) -> Row:
    """Returns the totals of the whole trail, as the report `summary` has them."""
    counters = dict(connection.execute("SELECT name, value FROM counter").fetchall())
    producers, schema = connection.execute(
        "SELECT (SELECT count(*) FROM producer), (SELECT max(version) FROM migration)"
    ).fetchone()
    last = connection.execute(
        "SELECT id, stored_ns FROM batch ORDER BY id DESC LIMIT 1"
    ).fetchone() or (0, None)
    row: Row = {name: counters.get(name, 0) for name in COUNTERS}
    row |= {"producers": producers, "batches": last[0], "last_stored_ns": last[1], "schema": schema}
    return row


def daily_activity(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the events and users per day (days since 1970, UTC) of one type."""
    since = parameters.whole("since_day", high=10**6)
    until = parameters.whole("until_day", high=10**6)
    event_type = parameters.text("type", DAILY_TYPE)
    among, users = sql.among("user", parameters.maybe_texts("users"))
    parameters.done()
    if until - since >= DAYS_MAX:
        raise BadParameter(f"until_day: at most {DAYS_MAX - 1} days after since_day")
    return Answer(
        sql.fetch_rows(
            connection,
            "SELECT day, sum(events) AS events, sum(user <> '') AS users FROM rollup_day"  # noqa: S608 - question marks only
            f" WHERE type = (SELECT id FROM event_type WHERE name = ?)"
            f" AND day BETWEEN ? AND ? AND {among} GROUP BY day ORDER BY day",
            [event_type, since, until, *users],
        )
    )


def completions(connection: Connection, parameters: Parameters) -> Answer:
    """Reports each user's state in each subject: attempts, times, last and best value."""
    event_type = parameters.text("type", "task_completed")
    users_sql, users = sql.among("user", parameters.maybe_texts("users"))
    subjects_sql, subjects = sql.among("subject", parameters.maybe_texts("subjects"))
    after_sql, after = sql.after("subject, user", keys_after(parameters, 2))
    parameters.done()
    _check_subject_type(event_type)
    return sql.page(
        connection,
        "SELECT user, subject, events, first_ts_ns, last_ts_ns, last_value, best_value"  # noqa: S608 - question marks only
        " FROM rollup_subject WHERE type = (SELECT id FROM event_type WHERE name = ?)"
        f" AND {users_sql} AND {subjects_sql} AND {after_sql} ORDER BY subject, user",
        [event_type, *users, *subjects, *after],
        key=lambda row: [row["subject"], row["user"]],
        rows_max=COMPLETIONS_MAX,
    )


def score_distribution(connection: Connection, parameters: Parameters) -> Answer:
    """Reports how many users' latest value (0 to 1) is in each of `buckets` equal parts."""
    event_type = parameters.text("type", SCORE_TYPE)
    subject = parameters.maybe_text("subject")
    among, users = sql.among("user", parameters.maybe_texts("users"))
    buckets = parameters.whole("buckets", 10, low=1, high=BUCKETS_MAX)
    after_sql, after = sql.after("subject", key_after(parameters))
    parameters.done()
    _check_subject_type(event_type)
    return sql.page(
        connection,
        "SELECT subject, max(0, min(CAST(last_value * ? AS INTEGER), ? - 1)) AS bucket,"  # noqa: S608 - question marks only
        " count(*) AS users FROM rollup_subject"
        " WHERE type = (SELECT id FROM event_type WHERE name = ?)"
        f" AND last_value IS NOT NULL AND (? IS NULL OR subject = ?) AND {among}"
        f" AND {after_sql} GROUP BY subject, bucket ORDER BY subject, bucket",
        [buckets, buckets, event_type, subject, subject, *users, *after],
        key=lambda row: row["subject"],
        rows_max=ROWS_MAX,
    )


def _check_subject_type(event_type: str) -> None:
    if event_type not in SUBJECTS:
        raise BadParameter(f"type: expected one of {', '.join(SUBJECTS)}")


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
    """Returns a page of events in the order of storing: newest first, or oldest first.

    With `after_id` it is oldest first. The answer's `next` continues it. Several types or users
    select events of any of them; an empty list selects all. `since_ns` is inclusive, `until_ns` is
    not.
    """
    types, users = _several(event_type), _several(user)
    direction = "DESC" if after_id is None else "ASC"
    conditions: list[tuple[str, Any]] = [
        ("e.ts_ns >= ?", since_ns),
        ("e.ts_ns < ?", until_ns),
        ("e.id < ?", before_id),
        ("e.id > ?", after_id),
    ]
    source, order = "event e", f"e.id {direction}"
    if users or types or since_ns is not None or until_ns is not None:
        source, order = _by_block(types, users), f"b.block {direction}, e.id {direction}"
        conditions += [
            ("b.last_ts_ns >= ?", since_ns),
            ("b.first_ts_ns < ?", until_ns),
            (f"b.block <= ? >> {BLOCK_BITS}", before_id),
            (f"b.block >= ? >> {BLOCK_BITS}", after_id),
        ]
    asked = [(sql, [value]) for sql, value in conditions if value is not None]
    if users:
        asked.append(sql.among("e.user", users))
    if types:
        among, names = sql.among("name", types)
        asked.append((f"e.type IN (SELECT id FROM event_type WHERE {among})", names))  # noqa: S608 - question marks only
    where = " AND ".join(sql for sql, _ in asked) or "1"
    # The ids are selected first, so that sorting a block reads only the rows of the page.
    ids = f"SELECT e.id FROM {source} WHERE {where} ORDER BY {order} LIMIT ?"  # noqa: S608 - question marks only
    values = [value for _, values in asked for value in values]
    rows = event_rows(connection, ids, [*values, limit + 1])
    if after_id is None:
        rows.reverse()
    more = len(rows) > limit
    rows = rows[:limit]
    return Answer(rows, rows[-1]["id"] if more else None)


def event_rows(connection: Connection, ids: str, values: list[Any]) -> list[Row]:
    """Returns the events whose ids a list or a SELECT gives, in order of their ids."""
    rows = sql.fetch_rows(
        connection,
        "SELECT e.id, e.ts_ns, (SELECT stored_ns FROM batch WHERE first_event <= e.id"  # noqa: S608 - question marks only
        " ORDER BY first_event DESC, batch.id DESC LIMIT 1) AS stored_ns, t.name AS type, e.user,"
        " p.uid || '-' || p.key AS producer, e.sequence, e.props"
        " FROM event e CROSS JOIN event_type t ON t.id = e.type"
        " CROSS JOIN producer p ON p.id = e.producer"
        f" WHERE e.id IN ({ids}) ORDER BY e.id",
        values,
    )
    for row in rows:
        row["props"] = unpack_props(row["props"])
    return rows


def _several(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _by_block(types: list[str], users: list[str]) -> str:
    """Returns the tables to join: the blocks, and the events by the index that suits the filter."""
    index = "INDEXED BY event_user" if users else "INDEXED BY event_type_id" if types else ""
    if index:
        # The plus removes the column's affinity, which would keep SQLite from using the index.
        here = f"(e.id >> {BLOCK_BITS}) = +b.block"
    else:
        index, first = "NOT INDEXED", f"b.block << {BLOCK_BITS}"
        here = f"e.id BETWEEN {first} AND ({first}) + {BLOCK_EVENTS - 1}"
    return f"event_block b CROSS JOIN event e {index} ON {here}"


def event_types(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the event types with their number of events, in each page the most frequent first.

    The pages are in the order of names, since the numbers change while events are stored.
    """
    after_sql, after = sql.after("name", key_after(parameters))
    parameters.done()
    page = sql.page(
        connection,
        f"SELECT name AS type, events FROM event_type WHERE {after_sql} ORDER BY name",  # noqa: S608 - question marks only
        after,
        key=lambda row: row["type"],
        rows_max=TYPES_MAX,
    )
    return Answer(sorted(page.rows, key=lambda row: -row["events"]), page.next)
