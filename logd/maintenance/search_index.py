"""Keeps the values of blocks, by which searches skip what they need not read, up to date.

The daemon calls `step` between its steps when no job runs. A block is read a part at a time, the
newest block first, since searches begin there. Nothing of this is in a commit of events.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from logd.errors import StorageBusy
from logd.storage import block_values, event_types
from logd.storage.block_values import PART_BITS, BlockValues
from logd.storage.database import Connection, DatabaseError
from logd.storage.store import Store
from logd.storage.time_blocks import BLOCK_BITS, BLOCK_EVENTS

# The share of one processor core that indexing takes while there are events to index.
SHARE = 0.05
# The number of new events after which the newest block is written again.
NEW_EVENTS = 2048
IDLE_S = 2.0
RETRY_S = 5.0

_log = logging.getLogger("logd")


class SearchIndex:
    """Reads one block after the other; `due_s` is the monotonic time of the next step."""

    def __init__(
        self,
        store: Store,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock_ns = clock_ns
        self._monotonic_s = monotonic_s
        # Those of the configuration, as reports use them: a `forget` may add others.
        self._keys = store.person_keys
        self._types: dict[int, str] = {}
        self._block: int | None = None
        self._values = BlockValues(self._keys)
        self._next = 0  # the event of the block to read next
        self._is_written = True
        self._removals = -1
        self.due_s = 0.0

    def step(self) -> None:
        """Reads a part of a block, or writes the block, then rests. Raises a LogdError."""
        began_s = self._monotonic_s()
        try:
            worked = self.work()
        except StorageBusy:
            self.due_s = began_s + RETRY_S
            return
        except DatabaseError as error:
            raise self._store.problem(error) from error
        except (TypeError, ValueError, AttributeError, LookupError) as problem:
            # The daemon never writes such values.
            _log.error(
                "searches will read all events: stored data was changed (%s); see logd verify",
                type(problem).__name__,
            )
            self.due_s = float("inf")
            return
        ended_s = self._monotonic_s()
        self.due_s = ended_s + ((ended_s - began_s) * (1 / SHARE - 1) if worked else IDLE_S)

    def work(self) -> bool:
        """Does a step of work; returns whether there was anything to do."""
        connection = self._store.connection
        (removals,) = connection.execute("SELECT coalesce(max(id), 0) FROM removal").fetchone()
        if removals != self._removals:
            self._removals, self._block = removals, None  # what was read may be removed
        if self._block is None or self._is_written:
            block = self._find_block()
            if block is None:
                return False
            if block != self._block:
                self._block, self._next = block, block << BLOCK_BITS
                self._values = BlockValues(self._keys)
            self._is_written = False
        # Of the newest block only whole parts.
        end = min((self._block + 1) << BLOCK_BITS, self._store.next_event)
        end -= end % (1 << PART_BITS)
        if self._next < end:
            self._read(end)
        else:
            self._write(self._block)
        return True

    def _find_block(self) -> int | None:
        """Returns the newest block that is not read, or has enough events that are not."""
        found = self._store.connection.execute(
            "SELECT b.block FROM event_block b LEFT JOIN block_search s ON s.block = b.block"  # noqa: S608 - no data in it
            f" WHERE s.block IS NULL OR s.keys <> ? OR s.last < min(?, (b.block << {BLOCK_BITS})"
            f" + {BLOCK_EVENTS - 1}) ORDER BY b.block DESC LIMIT 1",
            (block_values.names_of(self._keys), self._store.next_event - NEW_EVENTS),
        ).fetchone()
        return None if found is None else int(found[0])

    def _read(self, end: int) -> None:
        connection = self._store.connection
        try:
            step = next(block_values.read(connection, self._next, end, self._types))
        except KeyError:  # a type that is new
            self._types = event_types.names(connection)
            step = next(block_values.read(connection, self._next, end, self._types))
        number, self._next, events = step
        self._values.add(number, events)

    def _write(self, block: int) -> None:
        last = self._next - 1

        def work(connection: Connection, _batch: object) -> None:
            block_values.write(connection, block, last, self._keys, self._values)

        # On disk with the next commit of events: until then it can be computed again.
        self._store.transact(work, self._clock_ns(), flush=False)
        self._is_written = True
