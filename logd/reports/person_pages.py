"""Reads what the trail holds about one person, a bounded page at a time.

`logd person` and the reports `person_...` both use these pages. Other persons are "(another)" in
them. A page that searches events examines a bounded number of them, so it may have few rows or
none; `next` is None only if nothing is left to search.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from logd.reports.event_queries import event_page
from logd.reports.readings import may_concern_anyone
from logd.reports.sql import fetch_rows
from logd.storage import stored_users
from logd.storage.database import Connection, in_parts, question_marks
from logd.storage.mention_bytes import may_have
from logd.storage.mentions import ANOTHER, PersonKeys
from logd.storage.senders import Person
from logd.storage.time_blocks import BLOCK_BITS
from logd_wire.query import Answer, Row
from logd_wire.schema import INT64_MAX, REPORT_READ
from logd_wire.wire import unpack_props

# What a page examines at most: the search for mentions unpacks the properties of every event.
EXAMINED_MAX = 50_000
EXAMINED_BYTES_MAX = 16 * 1024 * 1024
READINGS_EXAMINED_MAX = 10_000
SEARCH_S_MAX = 0.7  # much less than a report may take
# An export may copy the events of any user; its own event names no user.
EXPORT_STARTED = "trail_export_started"


@dataclass(frozen=True)
class Part:
    """The part of the trail that a page is of: ids after `after_id` and before `before_id`."""

    after_id: int = 0
    before_id: int = INT64_MAX
    newest_first: bool = True

    @property
    def lower(self) -> int | None:
        """The `after_id` of `event_page`, which is newest first without one."""
        return None if self.newest_first else self.after_id

    def rest(self, position: int) -> Part:
        """Returns what is left of the part once `position` is examined."""
        if self.newest_first:
            return Part(self.after_id, position)
        return Part(position, self.before_id, newest_first=False)


@dataclass(frozen=True)
class Reading:
    """The event of a reading, whether it names the person, and whether it is the person's own."""

    row: Row
    is_named: bool
    is_own: bool


class PersonPages:
    """The pages about one person.

    `others` are the uids of applications whose readings are about other persons with the same id.
    """

    def __init__(
        self,
        connection: Connection,
        person: Person,
        keys: PersonKeys,
        others: frozenset[int] = frozenset(),
    ) -> None:
        self.connection = connection
        self.person = person
        self._keys = keys
        self._others = others
        self._may_have = may_have(person.user)

    def spellings(self) -> list[str]:
        """Returns all spellings of the person's id; the id itself if the trail has none."""
        return list(stored_users.spellings(self.connection, self.person.user)) or [self.person.user]

    def events(self, users: list[str], part: Part, limit: int) -> Answer:
        """Returns the person's own events; `users` are spellings, as many as a statement takes."""
        page = event_page(
            self.connection,
            user=users,
            before_id=part.before_id,
            after_id=part.lower,
            limit=limit,
        )
        rows = [row for row in page.rows if self.person.is_of(sender(row))]
        return Answer([{**row, "props": self._shown(row)} for row in rows], page.next)

    def mentions(self, part: Part, limit: int) -> Answer:
        """Returns events of other users, or of none, that name the person."""
        found: list[int] = []
        position, is_left = self._search_mentions(part, limit, found)
        rows = [self._event(number) for number in found]
        kept = [row for row in rows if row is not None and self.person.is_of(sender(row))]
        return Answer([self._handed_over(row) for row in kept], position if is_left else None)

    def _search_mentions(self, part: Part, limit: int, found: list[int]) -> tuple[int, bool]:
        """Appends ids of events to `found`; returns the last id examined, and if more are left."""
        keys, is_named, may_have = self._keys, self.person.is_named, self._may_have
        order = "DESC" if part.newest_first else "ASC"
        until_s = time.monotonic() + SEARCH_S_MAX
        examined = size = position = 0
        with closing(
            self.connection.execute(
                "SELECT id, user, props FROM event WHERE id > ? AND id < ?"  # noqa: S608 - no data
                f" ORDER BY id {order} LIMIT ?",
                (part.after_id, part.before_id, EXAMINED_MAX + 1),
            )
        ) as rows:
            for number, user, props in rows:
                # The clock is read for every 256th event only.
                is_late = examined % 256 == 255 and time.monotonic() > until_s
                if len(found) == limit or examined == EXAMINED_MAX or is_late:
                    return position, True
                if size > EXAMINED_BYTES_MAX:
                    return position, True
                examined, size, position = examined + 1, size + len(props), number
                if not may_have(props) or (user is not None and is_named(user)):
                    continue
                if keys.may_name(props) and keys.mentions(props, is_named):
                    found.append(number)
        return position, False

    def _event(self, number: int) -> Row | None:
        """Returns one event; None if it was removed meanwhile."""
        page = event_page(self.connection, after_id=number - 1, before_id=number + 1, limit=1)
        return page.rows[0] if page.rows else None

    def readings(
        self, part: Part, limit: int, *, own: bool | None = None
    ) -> tuple[list[Reading], int | None]:
        """Returns readings and the position of the next page: all, the person's own, or others'.

        They name the person, or may be about anyone: totals, quarantine, exports.
        """
        found: list[Reading] = []
        until_s = time.monotonic() + SEARCH_S_MAX
        size = 0
        for examined, (number, props) in enumerate(self._stored_readings(part)):
            is_late = examined % 256 == 255 and time.monotonic() > until_s
            is_full = examined == READINGS_EXAMINED_MAX or size > EXAMINED_BYTES_MAX
            if len(found) == limit or is_full or is_late:
                return found, part_end(part)
            size, part = size + len(props), part.rest(number)
            if self._may_be_about(props):
                reading = self._reading(number)
                if reading is not None and own in (None, reading.is_own):
                    found.append(reading)
        return found, None

    def _stored_readings(self, part: Part) -> Iterator[tuple[int, bytes]]:
        """Yields the ids and properties of readings and exports, one more than a page examines."""
        after_id, rows_max, connection = part.after_id, READINGS_EXAMINED_MAX + 1, self.connection
        order = "DESC" if part.newest_first else "ASC"
        # The ids first, so that sorting a block reads no properties.
        ids = (
            "SELECT e.id FROM event_block b CROSS JOIN event e INDEXED BY event_type_id"  # noqa: S608 - no data
            f" ON (e.id >> {BLOCK_BITS}) = +b.block"
            " WHERE e.type IN (SELECT id FROM event_type WHERE name IN (?, ?))"
            f" AND b.block BETWEEN ? >> {BLOCK_BITS} AND ? >> {BLOCK_BITS}"
            f" AND e.id > ? AND e.id < ? ORDER BY b.block {order}, e.id {order} LIMIT ?"
        )
        ends = (after_id, part.before_id, after_id, part.before_id)
        with closing(
            connection.execute(
                f"SELECT id, props FROM event WHERE id IN ({ids}) ORDER BY id {order}",  # noqa: S608 - no data
                (REPORT_READ, EXPORT_STARTED, *ends, rows_max),
            )
        ) as rows:
            yield from rows

    def _may_be_about(self, props: bytes) -> bool:
        """Whether packed properties of a reading, or an export, may be about the person."""
        return self._may_have(props) or may_concern_anyone(unpack_props(props))

    def _reading(self, number: int) -> Reading | None:
        """Returns the reading that an event records, if it is or may be about the person."""
        row = self._event(number)
        # A reading by logd's own commands, or by root, may mean the person in any application.
        if row is None or row["props"].get("peer_uid") in self._others:
            return None
        is_named = any(map(self.person.is_named, self._keys.persons(row["props"])))
        is_export = row["type"] == EXPORT_STARTED
        if not (is_named or is_export or may_concern_anyone(row["props"])):
            return None
        is_own = row["user"] is not None and self.person.is_named(row["user"])
        return Reading({**row, "props": self._without_others(row)}, is_named, is_own)

    def rollups(self, users: list[str]) -> Iterator[Row]:
        """Yields the roll-ups of the person: days first, then tasks and quizzes."""
        for some in in_parts(users):
            yield from fetch_rows(self.connection, rollups_sql(some), [*some, *some])

    def handed_over(self, reading: Reading) -> Row:
        """Returns the event of a reading without the name of its reader."""
        return {**reading.row, "user": reading.row["user"] and ANOTHER}

    def _shown(self, row: Row) -> Row:
        return self._keys.without_others(row["props"], self.person.is_named)

    def _without_others(self, row: Row) -> dict[str, Any]:
        props = self._shown(row)
        if row["type"] == REPORT_READ:
            props = {name: _others_once(value) for name, value in props.items()}
        return props

    def _handed_over(self, row: Row) -> Row:
        """Returns another user's event, with the names of other persons replaced."""
        return {**row, "user": row["user"] and ANOTHER, "props": self._without_others(row)}


def part_end(part: Part) -> int:
    """Returns the id at which the search for the next page starts."""
    return part.before_id if part.newest_first else part.after_id


def sender(row: Row) -> int:
    """Returns the uid of an event's sender, determined as in `logd.storage.senders`."""
    asker = row["props"].get("peer_uid") if row["type"] == REPORT_READ else None
    return asker if type(asker) is int else int(row["producer"].split("-")[0])


def rollups_sql(users: list[str]) -> str:
    """Returns the SELECT of the roll-ups of some users, `part` being the day or the subject."""
    among = question_marks(users)
    return (
        "SELECT 'day' AS kind, t.name AS type, printf('%08d', r.day) AS part, r.user AS user,"  # noqa: S608 - question marks only
        " r.day AS day, NULL AS subject, r.events AS events, NULL AS first_ts_ns,"
        " NULL AS last_ts_ns, NULL AS last_value, NULL AS best_value"
        f" FROM rollup_day r JOIN event_type t ON t.id = r.type WHERE r.user IN ({among})"
        " UNION ALL SELECT 'subject', t.name, r.subject, r.user, NULL, r.subject, r.events,"
        " r.first_ts_ns, r.last_ts_ns, r.last_value, r.best_value"
        f" FROM rollup_subject r JOIN event_type t ON t.id = r.type WHERE r.user IN ({among})"
        " ORDER BY kind, type, part, user"
    )


def _others_once(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _others_once(item) for name, item in value.items()}
    if isinstance(value, list):
        kept = [item for item in value if item != ANOTHER]
        return kept if len(kept) == len(value) else [*kept, ANOTHER]
    return value
