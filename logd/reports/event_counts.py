"""Counts the events that a filter selects, of each type or on each day."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from logd.reports.event_filter import EventFilter
from logd.reports.parameters import BadParameter, Parameters
from logd.reports.time_order import Found, Search, type_ids
from logd.storage.database import Connection, question_marks
from logd.storage.mentions import PersonKeys
from logd.storage.rollups import DAY_NS
from logd_wire.query import Answer, Row
from logd_wire.schema import INT64_MAX
from logd_wire.wire import unpack_props

# The persons of a figure that counts fewer are listed in the reading.
PERSONS_MIN = 5
COUNT_S = 0.06  # seconds that counting may take
ADDED_AT_ONCE = 256
# Users in one statement; of more, the roll-ups of a day are read for each part of them.
USERS_AT_ONCE = 500


@dataclass(frozen=True)
class Counted(Answer):
    """Figures, with the persons of those that count fewer than PERSONS_MIN."""

    few: frozenset[str] = frozenset()


@dataclass
class _Figure:
    events: int = 0
    persons: set[str] | None = field(default_factory=set)  # None once there are PERSONS_MIN

    def add(self, events: int, persons: Iterable[str]) -> None:
        self.events += events
        if self.persons is not None:
            self.persons.update(persons)
            if len(self.persons) >= PERSONS_MIN:
                self.persons = None


def event_counts(connection: Connection, parameters: Parameters) -> Answer:
    """Reports how many events a filter selects, of each type or on each day."""
    by = parameters.text("by", "type")
    wanted = EventFilter.of(parameters)
    parameters.done()
    if by not in ("type", "day"):
        raise BadParameter("by: expected type or day")
    return _Counting(
        connection, wanted, parameters.context.person_keys, by_day=by == "day"
    ).answer()


class _Counting:
    """Counts from the latest event on, until all are counted or the time is up.

    Whole days come from the roll-ups, unless properties decide which events are counted.
    """

    def __init__(
        self, connection: Connection, wanted: EventFilter, keys: PersonKeys, *, by_day: bool
    ) -> None:
        self._connection = connection
        self._wanted = wanted
        self._keys = keys
        self._by_day = by_day
        self._end_s = time.monotonic() + COUNT_S
        self._figures: defaultdict[int, _Figure] = defaultdict(_Figure)
        self._types = type_ids(connection, wanted)
        self._text = None if wanted.text is None else wanted.text.casefold()

    def answer(self) -> Answer:
        """Returns the figures, and from which time on they count."""
        to_ns = self._count()
        names = dict(self._connection.execute("SELECT id, name FROM event_type"))
        counted = [(key, figure) for key, figure in self._figures.items() if figure.events]
        rows: list[Row]
        if self._by_day:
            rows = [
                {"type": None, "day": day, "events": figure.events}
                for day, figure in sorted(counted, reverse=True, key=lambda one: one[0])
            ]
        else:
            rows = [
                {"type": names[number], "day": None, "events": figure.events}
                for number, figure in sorted(counted, key=lambda one: (-one[1].events, one[0]))
            ]
        few = {person for figure in self._figures.values() for person in figure.persons or ()}
        return Counted(rows, searched_to_ns=to_ns, few=frozenset(few))

    def _count(self) -> int | None:
        """Counts; returns the time from which on it has, and None if it has counted all."""
        wanted = self._wanted
        since_ns, until_ns = wanted.since_ns or 0, wanted.until_ns
        if wanted.reads_props:
            return self._count_found(wanted)
        if not (self._by_day or since_ns or until_ns is not None or wanted.users is not None):
            return self._count_types()
        first = -(-since_ns // DAY_NS)
        end = INT64_MAX // DAY_NS + 1 if until_ns is None else until_ns // DAY_NS
        if first >= end:
            return self._count_found(wanted)
        to_ns = None
        if until_ns is not None and until_ns % DAY_NS:
            to_ns = self._count_found(replace(wanted, since_ns=end * DAY_NS))
        if to_ns is None:
            to_ns = self._count_days(first, end)
        if to_ns is None and since_ns % DAY_NS:
            to_ns = self._count_found(replace(wanted, until_ns=first * DAY_NS))
        return to_ns

    def _count_types(self) -> int | None:
        counts = self._connection.execute("SELECT id, events FROM event_type").fetchall()
        for number, events in counts:
            if self._types is None or number in self._types:
                users = self._connection.execute(
                    "SELECT DISTINCT user FROM rollup_day WHERE type = ? AND user <> '' LIMIT ?",
                    (number, PERSONS_MIN),
                )
                self._figures[number].add(events, (user for (user,) in users))
        return None

    def _count_days(self, first: int, end: int) -> int | None:
        """Counts whole days from the roll-ups, the latest first."""
        types = self._types
        if types is None:
            every = self._connection.execute("SELECT id FROM event_type").fetchall()
            types = [number for (number,) in every]
        # The latest day of each type that is not counted yet.
        heap = [(-day, number) for number in types if (day := self._day(number, end)) >= first]
        heapq.heapify(heap)
        counted = end
        while heap:
            day, number = -heap[0][0], heap[0][1]
            if day < counted < end and time.monotonic() >= self._end_s:
                return counted * DAY_NS
            counted = day
            self._count_day(number, day)
            before = self._day(number, day)
            if before >= first:
                heapq.heapreplace(heap, (-before, number))
            else:
                heapq.heappop(heap)
        return None

    def _day(self, number: int, before: int) -> int:
        """Returns the latest day of a type before another; -1 if there is none."""
        (day,) = self._connection.execute(
            "SELECT max(day) FROM rollup_day WHERE type = ? AND day < ?", (number, before)
        ).fetchone()
        return -1 if day is None else int(day)

    def _count_day(self, number: int, day: int) -> None:
        figure = self._figures[day if self._by_day else number]
        here, values = "FROM rollup_day WHERE type = ? AND day = ?", [number, day]
        users = self._wanted.users
        for start in range(0, 1 if users is None else len(users), USERS_AT_ONCE):
            among: tuple[Any, ...] = () if users is None else users[start : start + USERS_AT_ONCE]
            only = f" AND user IN ({question_marks(among)})" if among else ""
            (events,) = self._connection.execute(
                f"SELECT coalesce(sum(events), 0) {here}{only}",
                [*values, *among],
            ).fetchone()
            figure.add(events, ())
        if users is None and figure.persons is not None:
            found = self._connection.execute(
                f"SELECT user {here} AND user <> '' LIMIT ?",
                [*values, PERSONS_MIN],
            )
            figure.add(0, (user for (user,) in found))

    def _count_found(self, wanted: EventFilter) -> int | None:
        """Counts by a search: of what it has found, what is later than where it stopped."""
        left_s = max(0.0, self._end_s - time.monotonic())
        search = Search(self._connection, wanted, self._keys, time_s=left_s, every=True)
        found = list(search)  # as many as there is time for
        reached = search.reached
        if reached is not None:
            found = [event for event in found if event.ts_ns > reached.ts_ns]
        for start in range(0, len(found), ADDED_AT_ONCE):
            events = found[start : start + ADDED_AT_ONCE]
            persons = self._persons(events)
            for event in events:
                self._figures[self._key(event)].add(1, persons.get(event.id, ()))
        return None if reached is None else reached.ts_ns + 1

    def _persons(self, events: list[Found]) -> dict[int, set[str]]:
        """Returns whom events of figures of few persons depend on.

        That is the user, unless the question lists the users, and whoever is mentioned in a place
        where a sought text was found.
        """
        of_few = [e.id for e in events if self._figures[self._key(e)].persons is not None]
        if not of_few or (self._wanted.users is not None and self._text is None):
            return {}
        rows = self._connection.execute(
            f"SELECT id, user, props FROM event WHERE id IN ({question_marks(of_few)})",  # noqa: S608 - question marks only
            of_few,
        )
        return {
            number: ({user} if user is not None else set()) | self._mentioned(props)
            for number, user, props in rows
        }

    def _mentioned(self, props: bytes) -> set[str]:
        if self._text is None:
            return set()
        found = self._keys.persons(unpack_props(props))
        return {person for person in found if self._text in person.casefold()}

    def _key(self, event: Found) -> int:
        return event.ts_ns // DAY_NS if self._by_day else event.type
