"""The store: the only writer of the database, one transaction for each batch.

Events, watermarks, losses, quarantine, roll-ups, counters and the tree are committed together, or
not at all. State in memory changes only after the commit.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from logd import __version__
from logd.batch import PERSON_ERASED, Batch, Producer, QuarantineEntry
from logd.errors import StorageFailed
from logd.storage import (
    batch_rows,
    boundaries,
    erasure_list,
    event_types,
    late_erasure,
    producer_table,
    removal_log,
    rollups,
    row_writer,
    time_blocks,
    wal,
)
from logd.storage.batch_rows import NO_EVENTS, BatchRows, LastRows
from logd.storage.database import Connection, DatabaseError, connect, translate
from logd.storage.database_files import DatabaseFiles
from logd.storage.event_types import BatchTypes, EventTypes, TypeLimits
from logd.storage.mentions import DEFAULT_KEYS, PersonKeys
from logd.storage.migrations import migrate
from logd.storage.trail_id import read_trail_id
from logd.storage.tree import Tree
from logd.storage.tree_head import Head, HeadsOnDisk
from logd_wire.rendezvous import current_boot_id
from logd_wire.wire import Event

# `stored` counts the events of all time.
# `own`, logd's internal events, are a part of it, and so are the removed ones.
COUNTERS = (
    *("stored", "lost", "quarantined", "quarantined_events", "duplicates_ignored", "commits"),
    *("lost_claimed", "own", removal_log.PRUNED, removal_log.ERASED),
)

# Work of an administrative transaction, on the tables and on its batch of internal events.
Work = Callable[[Connection, Batch], None]


class Store:
    """The open database.

    Raises a LogdError; after any but StorageBusy, it must not be used again.
    """

    def __init__(
        self,
        path: Path,
        key: bytes,
        now_ns: int,
        quarantine_rows_max: int,
        cache_bytes_max: int = 16 * 1024 * 1024,
        type_limits: TypeLimits = TypeLimits(),  # noqa: B008 - frozen
        person_keys: PersonKeys = DEFAULT_KEYS,
    ) -> None:
        self.person_keys = person_keys
        self._path = path
        self._quarantine_rows_max = quarantine_rows_max
        self._boot_id = current_boot_id()
        self._connection: Connection = connect(path, key)
        try:
            self._connection.execute(f"PRAGMA cache_size = -{cache_bytes_max // 1024}")
            self.schema = migrate(self._connection, now_ns)
            wal.make_durable(self._connection, path)
            self._connection.execute(
                "INSERT INTO run (started_ns, boot_id, pid, program) VALUES (?, ?, ?, ?)",
                (now_ns, self._boot_id, os.getpid(), __version__),
            )
            self._files = DatabaseFiles(path)
            self._types = EventTypes(self._connection, type_limits)
            self._load()
        except DatabaseError as error:
            self._connection.close()
            raise translate(error, path) from error
        except BaseException:
            self._connection.close()
            raise

    def _load(self) -> None:
        self._heads = HeadsOnDisk(self._connection)
        self.trail_id = read_trail_id(self._connection)
        self._last = _last_rows(self._connection, self._heads.newest)
        self._connection.execute(f"PRAGMA busy_timeout = {wal.BUSY_TIMEOUT_RUNNING_MS}")
        self.erasure_list = erasure_list.load(self._connection)
        # The producer of logd's internal events is new for each process.
        self._internal = Producer(uid=os.geteuid(), id=secrets.randbits(64), seed=0, ended=True)
        self._internal.pid = os.getpid()

    def producer(self, uid: int, producer_id: int) -> Producer:
        """Loads a producer's state; it is a new producer if nothing is stored of it."""
        return producer_table.load(self._connection, uid, producer_id)

    def unfinished(self) -> Iterator[tuple[int, int, str] | None]:
        """Yields producers (uid, id, cause of loss) that, without an outbox, can send no more.

        Yields None after each page of rows, so that the caller can commit
        (`logd.storage.producer_table`).
        """
        return producer_table.unfinished(self._connection, self._boot_id)

    # -- commit ----------------------------------------------------------------------------------

    def commit(self, batch: Batch, now_ns: int) -> None:
        """Stores the batch; it is on disk on return, and the caller may mark it committed.

        The batch's quarantine then also has the events whose type was refused.

        Raises StorageBusy if the disk is full or the file locked: nothing has changed, and the
        batch can be retried. Raises StorageFailed if a flush failed: the process must end.
        """
        self._run(batch, now_ns)

    def transact(self, work: Work, now_ns: int, *, flush: bool = True) -> None:
        """Runs `work` in a transaction, and stores the internal events that `work` adds to it.

        Without `flush` the transaction is on disk with the next commit that flushes, and no later
        commit is on disk before it. Raises what `commit` raises; then nothing has changed.
        """
        connection = self._connection
        if not flush:
            connection.execute("PRAGMA synchronous = NORMAL")
        try:
            self._run(Batch(1, 1), now_ns, work, flush=flush)
        finally:
            if not flush:
                connection.execute("PRAGMA synchronous = FULL")

    def append_internal_event(
        self, batch: Batch, event_type: str, props: Mapping[str, Any], now_ns: int
    ) -> None:
        """Adds an internal event of the time `now_ns` to the batch of a `transact`."""
        self.append_internal(batch, Event(event_type, now_ns, None, msgpack.packb(props)))

    def append_internal(self, batch: Batch, event: Event) -> None:
        """Adds an internal event, already packed, to the batch of a `transact`."""
        self._internal.taken += 1
        batch.add(self._internal, self._internal.taken, event, len(event.props))

    def record(self, event_type: str, props: Mapping[str, Any], now_ns: int) -> None:
        """Stores an internal event about an act on the trail. Raises as `commit`."""
        self.transact(
            lambda _, batch: self.append_internal_event(batch, event_type, props, now_ns), now_ns
        )

    def reload_erasure_list(self) -> None:
        """Loads the erasure list again after a `transact` that changed it. Raises as `commit`."""
        before = self.erasure_list
        try:
            self.erasure_list = erasure_list.load(self._connection)
        except DatabaseError as error:
            raise self.problem(error) from error
        self.erasure_list.boundaries.outboxes = before.boundaries.outboxes

    @property
    def head(self) -> Head:
        """The head on disk, since an anchor must not outlive its batch in a power cut."""
        return self._heads.newest

    @property
    def lasting_head(self) -> Head | None:
        """The newest head on disk, of complete tiles only, that can always be computed again.

        It is None before the first complete tile, and if the row of its batch has been removed.
        """
        return self._heads.lasting

    def problem(self, error: Exception) -> Exception:
        """Returns a LogdError for an error that `connection` raised in reading."""
        return translate(error, self._path)

    @property
    def next_event(self) -> int:
        """The id of the next event."""
        return self._last.event + 1

    @property
    def connection(self) -> Connection:
        """The database connection, for reading between commits and for work of a `transact`."""
        return self._connection

    def check_files(self) -> None:
        """Raises DatabaseGone or StorageFailed if the database or its WAL was moved or replaced."""
        missing = self._files.missing()
        if missing is not None:
            raise self._files.ending(self._connection, missing)

    def _run(
        self, batch: Batch, now_ns: int, work: Work | None = None, *, flush: bool = True
    ) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            if work is not None:
                work(self._connection, batch)
            changes = self._write(batch, now_ns)
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._internal.taken = self._internal.stored
            if not isinstance(error, DatabaseError):
                self._roll_back(error)
                raise
            problem = translate(error, self._path)
            self._roll_back(problem)
            raise problem from error
        self.check_files()
        self._apply(changes, flush=flush)
        batch.quarantine_entries = changes.quarantine_entries
        pages = wal.CHECKPOINT_PAGES if work is None else wal.CHECKPOINT_PAGES_TRANSACT
        wal.checkpoint(self._connection, self._path, pages)

    def _apply(self, changes: _Changes, *, flush: bool) -> None:
        """Applies the changes of a transaction to the state in memory, after its commit."""
        self._last = last = changes.rows.last
        self._types.mark_committed(changes.types)
        self.erasure_list.boundaries.apply(changes.boundaries)
        for producer, row in changes.rows.ids.items():
            producer.row = row
        self._internal.stored = self._internal.taken
        self._heads.advance(last.batch, last.event, last.tree, flush=flush)

    def _roll_back(self, problem: BaseException) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except DatabaseError as error:
            raise StorageFailed(f"{self._path}: cannot roll back: {error}") from problem

    def _write(self, batch: Batch, now_ns: int) -> _Changes:
        connection, first_event = self._connection, self.next_event
        batch, types = self._types.admit(batch)
        late = NO_EVENTS
        if self.erasure_list.entries:
            batch, late = self._erase_late(batch, now_ns)
        if late:
            self._types.require(types, PERSON_ERASED, self._internal.uid)
        rows = batch_rows.build(
            batch,
            types.ids,
            self._last,
            now_ns,
            self._boot_id,
            late=late,
            quarantine_rows_max=self._quarantine_rows_max,
        )
        row_writer.insert_producers(connection, rows)
        changed = self.erasure_list.boundaries.update(connection, batch.producers, rows.ids)
        event_types.insert(connection, types)
        row_writer.insert_rows(connection, rows)
        for first, events in batch_rows.stored_runs(first_event, batch, late):
            rollups.update(connection, events, types.ids)
            time_blocks.update(connection, events, types.ids, first)
        if late:
            leaves = {first_event + place: rows.leaves[place] for place in late}
            removal_log.keep_leaves(connection, leaves)
        internal = self._internal.taken - self._internal.stored
        row_writer.count_batch(connection, batch, rows, erased=len(late), internal=internal)
        return _Changes(rows, types, batch.quarantine_entries, changed)

    def _erase_late(self, batch: Batch, now_ns: int) -> tuple[Batch, frozenset[int]]:
        """Erases forgotten persons from a batch; returns it, with the places of the erased events.

        The batch has no mentions of those persons left. The erased events use up an id and are not
        stored; an internal event after them records that.
        """
        events, late = late_erasure.split(batch, self.erasure_list, self.person_keys)
        entries = batch.quarantine_entries
        kept = late_erasure.without_excerpts(entries, self.erasure_list)
        if not late and events is batch.events and kept is entries:
            return batch, NO_EVENTS
        batch = batch.copy(list(events))
        batch.quarantine_entries = kept
        if late:
            first = self.next_event
            ids = [first + place for place in late]
            recorded = removal_log.record(
                self._connection, removal_log.ERASED, first + len(events), ids, {}
            )
            self.append_internal_event(batch, PERSON_ERASED, {**recorded, "late": True}, now_ns)
        return batch, frozenset(late)

    # -- maintenance of the file -----------------------------------------------------------------

    def vacuum(self, keep_going: Callable[[], bool]) -> bool:
        """Rebuilds the database without remains of deleted rows (`logd.storage.wal.vacuum`)."""
        return wal.vacuum(self._connection, self._path, keep_going)

    def truncate_wal(self) -> bool:
        """Moves all of the WAL into the database and empties it; False while a reader uses it."""
        return wal.truncate_wal(self._connection, self._path)

    def close(self) -> None:
        """Moves the WAL into the database and closes it. Raises StorageFailed."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
        except DatabaseError as error:
            with contextlib.suppress(DatabaseError):
                self._connection.close()
            raise translate(error, self._path) from error


def _last_rows(connection: Connection, head: Head) -> LastRows:
    producer, quarantine = (
        connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0]  # noqa: S608 - two names
        for table in ("producer", "quarantine")
    )
    tree = Tree(connection).growing(head.batch)
    return LastRows(head.batch, head.events, tree, producer, quarantine)


@dataclass
class _Changes:
    """The changes that a transaction makes in memory once it is committed."""

    rows: BatchRows
    types: BatchTypes
    quarantine_entries: list[QuarantineEntry]  # also has the events whose type was refused
    boundaries: dict[boundaries.Key, list[boundaries.Row]] = field(default_factory=dict)
