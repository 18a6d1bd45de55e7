"""Finds when the events of a block were stored, for a job that reads all blocks.

The order of storing is certain, but the recorded times are not: a daemon's clock may have been
wrong. An event was stored no later than any later batch, so an implausible time is replaced by the
next plausible one.
"""

from __future__ import annotations

from collections.abc import Iterator

from logd.clock import event_age
from logd.clock.readings import EARLIEST_NS
from logd.storage.database import Connection
from logd.storage.time_blocks import BLOCK_BITS, BLOCK_EVENTS

_BATCHES_PER_READ = 20_000


def ids_of(block: int) -> range:
    """Returns the ids of a block's events."""
    return range(block << BLOCK_BITS, (block << BLOCK_BITS) + BLOCK_EVENTS)


class StoredTimes:
    """The period in which each block was stored, found by two look-ups in the table of batches."""

    def __init__(self, connection: Connection, now_ns: int) -> None:
        self._connection = connection
        # Earliest and latest plausible time, both included.
        self.plausible_ns = EARLIEST_NS, now_ns + event_age.AHEAD_MAX_NS
        self._now_ns = now_ns
        self._bounds: dict[int, tuple[int | None, int]] = {}
        self._batch = range(0), 0  # the batch used last: its event ids, and when it was stored
        # Batches of which only the last one has a plausible time, and that time.
        self._skipped, self._next_plausible_ns = range(0), now_ns

    def survey(self) -> Iterator[None]:
        """Finds the periods of all blocks, in bounded steps."""
        block = -1
        while row := self._connection.execute(
            "SELECT block FROM event_block WHERE block > ? ORDER BY block LIMIT 1", (block,)
        ).fetchone():
            (block,) = row
            yield from self._find_bounds(block)
            yield

    def bounds(self, block: int) -> tuple[int | None, int]:
        """Returns the earliest and latest time at which the block's events may have been stored.

        The earliest is None if unknown.
        """
        if block not in self._bounds:
            for _ in self._find_bounds(block):
                pass
        return self._bounds[block]

    def of(self, event_id: int) -> int:
        """Returns the latest time at which the event may have been stored."""
        _, to_ns = self.bounds(event_id >> BLOCK_BITS)
        ids, stored_ns = self._batch
        if event_id not in ids:
            first, events, stored_ns = self._connection.execute(
                "SELECT first_event, events, stored_ns FROM batch WHERE first_event <= ?"
                " ORDER BY first_event DESC, id DESC LIMIT 1",
                (event_id,),
            ).fetchone()
            self._batch = range(first, first + events), stored_ns
        return min(stored_ns, to_ns) if self._is_plausible(stored_ns) else to_ns

    def _is_plausible(self, stored_ns: int) -> bool:
        return self.plausible_ns[0] <= stored_ns <= self.plausible_ns[1]

    def _find_bounds(self, block: int) -> Iterator[None]:
        query, ids = self._connection.execute, ids_of(block)
        first = query(
            "SELECT stored_ns FROM batch WHERE first_event <= ?"
            " ORDER BY first_event DESC, id DESC LIMIT 1",
            (max(1, ids.start),),
        ).fetchone()
        from_ns = first[0] if first and self._is_plausible(first[0]) else None
        later = query(
            "SELECT id FROM batch WHERE first_event >= ? ORDER BY first_event, id LIMIT 1",
            (ids.stop,),
        ).fetchone()
        to_ns = self._now_ns
        if later is not None:
            yield from self._find_plausible(later[0])
            to_ns = self._next_plausible_ns
        self._bounds[block] = from_ns, to_ns

    def _find_plausible(self, batch: int) -> Iterator[None]:
        if batch in self._skipped:
            return
        start, (last,) = batch, self._connection.execute("SELECT max(id) FROM batch").fetchone()
        while start <= last:
            stop = start + _BATCHES_PER_READ
            found = self._connection.execute(
                "SELECT id, stored_ns FROM batch WHERE id >= ? AND id < ?"
                " AND stored_ns BETWEEN ? AND ? ORDER BY id LIMIT 1",
                (start, stop, *self.plausible_ns),
            ).fetchone()
            if found:
                self._skipped, self._next_plausible_ns = range(batch, found[0] + 1), found[1]
                return
            start = stop
            yield
        self._skipped, self._next_plausible_ns = range(batch, last + 1), self._now_ns
