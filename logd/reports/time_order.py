"""Finds events in order of time (`ts_ns`, then id), from the latest on.

Outboxes are read in any order, so events are not stored in order of time. Blocks are opened from
the one with the latest time on, and only while they may hold a later event than those at hand. In
an open block the indexes are in order of type and time, or of user: a wrong clock, in every block,
costs a look into each block and type, never a scan of all events.

Where properties decide, only those parts of a block are read that may have such an event
(`block_lookup`): as a whole, since that is much faster than in order of time, unless they are so
many that a page is full sooner.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from logd.reports.block_lookup import BlockLookup, Parts
from logd.reports.event_filter import Content, EventFilter
from logd.reports.parameters import BadParameter, Parameters
from logd.reports.sql import among
from logd.storage.block_values import PART_BITS, PARTS
from logd.storage.database import Connection, in_parts, question_marks
from logd.storage.mentions import DEFAULT_KEYS, PersonKeys
from logd.storage.time_blocks import BLOCK_BITS
from logd_wire.schema import INT64_MAX

# How many events are examined at once: few at first, since a page may be full with these.
EXAMINED_MIN, EXAMINED_MAX = 64, 256
# The most types of a block that are read side by side; of a block with more, all events are sorted.
TYPES_MERGED_MAX = 64
# Of a block with more parts to read, the events are examined in order of time.
COMMON_PARTS = 24
# Bytes of properties that are read before it is asked whether there is time left.
READ_BYTES = 256 * 1024
# Events of types of fewer than one in so many are found by the index of types.
RARE = 8

_IN_BLOCK = f"(e.id >> {BLOCK_BITS}) = :block"
# Selects the types of the events in a block, each by one seek in the index.
_TYPES_OF_BLOCK = f"""
    WITH RECURSIVE here (type) AS (
        SELECT min(e.type) FROM event e INDEXED BY event_type_id WHERE {_IN_BLOCK}
        UNION ALL SELECT (SELECT min(e.type) FROM event e INDEXED BY event_type_id
            WHERE {_IN_BLOCK} AND e.type > here.type) FROM here WHERE type IS NOT NULL)
    SELECT type FROM here WHERE type IS NOT NULL"""  # noqa: S608 - no data in it
_IN_TIME = "e.ts_ns BETWEEN :since AND :ts AND (e.ts_ns < :ts OR e.id < :id)"


class Position(NamedTuple):
    """An event's position in order of time."""

    ts_ns: int
    id: int


class Found(NamedTuple):
    """An event that matches."""

    ts_ns: int
    id: int
    type: int


END = Position(INT64_MAX, INT64_MAX)


def position(connection: Connection, parameters: Parameters) -> Position:
    """Takes `before_id` and `before_ns`, the position before which a page ends; END if not given.

    The time is needed if no event has that id: it was removed since, or the page before ended
    between two events.
    """
    before_id = parameters.maybe_whole("before_id")
    before_ns = parameters.maybe_whole("before_ns")
    if before_id is None:
        if before_ns is not None:
            raise BadParameter("before_ns: only together with before_id")
        return END
    if before_ns is not None:
        return Position(before_ns, before_id)
    found = connection.execute("SELECT ts_ns FROM event WHERE id = ?", (before_id,)).fetchone()
    if found is None:
        raise BadParameter(
            f"before_id: event {before_id} is not there (removed since?). Also pass its ts_ns (or"
            " searched_to_ns of the page before) as before_ns, or start with the newest page again"
        )
    return Position(found[0], before_id)


class _Candidate(NamedTuple):
    """An event in an open block, in the order of a heap: the latest first."""

    minus_ts_ns: int
    minus_id: int
    type: int
    matches: bool  # False if its properties decide, and are not read yet
    rest: Iterator[tuple[int, int, int]]  # the events after it, of the same source


class Search:
    """Yields the events that match, the latest first, until it has none left or has to stop.

    It stops after `time_s`; `reached` is then the position from which another search continues,
    and None if everything was searched. Without `time_s` it does not stop. `every` is for a caller
    that takes all there is time for, not only a few.
    """

    def __init__(
        self,
        connection: Connection,
        wanted: EventFilter,
        keys: PersonKeys = DEFAULT_KEYS,
        *,
        before: Position = END,
        time_s: float | None = None,
        every: bool = False,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if wanted.until_ns is not None and wanted.until_ns <= before.ts_ns:
            before = Position(wanted.until_ns - 1, INT64_MAX)
        self.reached: Position | None = None
        self._connection = connection
        self._before = before
        self._since_ns = wanted.since_ns or 0
        self._wanted = wanted
        self._monotonic_s = monotonic_s
        self._end_s = None if time_s is None else monotonic_s() + time_s
        self._types = type_ids(connection, wanted)
        self._are_rare = _are_rare(connection, self._types)
        self._content: Content | None = None
        if wanted.reads_props:
            names = connection.execute("SELECT id, name FROM event_type") if wanted.text else ()
            self._content = Content(wanted, keys, dict(names))
            self._lookup = BlockLookup(connection, wanted, keys)
        self._common_parts = PARTS if every else COMMON_PARTS
        self._open: list[_Candidate] = []

    def __iter__(self) -> Iterator[Found]:
        if self._types != [] and self._wanted.users != ():
            try:
                yield from self._found()
            finally:
                self._open.clear()  # ends the statements

    def _found(self) -> Iterator[Found]:
        blocks = self._blocks()
        block = next(blocks, None)
        size = EXAMINED_MIN
        while True:
            while block is not None and (not self._open or block[1] >= -self._open[0].minus_ts_ns):
                if self._must_stop(block[1]) or not self._open_block(*block):
                    return
                block = next(blocks, None)
            if not self._open or self._must_stop(None):
                return
            yield from self._matching(self._next(size, -1 if block is None else block[1]))
            size = min(2 * size, EXAMINED_MAX)

    @property
    def _is_late(self) -> bool:
        return self._end_s is not None and self._monotonic_s() >= self._end_s

    def _must_stop(self, block_ns: int | None) -> bool:
        """Whether to stop before what is next: a block, or an event; never where it began."""
        if not self._is_late:
            return False
        at = Position(-1, 0)
        if self._open:
            first = self._open[0]
            at = Position(-first.minus_ts_ns, 1 - first.minus_id)
        if block_ns is not None:
            at = max(at, Position(block_ns, INT64_MAX))
        if at >= self._before:
            return False
        self.reached = at
        return True

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Returns the blocks that may hold such events, each with the latest time of these."""
        before_ns = self._before.ts_ns
        rows = self._connection.execute(
            "SELECT block, min(last_ts_ns, ?) FROM event_block WHERE first_ts_ns <= ?"
            " AND last_ts_ns >= ? ORDER BY min(last_ts_ns, ?) DESC, block DESC",
            (before_ns, before_ns, self._since_ns, before_ns),
        )
        return iter(rows.fetchall())

    def _open_block(self, block: int, block_ns: int) -> bool:
        """Opens a block; False if the search has to stop before it."""
        values = {
            "block": block, "since": self._since_ns, "ts": self._before.ts_ns,
            "id": self._before.id,
        }  # fmt: skip
        parts = None if self._content is None else self._lookup.parts(block)
        if parts is not None and not parts.mask and parts.last >= _last_of(block):
            return True
        if self._content is not None and self._is_read_whole(block, parts):
            found = self._read(values, parts, block_ns)
            if found is not None:
                self._push(iter(found), matches=True)
            return found is not None
        for source in self._by_index(values):
            if parts is not None:
                source = (event for event in source if _is_in(parts, event[1]))
            self._push(source, matches=self._content is None)
        return True

    def _is_read_whole(self, block: int, parts: Parts | None) -> bool:
        """Whether to read all that may match in a block at once: not if its indexes are faster.

        A search that is late needs any event to go on from, and finds that by the indexes.
        """
        if self._wanted.users is not None or self._are_rare or self._is_late:
            return False
        if parts is None:
            return True
        known = (parts.last + 1 - (block << BLOCK_BITS)) >> PART_BITS
        return parts.mask.bit_count() * PARTS <= known * self._common_parts

    def _push(self, source: Iterator[tuple[int, int, int]], *, matches: bool) -> None:
        first = next(source, None)
        if first is not None:
            candidate = _Candidate(-first[0], -first[1], first[2], matches, source)
            heapq.heappush(self._open, candidate)

    def _read(
        self, values: dict[str, Any], parts: Parts | None, block_ns: int
    ) -> list[tuple[int, int, int]] | None:
        """Returns the events that match, by reading all parts in which they may be.

        None if the search has to stop meanwhile.
        """
        assert self._content is not None
        types = None if self._types is None else frozenset(self._types)
        matches = self._content.matches
        found: list[tuple[int, int, int]] = []
        size = 0
        for first, last in _ranges(values["block"], parts):
            rows = self._connection.execute(
                "SELECT e.ts_ns, e.id, e.type, e.props, length(e.props) FROM event e NOT INDEXED"  # noqa: S608 - no data in it
                f" WHERE e.id BETWEEN :first AND :last AND {_IN_TIME}",
                values | {"first": first, "last": last},
            )
            for ts_ns, number, kind, props, length in rows:
                if (types is None or kind in types) and matches(kind, props):
                    found.append((ts_ns, number, kind))
                size += length
                if size > READ_BYTES:
                    size = 0
                    if self._must_stop(block_ns):
                        return None
        return sorted(found, reverse=True)

    def _by_index(self, values: dict[str, Any]) -> Iterator[Iterator[tuple[int, int, int]]]:
        """Yields iterators over the block's events of the wanted types and users, by time."""
        if self._wanted.users is not None:
            yield self._by_user(values)
            return
        types = self._types
        if types is None or len(types) > 1:
            here = [number for (number,) in self._connection.execute(_TYPES_OF_BLOCK, values)]
            types = here if types is None else sorted(set(here).intersection(types))
        if len(types) > TYPES_MERGED_MAX:
            every = (list(self._by_type(values, one)) for one in types)
            yield heapq.merge(*every, reverse=True)
            return
        for one in types:
            yield self._by_type(values, one)

    def _by_type(self, values: dict[str, Any], event_type: int) -> Iterator[tuple[int, int, int]]:
        return iter(
            self._connection.execute(
                "SELECT e.ts_ns, e.id, e.type FROM event e INDEXED BY event_type_id"  # noqa: S608 - no data in it
                f" WHERE {_IN_BLOCK} AND e.type = :type AND {_IN_TIME}"
                " ORDER BY e.ts_ns DESC, e.id DESC",
                values | {"type": event_type},
            )
        )

    def _by_user(self, values: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
        found: list[tuple[int, int, int]] = []
        types = self._types
        # The index has the types too. Too many for a statement are left out afterwards.
        listed = [] if types is None or len(types) > TYPES_MERGED_MAX else types
        for part in in_parts(self._wanted.users or ()):
            names = {f"u{number}": user for number, user in enumerate(part)}
            kinds = {f"t{number}": kind for number, kind in enumerate(listed)}
            only = f" AND e.type IN ({_marks(kinds)})" if kinds else ""
            rows = self._connection.execute(
                "SELECT e.ts_ns, e.id, e.type FROM event e INDEXED BY event_user"  # noqa: S608 - no data in it
                f" WHERE {_IN_BLOCK} AND e.user IN ({_marks(names)}){only} AND {_IN_TIME}",
                values | names | kinds,
            )
            found += rows if types is None or kinds else [row for row in rows if row[2] in types]
        found.sort(reverse=True)
        return iter(found)

    def _next(self, size: int, block_ns: int) -> list[_Candidate]:
        """Takes up to `size` events that are later than any of a block that is not open."""
        taken: list[_Candidate] = []
        heap = self._open
        while heap and len(taken) < size and -heap[0].minus_ts_ns > block_ns:
            first = heap[0]
            taken.append(first)
            after = next(first.rest, None)
            if after is None:
                heapq.heappop(heap)
            else:
                candidate = _Candidate(-after[0], -after[1], after[2], first.matches, first.rest)
                heapq.heapreplace(heap, candidate)
        return taken

    def _matching(self, events: list[_Candidate]) -> Iterator[Found]:
        ids = [-event.minus_id for event in events if not event.matches]
        props = {}
        if self._content is not None and ids:
            props = dict(
                self._connection.execute(
                    f"SELECT id, props FROM event WHERE id IN ({question_marks(ids)})",  # noqa: S608 - question marks only
                    ids,
                )
            )
        for event in events:
            found = Found(-event.minus_ts_ns, -event.minus_id, event.type)
            if event.matches or (
                self._content is not None and self._content.matches(found.type, props[found.id])
            ):
                yield found


def _marks(names: Iterable[str]) -> str:
    return ", ".join(f":{name}" for name in names)


def _last_of(block: int) -> int:
    return ((block + 1) << BLOCK_BITS) - 1


def _is_in(parts: Parts, event_id: int) -> bool:
    return event_id > parts.last or bool(parts.mask >> ((event_id >> PART_BITS) % PARTS) & 1)


def _ranges(block: int, parts: Parts | None) -> Iterator[tuple[int, int]]:
    """Yields the first and the last id of each run of events to read."""
    start, first = block << BLOCK_BITS, 0
    wanted = [
        # What is past the last known event is read in any case.
        parts is None or parts.mask >> number & 1 or end > parts.last + 1
        for number in range(PARTS)
        for end in (start + ((number + 1) << PART_BITS),)
    ]
    for number in range(1, PARTS + 1):
        if wanted[first] and (number == PARTS or not wanted[number]):
            yield start + (first << PART_BITS), start + (number << PART_BITS) - 1
            first = number
        elif not wanted[first]:
            first = number


def type_ids(connection: Connection, wanted: EventFilter) -> list[int] | None:
    if wanted.types is None:
        return None
    found: list[int] = []
    for part in in_parts(sorted(wanted.types)):
        condition, names = among("name", part)
        rows = connection.execute(f"SELECT id FROM event_type WHERE {condition}", names)  # noqa: S608 - question marks only
        found += [number for (number,) in rows]
    return found


def _are_rare(connection: Connection, types: list[int] | None) -> bool:
    if types is None:
        return False
    counts = dict(connection.execute("SELECT id, events FROM event_type"))
    return bool(sum(counts[number] for number in types) * RARE < sum(counts.values()))
