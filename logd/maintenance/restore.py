"""`logd restore`: a backup takes the database's place, and the trail says so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logd.audit import anchors, last_verification
from logd.batch import LOST_CLAIMED, LOST_RESTORED, Batch
from logd.clock.readings import Reading
from logd.config.settings import Config
from logd.errors import CannotCreate, KeyFileError, NoDatabase
from logd.maintenance import database_copy, database_swap
from logd.maintenance import rekey as rekeying
from logd.maintenance.database_copy import Bar, Checked, Stop
from logd.maintenance.worker import Worker
from logd.storage import erasure_list as forgotten
from logd.storage import keyfile, trail_clock
from logd.storage.database import Connection, DatabaseError, change_key, connect, translate
from logd.storage.hash_chain import Head
from logd.storage.migrations import check_not_newer, schema_version
from logd.storage.store import Store
from logd_wire.schema import INT64_MAX, INTERNAL_TYPES

KIND = "replaced"

CopyRow = tuple[str, int, int | None, str]


@dataclass(frozen=True)
class Stream:
    """A producer that has got further than the backup knows, or has ended since."""

    uid: int
    id: int
    watermark: int
    known: int  # the watermark without what its outbox only claimed
    has_outbox: bool  # it may be there yet, and hold some of it
    pid: int


@dataclass(frozen=True)
class Replaced:
    """What stands in the database's place before; `head` is None where it cannot be read."""

    there: bool
    head: Head | None = None
    restores: tuple[anchors.Restore, ...] = ()
    forgotten: dict[bytes, int] = field(default_factory=dict)
    copies: tuple[CopyRow, ...] = ()
    ahead: tuple[Stream, ...] = ()
    clock: Reading | None = None  # the last reading of the clock that it believed

    def batch_max(self, kept: int) -> int | None:
        """The highest batch there ever was that goes, if all past `kept` does; None: unknown."""
        if self.head is None:
            return None
        highest = [self.head.batch]
        for restore in self.restores:
            if restore.batch > kept:
                if restore.upto is None:
                    return None
                highest.append(restore.upto)
        return max(highest)


@dataclass(frozen=True)
class Plan:
    """A backup that is whole, and what it would replace."""

    backup: Path
    backup_key: bytes
    key: bytes
    found: Checked
    replaced: Replaced


@dataclass(frozen=True)
class Restored:
    """What came of it: the new database, and where the old one is (None: there was none)."""

    made: Checked
    kept: Path | None
    seconds: float


def plan(config: Config, backup: Path, key_file: Path | None, stop: Stop, bar: Bar) -> Plan:
    """Looks through the backup, and at what is there; changes nothing. Raises LogdError kinds.

    With the instance's lock held, as `restore` is.
    """
    key = keyfile.read(config.key_file)
    rekeying.finish(config, key)
    database_swap.tidy(config)
    if not backup.is_file():
        raise NoDatabase(f"{backup}: no such file to restore.")
    if config.database.exists() and backup.samefile(config.database):
        raise CannotCreate(f"{backup}: is the database itself. Name a backup of it.")
    backup_key = key if key_file is None else keyfile.read_file(key_file)
    with _open(backup, backup_key) as connection:
        check_not_newer(connection)
        if schema_version(connection) == 0:
            raise NoDatabase(f"{backup}: there is no trail in it.")
        found = database_copy.check(backup, backup_key, stop, bar)
        return Plan(backup, backup_key, key, found, _look(config, key, connection))


def restore(config: Config, planned: Plan, now_ns: int, stop: Stop, bar: Bar) -> Restored:
    """Makes a new database of the backup and puts it in place. Raises LogdError kinds: then the
    database is as it was.
    """
    began_s = time.monotonic()
    database, key = config.database, planned.key
    owner = database_swap.owner(config)
    kept = None
    if planned.replaced.there:
        kept = database_copy.dated(database, "before", now_ns)
    # First of all: whoever was forgotten since the backup is not to come back with it.
    listed = forgotten.read_file(forgotten.file_beside(planned.backup))
    for entries in (listed, planned.replaced.forgotten):
        forgotten.merge_file(forgotten.file_beside(database), entries)
    new = database_swap.new_file(config)
    try:
        with _open(planned.backup, planned.backup_key) as connection:
            database_copy.copy(connection, planned.backup, new, stop, bar)
        if planned.backup_key != key:
            _change_key(new, planned.backup_key, key)
        store = Store(new, key, now_ns, config.quarantine_rows_max, config.cache_bytes_max)
        try:
            _say(store, planned, kept, now_ns)
            _forget_again(store, config, stop)
        finally:
            store.close()
        made = database_copy.check(new, key, stop, bar)
        database_copy.give_to_owner_of(owner, new)
        database_copy.flush(new)
        database_swap.take_its_place(config, new, kept)
        last_verification.path_of(config).unlink(missing_ok=True)  # it speaks of what was replaced
    finally:
        database_copy.remove(new)
    return Restored(made, kept, time.monotonic() - began_s)


@contextmanager
def _open(path: Path, key: bytes) -> Iterator[Connection]:
    try:
        connection = connect(path, key, read_only=True)
    except KeyFileError as error:
        raise KeyFileError(
            f"{error} A backup of before a change of the key needs the key of then: --key-file "
            "FILE (`logd rekey` keeps it beside the present one)."
        ) from error
    try:
        yield connection
    except DatabaseError as error:
        raise translate(error, path) from error
    finally:
        connection.close()


def _change_key(path: Path, old: bytes, new: bytes) -> None:
    try:
        change_key(path, old, new)
    except DatabaseError as error:
        raise translate(error, path) from error


def _look(config: Config, key: bytes, backup: Connection) -> Replaced:
    """What is in the database's place, its log moved into it."""
    there = config.database.exists()
    connection = database_swap.merge_log(config.database, key)
    if connection is None:
        return Replaced(there)
    try:
        head, _ = database_copy.head_of(connection)
        tables = {
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        }
        persons: dict[bytes, int] = {}
        copies: list[CopyRow] = []
        if "forgotten" in tables:
            persons = forgotten.entries(connection)
        if "copy" in tables:
            copies = connection.execute(
                "SELECT kind, made_ns, expires_ns, place FROM copy ORDER BY id"
            ).fetchall()
        return Replaced(
            there,
            head,
            tuple(anchors.restores(connection)),
            persons,
            tuple(copies),
            tuple(_ahead(connection, backup)),
            trail_clock.load(connection),
        )
    except DatabaseError:
        return Replaced(there)  # damaged: what it held goes with it
    finally:
        connection.close()


def _ahead(connection: Connection, backup: Connection) -> Iterator[Stream]:
    """Who has gone on since the backup; logd's own events aside, which nobody emitted."""
    own = {
        row
        for (row,) in connection.execute(
            "SELECT DISTINCT producer FROM event WHERE type IN"  # noqa: S608 - question marks only
            f" (SELECT id FROM event_type WHERE name IN ({', '.join('?' * len(INTERNAL_TYPES))}))",
            list(INTERNAL_TYPES),
        )
    }
    claimed = dict(
        connection.execute(
            "SELECT producer, min(first) FROM loss WHERE cause = ? GROUP BY producer",
            (LOST_CLAIMED,),
        )
    )
    earlier: dict[tuple[int, str], int] = {}  # of a restore before, and not met again since
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'replaced'").fetchone():
        rows = connection.execute("SELECT uid, key, watermark FROM replaced")
        earlier = {(uid, key): watermark for uid, key, watermark in rows}
    for row, uid, key, watermark, has_outbox, ended, pid in connection.execute(
        "SELECT id, uid, key, watermark, has_outbox, ended, pid FROM producer"
    ):
        known = backup.execute(
            "SELECT watermark, ended FROM producer WHERE uid = ? AND key = ?", (uid, key)
        ).fetchone() or (0, 0)
        before = earlier.get((uid, key), 0)
        if row not in own and max((watermark, ended), (before, 0)) > known:
            before = max(before, min(watermark, claimed.get(row, watermark + 1) - 1))
            outbox = bool(has_outbox and not ended)
            yield Stream(uid, int(key, 16), watermark, before, outbox, pid)


def _book(store: Store, batch: Batch, stream: Stream) -> None:
    """What is nowhere any more is lost, by its numbers; where an outbox may hold some of it, the
    daemon will tell.
    """
    producer = store.producer(stream.uid, stream.id)
    producer.pid, producer.has_outbox = stream.pid, stream.has_outbox
    producer.ended = not stream.has_outbox
    batch.touch(producer)
    if not producer.ended:
        return
    for upto, cause in ((stream.known, LOST_RESTORED), (stream.watermark, LOST_CLAIMED)):
        if upto > producer.taken:
            batch.add_loss(producer, producer.taken + 1, upto, cause)
            producer.taken = upto


def _say(store: Store, planned: Plan, kept: Path | None, now_ns: int) -> None:
    """The event, and what the replaced database knows since: of copies, and of what is lost now."""
    found, replaced = planned.found, planned.replaced
    said: dict[str, Any] = {
        "backup_batch": found.head.batch,
        "backup_events": found.head.events,
        "backup_head": found.head.hash.hex(),
        "backup_stored_ns": found.stored_ns,
        "replaced_batch": replaced.head and replaced.head.batch,
        "replaced_events": replaced.head and replaced.head.events,
        "replaced_head": replaced.head and replaced.head.hash.hex(),
        "replaced_batch_max": replaced.batch_max(found.head.batch),
        "kept": kept and kept.name,
    }
    copies = [*replaced.copies]
    if kept is not None:
        copies.append((KIND, now_ns, None, str(kept)))

    def work(connection: Connection, batch: Batch) -> None:
        connection.executemany(
            "INSERT INTO copy (kind, made_ns, expires_ns, place) SELECT ?1, ?2, ?3, ?4"
            " WHERE NOT EXISTS (SELECT 1 FROM copy WHERE kind = ?1 AND place = ?4)",
            copies,
        )
        if replaced.clock is not None:
            trail_clock.save(connection, replaced.clock)
        connection.executemany(
            "INSERT INTO replaced VALUES (?1, ?2, ?3)"
            " ON CONFLICT DO UPDATE SET watermark = max(watermark, excluded.watermark)",
            [
                (stream.uid, f"{stream.id:016x}", stream.known)
                for stream in replaced.ahead
                if stream.has_outbox
            ],
        )
        losses = Batch(0, 0, loss_events_max=INT64_MAX)  # it is the database's own word
        for stream in replaced.ahead:
            _book(store, losses, stream)
        batch.losses += losses.losses
        batch.producers |= losses.producers
        store.add_own(batch, "trail_restored", said, now_ns)

    store.act(work, now_ns)


def _forget_again(store: Store, config: Config, stop: Stop) -> None:
    """Erases who was forgotten since the backup, and does what else the daemon had left to do."""
    worker = Worker(
        store,
        forgotten.file_beside(config.database),
        meanwhile=lambda: stop.asked is None,
        outboxes=config.outbox_directory,
    )
    while worker.due_s < float("inf"):
        stop.check()
        time.sleep(max(0.0, worker.due_s - time.monotonic()))
        worker.step()
