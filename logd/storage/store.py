"""The store: one writer, one transaction a batch, everything that must agree inside it.

Events, watermarks, losses, quarantine, roll-ups, counters and the hash chain move together or not
at all. What a failed commit would have changed in memory is changed only after the commit.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack

from logd import __version__
from logd.batch import LOST_OUTBOX_GONE, LOST_TAIL_UNKNOWN, PERSON_ERASED, Batch, Producer
from logd.errors import StorageBusy, StorageFailed
from logd.storage import (
    boundaries,
    erasure_list,
    event_types,
    hash_chain,
    late_erasure,
    removal_log,
    rollups,
    time_blocks,
)
from logd.storage.database import Connection, DatabaseError, connect, is_interrupt, translate
from logd.storage.database_files import DatabaseFiles
from logd.storage.event_types import BatchTypes, EventTypes, TypeLimits
from logd.storage.hash_chain import Head
from logd.storage.migrations import migrate
from logd_wire.liveness import is_running
from logd_wire.rendezvous import current_boot_id
from logd_wire.wire import Event, producer_seed

# A statement of many rows runs without the GIL and binds all at once; these sizes stay prepared.
_ROWS_PER_STATEMENT = (2000, 200, 20, 1)
_CHECKPOINT_TRIES = 2
# A full batch takes well over SQLite's usual 1,000 pages: each commit would flush three times.
_CHECKPOINT_PAGES = 4000
# An act is to be short: so many pages are moved in the time that its own work takes.
_CHECKPOINT_PAGES_ACT = 500
_UNFINISHED_PAGE_ROWS = 1000
BUSY_TIMEOUT_RUNNING_MS = 500
_REWRITE_COPIES = 2  # in a scratch file, and in the log
_REWRITE_STEPS = 100_000

_log = logging.getLogger("logd")

# `stored` is of all time, and `own`, logd's own events, a part of it; so are those that are gone.
COUNTERS = (
    *("stored", "lost", "quarantined", "quarantined_events", "duplicates_ignored", "commits"),
    *("lost_claimed", "own", removal_log.PRUNED, removal_log.ERASED),
)

# What an administrative act does in its transaction: to the tables, and to the batch of own events.
Work = Callable[[Connection, Batch], None]


class Store:
    """The open database. Raises LogdError kinds; after anything but StorageBusy, stop using it."""

    def __init__(
        self,
        path: Path,
        key: bytes,
        now_ns: int,
        quarantine_rows_max: int,
        cache_bytes_max: int = 16 * 1024 * 1024,
        type_limits: TypeLimits = TypeLimits(),  # noqa: B008 - frozen
    ) -> None:
        self._path = path
        self._quarantine_rows_max = quarantine_rows_max
        self._boot_id = current_boot_id()
        self._connection: Connection = connect(path, key)
        try:
            self._connection.execute(f"PRAGMA cache_size = -{cache_bytes_max // 1024}")
            self.schema = migrate(self._connection, now_ns)
            self._make_durable(now_ns)
            self._files = DatabaseFiles(path)
            self._types = EventTypes(self._connection, type_limits)
            self._load()
        except DatabaseError as error:
            self._connection.close()
            raise translate(error, path) from error
        except BaseException:
            self._connection.close()
            raise

    def _make_durable(self, now_ns: int) -> None:
        """What a killed predecessor left in the WAL is visible, but perhaps not on the disk.

        A complete checkpoint flushes it, and a commit of our own proves that commits work; before
        both are done nothing may be confirmed to anybody.
        """
        for tried in range(_CHECKPOINT_TRIES):
            busy, _pages, _done = self._connection.execute(
                "PRAGMA wal_checkpoint(TRUNCATE)"
            ).fetchone()
            if not busy:
                break
            if tried == 0:
                _log.warning("%s: another program reads or locks it: waiting", self._path)
        else:
            raise StorageBusy(
                f"{self._path}: another program reads or locks it, so what is in its log cannot be "
                "made durable. Stop that program (fuser tells which), then start again."
            )
        self._connection.execute(
            "INSERT INTO run (started_ns, boot_id, pid, program) VALUES (?, ?, ?, ?)",
            (now_ns, self._boot_id, os.getpid(), __version__),
        )

    def _load(self) -> None:
        query = self._connection.execute
        last = query(
            "SELECT id, first_event + events, hash FROM batch ORDER BY id DESC LIMIT 1"
        ).fetchone()
        self._batch_id: int
        self._event_id: int
        self._head: bytes
        self._batch_id, self._event_id, self._head = last or (0, 1, hash_chain.GENESIS)
        self._head_on_disk = Head(self._batch_id, self._event_id - 1, self._head)
        self._producer_row = query("SELECT coalesce(max(id), 0) FROM producer").fetchone()[0]
        self._quarantine_row = query("SELECT coalesce(max(id), 0) FROM quarantine").fetchone()[0]
        # From here on who finds it locked tries again by itself, and meanwhile has to hear signals.
        query(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_RUNNING_MS}")
        self.forgotten = erasure_list.load(self._connection)
        # Of this process only: it says no more once the process has ended.
        self._own = Producer(uid=os.geteuid(), id=secrets.randbits(64), seed=0, ended=True)
        self._own.pid = os.getpid()

    # -- producers -------------------------------------------------------------------------------

    def producer(self, uid: int, producer_id: int) -> Producer:
        """What is on disk of that producer; a new one when nothing is."""
        row = self._connection.execute(
            "SELECT id, p.watermark, ended, pid, coalesce(r.watermark, 0) FROM producer p"
            " LEFT JOIN replaced r ON r.uid = p.uid AND r.key = p.key"
            " WHERE p.uid = ? AND p.key = ?",
            (uid, f"{producer_id:016x}"),
        ).fetchone()
        producer = Producer(uid=uid, id=producer_id, seed=producer_seed(producer_id))
        if row is not None:
            producer.row, producer.stored, ended, producer.pid, producer.replaced = row
            producer.taken = producer.stored
            producer.ended = bool(ended)
        return producer

    def unfinished(self) -> Iterator[tuple[int, int, str] | None]:
        """Producers (uid, id, cause) that can say no more, unless their outbox is there.

        They are of an earlier boot, or had an outbox and their process has ended: one that runs
        follows with another producer, and its farewell has the numbers. How far they had got is
        not known. None after each page of rows, of which there may be any number.
        """
        boot_id, last = self._boot_id, 0
        # In pages, since there may be any number of them, and commits between two.
        while rows := self._connection.execute(
            "SELECT id, uid, key, boot_id, has_outbox, pid FROM producer"
            " WHERE ended = 0 AND id > ? ORDER BY id LIMIT ?",
            (last, _UNFINISHED_PAGE_ROWS),
        ).fetchall():
            for last, uid, key, seen_boot_id, has_outbox, pid in rows:  # noqa: B007 - of the last
                if seen_boot_id != boot_id:
                    yield uid, int(key, 16), LOST_TAIL_UNKNOWN
                elif has_outbox and not is_running(pid):
                    yield uid, int(key, 16), LOST_OUTBOX_GONE
            yield None

    # -- commit ----------------------------------------------------------------------------------

    def commit(self, batch: Batch, now_ns: int) -> None:
        """Stores the batch; on disk when it returns, and the caller may settle it.

        Raises StorageBusy if the disk is full or the database locked: nothing has changed, the
        batch can be retried. Raises StorageFailed if a flush failed: the process must end.
        """
        self._transact(batch, now_ns)

    def act(self, work: Work, now_ns: int, *, flush: bool = True) -> None:
        """Does `work` in a transaction, and stores the own events that it adds to its batch.

        Without `flush` it is on disk with the next commit that is, and no later commit without it.
        Raises what `commit` raises; then nothing of it was done.
        """
        connection = self._connection
        if not flush:
            connection.execute("PRAGMA synchronous = NORMAL")
        try:
            self._transact(Batch(1, 1), now_ns, work, flush=flush)
        finally:
            if not flush:
                connection.execute("PRAGMA synchronous = FULL")

    def add_own(self, batch: Batch, event_type: str, props: Mapping[str, Any], now_ns: int) -> None:
        """Adds an event of logd's own to the batch of an `act`; `now_ns` is its time."""
        own = self._own
        own.taken += 1
        event = Event(event_type, now_ns, None, msgpack.packb(props))
        batch.add(own, own.taken, event, len(event.props))

    def record(self, event_type: str, props: Mapping[str, Any], now_ns: int) -> None:
        """Stores an event of logd's own: something was done to the trail. Raises as `commit`."""
        self.act(lambda _, batch: self.add_own(batch, event_type, props, now_ns), now_ns)

    def load_forgotten(self) -> None:
        """Takes the list as an `act` has left it. Raises what `commit` raises."""
        before = self.forgotten
        try:
            self.forgotten = erasure_list.load(self._connection)
        except DatabaseError as error:
            raise self.problem(error) from error
        self.forgotten.boundaries.outboxes = before.boundaries.outboxes

    @property
    def head(self) -> Head:
        """Where the chain ends on the disk: what is told outside must not go with the power."""
        return self._head_on_disk

    def problem(self, error: Exception) -> Exception:
        """What an error in reading by `connection` means."""
        return translate(error, self._path)

    @property
    def size_bytes(self) -> int:
        """How large the database is, without its log."""
        query = self._connection.execute
        pages, size = (int(query(f"PRAGMA page_{n}").fetchone()[0]) for n in ("count", "size"))
        return pages * size

    @property
    def next_event(self) -> int:
        """The id that the next event will have."""
        return int(self._event_id)

    @property
    def connection(self) -> Connection:
        """For reading between commits, and for the work of an `act`."""
        return self._connection

    def _transact(
        self, batch: Batch, now_ns: int, work: Work | None = None, *, flush: bool = True
    ) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            if work is not None:
                work(self._connection, batch)
            changed = self._write(batch, now_ns)
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._own.taken = self._own.stored
            if not isinstance(error, DatabaseError):
                self._roll_back(error)
                raise
            problem = translate(error, self._path)
            self._roll_back(problem)
            raise problem from error
        self.check_files()
        self._producer_row, self._event_id, self._batch_id, self._head = changed.heads
        self._quarantine_row = changed.quarantine_row
        self._types.settle(changed.types)
        self.forgotten.boundaries.take(changed.boundaries)
        for producer, row in changed.rows.items():
            producer.row = row
        self._own.stored = self._own.taken
        if flush:
            self._head_on_disk = Head(self._batch_id, self._event_id - 1, self._head)
        self._checkpoint(_CHECKPOINT_PAGES if work is None else _CHECKPOINT_PAGES_ACT)

    def check_files(self) -> None:
        """Raises DatabaseGone or StorageFailed for a removed or replaced database or WAL."""
        missing = self._files.missing()
        if missing is not None:
            raise self._files.ending(self._connection, missing)

    def _checkpoint(self, pages_max: int) -> None:
        """Moves a long log into the database.

        SQLite does it by itself after a commit, but keeps an error in it to itself: a database
        whose flushes fail would be noticed by nobody. Raises StorageFailed then. What was
        committed is in the log, so that want of room is no failure here.
        """
        query = self._connection.execute
        try:
            _busy, pages, _done = query("PRAGMA wal_checkpoint(NOOP)").fetchone()
            if pages >= pages_max:
                query("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except DatabaseError as error:
            problem = translate(error, self._path)
            if not isinstance(problem, StorageBusy):
                raise problem from error

    def _roll_back(self, problem: BaseException) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except DatabaseError as error:
            raise StorageFailed(f"{self._path}: cannot roll back: {error}") from problem

    def _write(self, batch: Batch, now_ns: int) -> _Changed:
        batch, types = self._types.admit(batch)
        changed = _Changed(types)
        first_event = self._event_id
        late: frozenset[int] = frozenset()
        if self.forgotten.entries:
            batch, late = self._forget(batch, now_ns)
        if late:
            self._types.require(types, PERSON_ERASED, self._own.uid)
        producer_row = self._write_producers(batch, now_ns, changed)
        changed.boundaries = self.forgotten.boundaries.follow(
            self._connection, batch.producers, changed.rows
        )
        leaves = self._write_events(batch, changed, late)
        batch_id, head = self._batch_id, self._head
        if leaves or batch.losses:
            batch_id += 1
            head = self._write_batch(batch, batch_id, now_ns, first_event, leaves, changed)
        self._write_quarantine(batch, now_ns, changed)
        kept = [(first_event, batch.events)] if not late else _kept(first_event, batch, late)
        for first, events in kept:
            rollups.update(self._connection, events, types.ids)
            time_blocks.update(self._connection, events, types.ids, first)
        if late:
            removal_log.keep_leaves(self._connection, {first_event + n: leaves[n] for n in late})
        self._count(batch, late, commits=1 if leaves or batch.losses else 0)
        changed.heads = (producer_row, first_event + len(leaves), batch_id, head)
        return changed

    def _forget(self, batch: Batch, now_ns: int) -> tuple[Batch, frozenset[int]]:
        """Of forgotten persons, what comes late: the places of their events, which use up an id and
        are not stored, behind them an own event that says so; and no mention of them elsewhere.
        """
        events, late = late_erasure.split(batch, self.forgotten)
        if not late and events is batch.events:
            return batch, frozenset()
        batch = batch.copy(list(events))
        if late:
            first = int(self._event_id)
            ids = [first + place for place in late]
            said = removal_log.record(
                self._connection, removal_log.ERASED, first + len(events), ids, {}
            )
            self.add_own(batch, PERSON_ERASED, {**said, "late": True}, now_ns)
        return batch, frozenset(late)

    def _write_producers(self, batch: Batch, now_ns: int, changed: _Changed) -> int:
        row = int(self._producer_row)
        boot_id = self._boot_id
        new, old, refusals = [], [], []
        for producer in batch.producers:
            if producer.row is None:
                row += 1
                changed.rows[producer] = row
                new.append(
                    (row, producer.uid, f"{producer.id:016x}", producer.taken, producer.has_outbox)
                    + (producer.ended, boot_id, producer.pid, now_ns, now_ns)
                )
            else:
                changed.rows[producer] = producer.row
                old.append(
                    (producer.taken, producer.ended, producer.has_outbox, boot_id, producer.pid)
                    + (now_ns, producer.row)
                )
            refusals += [
                (changed.rows[producer], cause, count) for cause, count in producer.refused.items()
            ]
        write = self._connection.executemany
        write("INSERT INTO producer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", new)
        write(
            "UPDATE producer SET watermark = max(watermark, ?), ended = ?, has_outbox = ?,"
            " boot_id = ?, pid = ?, last_seen_ns = ? WHERE id = ?",
            old,
        )
        write(
            "INSERT INTO refusal VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET events = max(events, excluded.events)",
            refusals,
        )
        return row

    def _write_events(self, batch: Batch, changed: _Changed, late: frozenset[int]) -> list[bytes]:
        """Inserts the events, but for those at the places in `late`; all their leaves."""
        types = changed.types.ids
        event_types.insert(self._connection, changed.types)
        values: list[Any] = []
        leaves: list[bytes] = []
        event_id = int(self._event_id)
        of = {p: (p.label, changed.rows[p]) for p in batch.producers}
        salts = hash_chain.new_salts(len(batch.events))
        leaf, bind = hash_chain.leaf, bytearray
        for (producer, sequence, event), salt in zip(batch.events, salts, strict=True):
            kind, ts_ns, user, props = event
            label, row = of[producer]
            leaves.append(leaf(salt, event_id, label, sequence, ts_ns, kind, user, props))
            if late and event_id - self._event_id in late:
                event_id += 1
                continue
            # bytearray: sqlcipher3 asks for adapters of bytes, at twice the price of the insert.
            values += (event_id, row, sequence, ts_ns, types[kind], user, bind(props), bind(salt))
            event_id += 1
        self._insert("event", values, columns=8)
        return leaves

    def _write_batch(
        self,
        batch: Batch,
        batch_id: int,
        now_ns: int,
        first_event: int,
        leaves: list[bytes],
        changed: _Changed,
    ) -> bytes:
        leaves_hash = hash_chain.combine(leaves)
        losses_hash = hash_chain.combine(
            hash_chain.loss_leaf(loss.producer.label, loss.first, loss.last, loss.cause)
            for loss in batch.losses
        )
        head = hash_chain.link(
            self._head, batch_id, now_ns, first_event, len(leaves), leaves_hash, losses_hash
        )
        self._connection.execute(
            "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?)",
            (batch_id, now_ns, first_event, len(leaves), leaves_hash, head),
        )
        self._connection.executemany(
            "INSERT INTO loss (batch, producer, first, last, cause, detected_ns)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [
                (batch_id, changed.rows[loss.producer], loss.first, loss.last, loss.cause, now_ns)
                for loss in batch.losses
            ],
        )
        return head

    def _write_quarantine(self, batch: Batch, now_ns: int, changed: _Changed) -> None:
        changed.quarantine_row = int(self._quarantine_row) + len(batch.refusals)
        if not batch.refusals:
            return
        first = int(self._quarantine_row) + 1
        # Bounded: the newest rows stay, the counters know of all.
        keep_from = changed.quarantine_row - self._quarantine_rows_max
        values: list[Any] = []
        for number, refusal in enumerate(batch.refusals, start=first):
            if number > keep_from:
                values += (number, now_ns, refusal.uid, refusal.pid, refusal.reason)
                values.append(changed.rows[refusal.producer] if refusal.producer else None)
                values += (refusal.sequence, refusal.bytes, refusal.excerpt)
        self._connection.execute("DELETE FROM quarantine WHERE id <= ?", (keep_from,))
        self._insert("quarantine", values, columns=9)

    def _count(self, batch: Batch, late: frozenset[int], commits: int) -> None:
        own = self._own
        changes = {
            "stored": len(batch.events),
            "own": own.taken - own.stored,
            removal_log.ERASED: len(late),
            "lost": batch.lost(claimed=False),
            "lost_claimed": batch.lost(claimed=True),
            "quarantined": len(batch.refusals),
            "quarantined_events": sum(r.sequence is not None for r in batch.refusals),
            "duplicates_ignored": batch.duplicates,
            "commits": commits,
        }
        self._connection.executemany(
            "INSERT INTO counter VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET value = value + excluded.value",
            [(name, change) for name, change in changes.items() if change],
        )

    def _insert(self, table: str, values: list[Any], columns: int) -> None:
        """Inserts rows, one behind the other in `values`, in statements of many.

        `executemany` takes the GIL back for each row.
        """
        row_marks = f"({', '.join('?' * columns)})"
        start = 0
        for size in _ROWS_PER_STATEMENT:
            statement = f"INSERT INTO {table} VALUES {', '.join([row_marks] * size)}"  # noqa: S608 - no data in it
            length = size * columns
            while len(values) - start >= length:
                self._connection.execute(statement, values[start : start + length])
                start += length

    # -- nothing left behind ---------------------------------------------------------------------

    def rewrite(self, meanwhile: Callable[[], bool]) -> bool:
        """Writes the whole database anew: no page holds remains of what was deleted.

        SQLite overwrites what it deletes, but not the copies that moving rows from page to page
        leaves. Nothing can be committed meanwhile. `meanwhile` is asked now and then; on its False
        all is as it was, and so is this. Raises what `commit` raises.
        """
        query = self._connection.execute
        folder = os.statvfs(self._path.parent)
        free = folder.f_bavail * folder.f_frsize
        needed = _REWRITE_COPIES * self.size_bytes
        if free < needed:
            raise StorageBusy(
                f"{self._path}: to write it anew takes {needed} bytes for a while, "
                f"{free} are free. Free some: it is tried again."
            )
        # Its scratch file is encrypted as the database is; in memory it would be as large.
        query("PRAGMA temp_store = FILE")
        place = str(self._path.parent).replace("'", "''")
        query(f"PRAGMA temp_store_directory = '{place}'")
        self._connection.set_progress_handler(lambda: not meanwhile(), _REWRITE_STEPS)
        try:
            query("VACUUM")
        except DatabaseError as error:
            if is_interrupt(error):
                return False
            raise translate(error, self._path) from error
        finally:
            self._connection.set_progress_handler(None, 0)
            query("PRAGMA temp_store = MEMORY")
        return True

    def empty_log(self) -> bool:
        """Moves all of the log into the database and cuts it; False while somebody reads it."""
        query = self._connection.execute
        query("PRAGMA busy_timeout = 0")
        try:
            busy, _pages, _done = query("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except DatabaseError as error:
            problem = translate(error, self._path)
            if not isinstance(problem, StorageBusy):
                raise problem from error
            return False
        finally:
            query(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_RUNNING_MS}")
        return not busy

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Moves the log into the database and closes it. Raises StorageFailed."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
        except DatabaseError as error:
            raise translate(error, self._path) from error


def _kept(
    first_event: int, batch: Batch, late: frozenset[int]
) -> Iterator[tuple[int, list[tuple[Producer, int, Event]]]]:
    """What is stored of the batch: runs of events, each with the id of its first."""
    start = 0
    for place in (*sorted(late), len(batch.events)):
        if place > start:
            yield first_event + start, batch.events[start:place]
        start = place + 1


class _Changed:
    """What a transaction will have changed in memory, once it is committed."""

    def __init__(self, types: BatchTypes) -> None:
        self.rows: dict[Producer, int] = {}
        self.types = types
        self.quarantine_row = 0
        self.heads: tuple[int, int, int, bytes] = (0, 1, 0, hash_chain.GENESIS)
        self.boundaries: dict[boundaries.Key, list[boundaries.Row]] = {}
