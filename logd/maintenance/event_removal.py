"""Removes stored events, and persons from events, with all rows that depend on them.

In one transaction the rows are deleted, with content and salt, and roll-ups, blocks and counters
are updated. An internal event has the hash of what is kept of removed events
(`logd.storage.removal_log`).
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from logd.batch import EVENTS_PRUNED, PERSON_ERASED, Batch
from logd.maintenance.subject_rollups import SubjectRecount
from logd.storage import batch_hash, block_values, hash_chain, merkle, removal_log
from logd.storage.database import Connection, in_parts, question_marks
from logd.storage.rollups import DAY_NS
from logd.storage.row_writer import add_to_counters
from logd.storage.store import Store
from logd.storage.time_blocks import BLOCK_BITS, BLOCK_EVENTS

# The size of a step follows from the processor time of previous steps,
# since events that arrive meanwhile wait that long. The clock's time is not used:
# on a busy machine each step takes longer, and smaller steps do not help.
STEP_TARGET_S = 0.008
STEP_EVENTS_MIN = 100
STEP_EVENTS_START = 200
STEP_EVENTS_MAX = 2000
_NAMES_MAX = 10_000

_EVENT_TYPES = {removal_log.PRUNED: EVENTS_PRUNED, removal_log.ERASED: PERSON_ERASED}

# The row is (id, producer, sequence, ts_ns, type, user, props, salt).
_Row = tuple[int, int, int, int, int, str | None, bytes, bytes]

# Work that the caller does in the same transaction.
Also = Callable[[Connection], None]


class Steps:
    """Removes events from a store in bounded steps, each in its own transaction.

    A step does not flush, and is on disk with the next commit of events.
    """

    def __init__(self, store: Store, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._store = store
        self.now_ns = clock_ns
        self._names = _Names(store.connection)
        self.events_max = STEP_EVENTS_START  # how many events the next step may remove

    def remove(
        self,
        kind: str,
        ids: Sequence[int],
        recounts: Mapping[SubjectRecount, Sequence[int]],
        also: Also,
        **details: Any,
    ) -> None:
        """Removes the events with the given ids, and those of `recounts`.

        Raises as `Store.commit`.
        """
        every = sorted((*ids, *(one for some in recounts.values() for one in some)))

        def change(connection: Connection) -> dict[str, Any]:
            for one, gone in recounts.items():
                one.write(connection, frozenset(gone))
            _remove(connection, every, self._names)
            add_to_counters(connection, {kind: len(every)})
            return removal_log.record(connection, kind, self._store.next_event, every, {})

        self._transact(kind, change, also, details)

    def redact(self, contents: Mapping[int, bytes], also: Also) -> None:
        """Replaces the events' packed properties by redacted ones. Raises as `Store.commit`."""

        def change(connection: Connection) -> dict[str, Any]:
            leaves = _redact(connection, contents, self._names)
            internal_event_id = self._store.next_event
            return removal_log.record(connection, removal_log.ERASED, internal_event_id, (), leaves)

        self._transact(removal_log.ERASED, change, also, {})

    def _transact(
        self,
        kind: str,
        change: Callable[[Connection], dict[str, Any]],
        also: Also,
        details: Mapping[str, Any],
    ) -> None:
        started_s, now_ns = time.thread_time(), self.now_ns()

        def work(connection: Connection, batch: Batch) -> None:
            props = {**change(connection), **details}
            self._store.append_internal_event(batch, _EVENT_TYPES[kind], props, now_ns)
            also(connection)

        self._store.transact(work, now_ns, flush=False)
        taken_s = time.thread_time() - started_s
        # The step size changes by only 10 %, so that one slow step matters little.
        # It settles where half of the steps exceed the target.
        scaled = int(self.events_max * (0.9 if taken_s > STEP_TARGET_S else 1.1))
        self.events_max = min(STEP_EVENTS_MAX, max(STEP_EVENTS_MIN, scaled))


class _Names:
    """Caches the names of producers and types, which never change."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.chained = hash_chain.read_chained(connection)
        self._labels: dict[int, str] = {}
        self._types: dict[int, str] = {}

    def leaf(self, row: _Row) -> bytes:
        """Returns the hash of the event's leaf."""
        event_id, producer, sequence, ts_ns, type_id, user, props, salt = row
        label = self._labels.get(producer) or self._look_up(
            self._labels, producer, "SELECT uid || '-' || key FROM producer WHERE id = ?"
        )
        kind = self._types.get(type_id) or self._look_up(
            self._types, type_id, "SELECT name FROM event_type WHERE id = ?"
        )
        data = batch_hash.event_data(salt, event_id, label, sequence, ts_ns, kind, user, props)
        chained = event_id <= self.chained.events
        return hash_chain.plain(data) if chained else merkle.leaf_hash(data)

    def _look_up(self, into: dict[int, str], row_id: int, sql: str) -> str:
        if len(into) >= _NAMES_MAX:
            # The cache is emptied, since clients may have made any number of producers.
            into.clear()
        (into[row_id],) = self._connection.execute(sql, (row_id,)).fetchone()
        return into[row_id]


def _remove(connection: Connection, ids: Sequence[int], names: _Names) -> None:
    """Deletes events with ascending ids, inside the caller's transaction.

    The caller updates roll-ups by subject (`logd.maintenance.subject_rollups`).
    """
    rows = _rows(connection, ids)
    whole, partly = _batches(connection, ids)
    some = {event_id for ids in partly.values() for event_id in ids}
    removal_log.keep_leaves(connection, {row[0]: names.leaf(row) for row in rows if row[0] in some})
    for part in in_parts(ids):
        connection.execute(f"DELETE FROM event WHERE id IN ({question_marks(part)})", part)  # noqa: S608 - question marks only
    for first, end in (*whole, *partly):
        if not connection.execute(
            "SELECT 1 FROM event WHERE id >= ? AND id < ? LIMIT 1", (first, end)
        ).fetchone():
            # If no event of the batch is left,
            # the batch's own hash over all of its events is enough.
            connection.execute("DELETE FROM leaf WHERE event >= ? AND event < ?", (first, end))
        elif first > names.chained.events:
            removal_log.merge_leaves(connection, first, end)
    _subtract_rollups(connection, rows)
    _narrow_blocks(connection, rows)
    _forget_values(connection, rows)


def _batches(
    connection: Connection, ids: Sequence[int]
) -> tuple[list[tuple[int, int]], dict[tuple[int, int], list[int]]]:
    """Returns the batches whose events are all among the ids, and the other batches with their ids.

    A batch is (first event, one past the last).
    """
    of: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    first, end = 0, 0
    for event_id in ids:
        if event_id >= end:
            # If several batches have the same first event, all but the last are empty.
            first, end = connection.execute(
                "SELECT first_event, first_event + events FROM batch WHERE first_event <= ?"
                " ORDER BY first_event DESC, id DESC LIMIT 1",
                (event_id,),
            ).fetchone()
        of[first, end].append(event_id)
    whole = [batch for batch, some in of.items() if len(some) == batch[1] - batch[0]]
    for batch in whole:
        del of[batch]
    return whole, of


def _subtract_rollups(connection: Connection, rows: Sequence[_Row]) -> None:
    days = Counter((row[4], row[3] // DAY_NS, row[5] or "") for row in rows)
    for part in in_parts(list(days)):
        marks = ", ".join(["(?, ?, ?)"] * len(part))
        values = [value for key in part for value in key]
        connection.execute(
            f"INSERT INTO rollup_day VALUES {marks.replace(')', ', ?)')}"  # noqa: S608 - question marks only
            " ON CONFLICT DO UPDATE SET events = events + excluded.events",
            [value for key in part for value in (*key, -days[key])],
        )
        connection.execute(
            f"DELETE FROM rollup_day WHERE (type, day, user) IN (VALUES {marks}) AND events <= 0",  # noqa: S608 - question marks only
            values,
        )
    connection.executemany(
        "UPDATE event_type SET events = events - ? WHERE id = ?",
        [(number, type_id) for type_id, number in Counter(row[4] for row in rows).items()],
    )


def _narrow_blocks(connection: Connection, rows: Sequence[_Row]) -> None:
    """Recomputes the two times of each block that has lost its earliest or latest event."""
    times: defaultdict[int, list[int]] = defaultdict(list)
    for row in rows:
        times[row[0] >> BLOCK_BITS].append(row[3])
    for block, gone in times.items():
        first_ns, last_ns = connection.execute(
            "SELECT first_ts_ns, last_ts_ns FROM event_block WHERE block = ?", (block,)
        ).fetchone()
        if first_ns < min(gone) and max(gone) < last_ns:
            continue
        first = block << BLOCK_BITS
        left = connection.execute(
            "SELECT min(ts_ns), max(ts_ns) FROM event WHERE id >= ? AND id < ?",
            (first, first + BLOCK_EVENTS),
        ).fetchone()
        if left[0] is None:
            connection.execute("DELETE FROM event_block WHERE block = ?", (block,))
        elif left != (first_ns, last_ns):
            connection.execute(
                "UPDATE event_block SET first_ts_ns = ?, last_ts_ns = ? WHERE block = ?",
                (*left, block),
            )


def _forget_values(connection: Connection, rows: Sequence[_Row]) -> None:
    block_values.forget(connection, sorted({row[0] >> BLOCK_BITS for row in rows}))


def _redact(
    connection: Connection, contents: Mapping[int, bytes], names: _Names
) -> dict[int, bytes]:
    """Gives events other properties and another salt, and returns their new leaves.

    It runs inside the caller's transaction, and keeps the leaves that the events were stored with.
    """
    rows = _rows(connection, sorted(contents))
    removal_log.keep_leaves(connection, {row[0]: names.leaf(row) for row in rows})
    salts = batch_hash.new_salts(len(rows))
    changed = [(*row[:6], contents[row[0]], salt) for row, salt in zip(rows, salts, strict=True)]
    connection.executemany(
        "UPDATE event SET props = ?, salt = ? WHERE id = ?",
        [(bytearray(props), bytearray(salt), event_id) for event_id, *_, props, salt in changed],
    )
    _forget_values(connection, rows)
    return {row[0]: names.leaf(row) for row in changed}


def _rows(connection: Connection, ids: Sequence[int]) -> list[_Row]:
    return [
        row
        for part in in_parts(ids)
        for row in connection.execute(
            "SELECT id, producer, sequence, ts_ns, type, user, props, salt FROM event"  # noqa: S608 - question marks only
            f" WHERE id IN ({question_marks(part)}) ORDER BY id",
            part,
        ).fetchall()
    ]
