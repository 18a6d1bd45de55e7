"""Reports of all that the trail holds about one person, each a bounded page.

They are what `logd person` prints, for a site that shows its users their own data. If the process
that asks belongs to an application of logd.toml (apps), they are limited to what that application
has logged, and have no roll-ups, which are kept for all applications together.
"""

from __future__ import annotations

import msgpack

from logd.clock.event_age import is_plausible
from logd.config import retention
from logd.reports import sql
from logd.reports.parameters import (
    BadParameter,
    Parameters,
    key_after,
    keys_after,
    page_bounds,
    page_limit,
)
from logd.reports.person_pages import Part, PersonPages, rollups_sql
from logd.storage.database import Connection, question_marks
from logd.storage.senders import Person
from logd_wire.query import ROWS_MAX, Answer, QueryError
from logd_wire.schema import INT64_MAX

# The most spellings of one id: a person has one or a few, a hostile client may invent any number.
SPELLINGS_MAX = 400
PROPS_BYTES_MAX = 2 * 1024 * 1024
_READERS = {"anyone": None, "others": False, "self": True}


def person_events(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the events of one person, in any spelling of the id, the last stored first."""
    pages, part, limit = _page_of(connection, parameters)
    parameters.done()
    return _fitting(pages.events(_spellings(pages), part, limit))


def person_mentions(connection: Connection, parameters: Parameters) -> Answer:
    """Reports events of others that name one person, the last stored first."""
    pages, part, limit = _page_of(connection, parameters)
    parameters.done()
    return _fitting(pages.mentions(part, limit))


def person_readings(connection: Connection, parameters: Parameters) -> Answer:
    """Reports who read about one person, the last stored reading first."""
    pages, part, limit = _page_of(connection, parameters)
    by = parameters.text("by", "anyone")
    parameters.done()
    if by not in _READERS:
        raise BadParameter(f"by: expected one of {', '.join(_READERS)}")
    found, position = pages.readings(part, limit, own=_READERS[by])
    rows = []
    for reading in found:
        row = reading.row
        told = {name: row[name] for name in ("id", "ts_ns", "stored_ns", "type")}
        told |= {"reader": row["user"], "named": reading.is_named, "own": reading.is_own}
        rows.append({**told, "props": row["props"]})
    return _fitting(Answer(rows, position), marked=False)


def person_totals(connection: Connection, parameters: Parameters) -> Answer:
    """Reports how many events of each type one person has, when, and how long they are kept."""
    pages = _pages(connection, parameters)
    after_sql, after = sql.after("t.name", key_after(parameters))
    parameters.done()
    users = _rollup_users(pages)
    page = sql.page(
        connection,
        "SELECT t.name AS type, sum(r.events) AS events, min(r.day) AS first_day,"  # noqa: S608 - question marks only
        " max(r.day) AS last_day FROM rollup_day r JOIN event_type t ON t.id = r.type"
        f" WHERE r.user IN ({question_marks(users)}) AND {after_sql}"
        " GROUP BY t.name ORDER BY t.name",
        [*users, *after],
        key=lambda row: row["type"],
        rows_max=ROWS_MAX,
    )
    periods = retention.periods(parameters.context.retention)
    return Answer([{**row, "kept_ns": periods.get(row["type"])} for row in page.rows], page.next)


def person_rollups(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the roll-ups of one person: events by day, and the state of each task and quiz."""
    pages = _pages(connection, parameters)
    after_sql, after = sql.after("kind, type, part, user", keys_after(parameters, 4))
    parameters.done()
    users = _rollup_users(pages)
    return sql.page(
        connection,
        f"SELECT * FROM ({rollups_sql(users)}) WHERE {after_sql}"  # noqa: S608 - question marks only
        " ORDER BY kind, type, part, user",
        [*users, *users, *after],
        key=lambda row: [row["kind"], row["type"], row["part"], row["user"]],
        rows_max=ROWS_MAX,
    )


def copies(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the known copies of the trail, backups and exports, the last made first."""
    before, limit = page_bounds(parameters)
    parameters.done()
    return sql.page(
        connection,
        "SELECT id, kind, place, made_ns, expires_ns FROM copy WHERE id < ? ORDER BY id DESC",
        [INT64_MAX if before is None else before],
        key=lambda row: row["id"],
        rows_max=limit,
    )


def _pages(connection: Connection, parameters: Parameters) -> PersonPages:
    context = parameters.context
    person = Person(parameters.text("user"), context.senders)
    return PersonPages(connection, person, context.person_keys, context.others)


def _page_of(connection: Connection, parameters: Parameters) -> tuple[PersonPages, Part, int]:
    pages = _pages(connection, parameters)
    before_id = parameters.maybe_whole("before_id")
    part = Part(before_id=INT64_MAX if before_id is None else before_id)
    return pages, part, page_limit(parameters)


def _spellings(pages: PersonPages) -> list[str]:
    found = pages.spellings()
    if len(found) > SPELLINGS_MAX:
        raise QueryError("too_large", f"over {SPELLINGS_MAX} spellings of this id: use logd person")
    return found


def _rollup_users(pages: PersonPages) -> list[str]:
    return [] if pages.person.uids is not None else _spellings(pages)


def _fitting(answer: Answer, *, marked: bool = True) -> Answer:
    """Returns the first rows, as many as fit into a response; of events, marks doubtful times."""
    sizes = (len(msgpack.packb(row["props"])) for row in answer.rows)
    rows = answer.rows[: sql.fitting(sizes, PROPS_BYTES_MAX)]
    if marked:
        for row in rows:
            row["time_in_doubt"] = not is_plausible(row["ts_ns"], row["stored_ns"])
    return answer if len(rows) == len(answer.rows) else Answer(rows, rows[-1]["id"])
