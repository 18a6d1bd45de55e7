"""`logd restore`: replaces the database by a backup, and records that in the trail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logd.audit import anchor_comparison
from logd.batch import LOST_CLAIMED, LOST_RESTORED, Batch
from logd.clock.readings import Reading
from logd.config.settings import Config
from logd.errors import CannotCreate, KeyFileError, NoDatabase
from logd.maintenance import database_copy, database_swap, rekey
from logd.maintenance.database_copy import Bar, Checked, Stop
from logd.maintenance.worker import Worker
from logd.storage import erasure_list, keyfile, last_verification, trail_clock
from logd.storage.database import Connection, DatabaseError, change_key, connect, translate
from logd.storage.migrations import check_not_newer, schema_version
from logd.storage.opening import opened_store
from logd.storage.store import Store
from logd.storage.time_blocks import IN_ANY_BLOCK
from logd.storage.trail_id import read_trail_id
from logd.storage.tree_head import Head, read_head
from logd_wire.schema import INT64_MAX, RESERVED_TYPES

KIND = "replaced"

CopyRow = tuple[str, int, int | None, str]


@dataclass(frozen=True)
class AdvancedProducer:
    """A producer that has a higher watermark than in the backup, or has ended since."""

    uid: int
    id: int
    watermark: int
    known: int  # its watermark, without events that an outbox only claimed
    has_outbox: bool  # its outbox may still exist, and hold some of the events
    pid: int


@dataclass(frozen=True)
class Replaced:
    """The database that is to be replaced; `head` is None if it cannot be read."""

    there: bool
    head: Head | None = None
    restores: tuple[anchor_comparison.Restore, ...] = ()
    forgotten: dict[bytes, int] = field(default_factory=dict)
    copies: tuple[CopyRow, ...] = ()
    ahead: tuple[AdvancedProducer, ...] = ()
    clock: Reading | None = None  # the last trusted reading in the replaced database
    trail_id: str | None = None

    def batch_max(self, kept: int) -> int | None:
        """Returns the highest batch ever stored, as this database knows it; None if unknown.

        Batches above `kept` are not in the backup.
        """
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
    """A verified backup, and the database that it would replace."""

    backup: Path
    backup_key: bytes
    key: bytes
    found: Checked
    replaced: Replaced


@dataclass(frozen=True)
class Restored:
    """The result of a restore: the new database, and the path of the old one, if there was one."""

    made: Checked
    kept: Path | None
    seconds: float


def plan(config: Config, backup: Path, key_file: Path | None, stop: Stop, bar: Bar) -> Plan:
    """Verifies the backup and reads the present database; changes nothing. Raises a LogdError.

    The caller holds the instance's lock, as for `restore`.
    """
    key = keyfile.read(config.key_file)
    rekey.complete_rekey(config, key)
    database_swap.remove_leftovers(config)
    if not backup.is_file():
        if backup.exists():
            raise NoDatabase(f"{backup}: is not a file. Name the file of a backup.")
        raise NoDatabase(f"{backup}: no such file to restore.")
    if config.database.exists() and backup.samefile(config.database):
        raise CannotCreate(f"{backup}: is the database itself. Name a backup of it.")
    backup_key = key if key_file is None else keyfile.read_file(key_file)
    with _open(backup, backup_key) as connection:
        check_not_newer(connection)
        if schema_version(connection) == 0:
            raise NoDatabase(f"{backup}: it contains no trail.")
        found = database_copy.check(backup, backup_key, stop, bar)
        return Plan(backup, backup_key, key, found, _inspect_replaced(config, key, connection))


def restore(config: Config, planned: Plan, now_ns: int, stop: Stop, bar: Bar) -> Restored:
    """Makes a new database of the backup, and puts it in place.

    Raises a LogdError; then the database is unchanged.
    """
    began_s = time.monotonic()
    database, key = config.database, planned.key
    owner = database_swap.owner(config)
    kept = None
    if planned.replaced.there:
        kept = database_copy.dated_path(database, "before", now_ns)
    # The list is written first, so that persons forgotten
    # since the backup are erased whatever happens later.
    listed = erasure_list.read_file(erasure_list.file_beside(planned.backup))
    for entries in (listed, planned.replaced.forgotten):
        erasure_list.merge_file(erasure_list.file_beside(database), entries)
    new = database_swap.new_database_path(config)
    try:
        with _open(planned.backup, planned.backup_key) as connection:
            database_copy.copy(connection, planned.backup, new, stop, bar)
        if planned.backup_key != key:
            _change_key(new, planned.backup_key, key)
        with opened_store(config, key, now_ns, new) as store:
            _record_restore(store, planned, kept, now_ns)
            _finish_jobs(store, config, stop)
        made = database_copy.check(new, key, stop, bar)
        database_copy.give_to_owner_of(owner, new)
        database_copy.sync(new)
        database_swap.replace_database(config, new, kept)
        # The result of the last `verify` is of the replaced database.
        last_verification.path_of(config.database).unlink(missing_ok=True)
    finally:
        database_copy.remove(new)
    return Restored(made, kept, time.monotonic() - began_s)


@contextmanager
def _open(path: Path, key: bytes) -> Iterator[Connection]:
    try:
        connection = connect(path, key, read_only=True)
    except KeyFileError as error:
        raise KeyFileError(
            f"{error} A backup made before a change of the key needs the old key: --key-file FILE "
            "(`logd rekey` keeps it beside the present one)."
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


def _inspect_replaced(config: Config, key: bytes, backup: Connection) -> Replaced:
    """Reads the database that is to be replaced, after moving its WAL into it."""
    there = config.database.exists()
    connection = database_swap.merge_wal(config.database, key)
    if connection is None:
        return Replaced(there)
    try:
        head, _ = read_head(connection)
        tables = {
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        }
        persons: dict[bytes, int] = {}
        copies: list[CopyRow] = []
        if "forgotten" in tables:
            persons = erasure_list.entries(connection)
        if "copy" in tables:
            copies = connection.execute(
                "SELECT kind, made_ns, expires_ns, place FROM copy ORDER BY id"
            ).fetchall()
        return Replaced(
            there,
            head,
            tuple(anchor_comparison.restores(connection)),
            persons,
            tuple(copies),
            tuple(_advanced_producers(connection, backup)),
            trail_clock.load(connection),
            read_trail_id(connection),
        )
    except DatabaseError:
        return Replaced(there)  # the database is damaged, and nothing of it can be kept
    finally:
        connection.close()


def _advanced_producers(connection: Connection, backup: Connection) -> Iterator[AdvancedProducer]:
    """Yields producers that have advanced since the backup, except those of internal events."""
    own = {
        row
        for (row,) in connection.execute(
            f"SELECT DISTINCT e.producer FROM event e WHERE {IN_ANY_BLOCK} AND e.type IN"  # noqa: S608 - question marks only
            f" (SELECT id FROM event_type WHERE name IN ({', '.join('?' * len(RESERVED_TYPES))}))",
            list(RESERVED_TYPES),
        )
    }
    claimed = dict(
        connection.execute(
            "SELECT producer, min(first) FROM loss WHERE cause = ? GROUP BY producer",
            (LOST_CLAIMED,),
        )
    )
    # The watermarks that an earlier restore recorded, for producers that have sent nothing since.
    earlier: dict[tuple[int, str], int] = {}
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
        # Producers of readings have an outbox if an earlier version's report process logged them.
        if (has_outbox or row not in own) and max((watermark, ended), (before, 0)) > known:
            before = max(before, min(watermark, claimed.get(row, watermark + 1) - 1))
            outbox = bool(has_outbox and not ended)
            yield AdvancedProducer(uid, int(key, 16), watermark, before, outbox, pid)


def _record_losses(store: Store, batch: Batch, advanced: AdvancedProducer) -> None:
    """Records as lost, with their sequences, the events that exist nowhere any more.

    If an outbox may still hold some of them, the daemon decides after reading it.
    """
    producer = store.producer(advanced.uid, advanced.id)
    producer.pid, producer.has_outbox = advanced.pid, advanced.has_outbox
    producer.ended = not advanced.has_outbox
    batch.touch(producer)
    if not producer.ended:
        return
    for upto, cause in ((advanced.known, LOST_RESTORED), (advanced.watermark, LOST_CLAIMED)):
        if upto > producer.taken:
            batch.add_loss(producer, producer.taken + 1, upto, cause)
            producer.taken = upto


def _record_restore(store: Store, planned: Plan, kept: Path | None, now_ns: int) -> None:
    """Records the restore: its event, copies that the replaced database knows, and losses."""
    found, replaced = planned.found, planned.replaced
    props: dict[str, Any] = {
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
    if replaced.trail_id not in (None, store.trail_id):
        # The event accounts for the anchors of the replaced trail.
        props["replaced_trail"] = replaced.trail_id
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
                (advanced.uid, f"{advanced.id:016x}", advanced.known)
                for advanced in replaced.ahead
                if advanced.has_outbox
            ],
        )
        # The batch has no limit, since the numbers are from a database.
        losses = Batch(0, 0, loss_events_max=INT64_MAX)
        for advanced in replaced.ahead:
            _record_losses(store, losses, advanced)
        batch.losses += losses.losses
        batch.producers |= losses.producers
        store.append_internal_event(batch, "trail_restored", props, now_ns)

    store.transact(work, now_ns)


def _finish_jobs(store: Store, config: Config, stop: Stop) -> None:
    """Erases persons forgotten since the backup, and finishes all other jobs."""
    worker = Worker(
        store,
        erasure_list.file_beside(config.database),
        keep_going=lambda: stop.asked is None,
        outboxes=config.outbox_directory,
    )
    while worker.due_s < float("inf"):
        stop.check()
        time.sleep(max(0.0, worker.due_s - time.monotonic()))
        worker.step()
