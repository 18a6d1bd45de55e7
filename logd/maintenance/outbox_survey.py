"""Reads the last sequence written in each outbox, a page of outboxes at a time.

A forget uses it: events up to that sequence were made before it. Clients and daemon may run. The
files are untrusted input: they are opened read-only, never mapped or locked, and at most
FILES_PER_USER_MAX of one user are read.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Generator
from pathlib import Path

from logd.errors import StorageBusy
from logd.ingest.outbox_directory import OutboxDirectory
from logd.ingest.outbox_reader import check_numbers
from logd.storage.boundaries import NO_OUTBOXES, Key, SurveyedOutboxes, identity
from logd.storage.database import Connection
from logd_wire.rendezvous import current_boot_id, read_token
from logd_wire.wire import WireError

FILES_PER_USER_MAX = 4000
PAGE_FILES = 100

_log = logging.getLogger("logd")


def directory_identity(directory: Path) -> str:
    """Returns the identity of the directory now; NO_OUTBOXES if it does not exist."""
    try:
        status = directory.stat()
    except OSError:
        return NO_OUTBOXES
    token = read_token(str(directory)) or f"{status.st_dev}:{status.st_ino}"
    return identity(current_boot_id(), token)


def survey(
    directory: Path, connection: Connection, *, known: bool
) -> Generator[None, None, SurveyedOutboxes]:
    """Reads the headers of all outboxes, and yields after each page.

    With `known`, all input on its way to the daemon is committed, so that stored producers need a
    boundary only if their outbox holds events. Raises StorageBusy if the directory cannot be listed
    or a file cannot be opened now, since events of a skipped file would not be erased.
    """
    named = directory_identity(directory)
    if named == NO_OUTBOXES:
        return SurveyedOutboxes()
    outboxes = OutboxDirectory(directory, read_only=True)
    written: dict[Key, int | None] = {}
    keys: set[Key] = set()
    files: Counter[int] = Counter()
    surplus: set[int] = set()
    try:
        outboxes.attach()
        names = outboxes.names()
        while page := list(itertools.islice(names, PAGE_FILES)):
            for name, uid, producer_id in page:
                key = uid, producer_id
                watermark = _watermark(connection, key)
                try:
                    sequence = _written(outboxes, name, key, watermark or 0)
                except WireError as error:
                    if error.uid not in (None, uid):
                        continue  # the file is another user's, and not this producer's outbox
                    sequence = None
                files[uid] += 1
                if files[uid] > FILES_PER_USER_MAX:
                    surplus.add(uid)
                    continue
                keys.add(key)
                decided = 0 if watermark is None else watermark if known else -1
                if sequence is None or sequence > decided:
                    written[key] = sequence
            yield
    except OSError as error:
        raise StorageBusy(f"the outboxes cannot be read now: {error.strerror}.") from error
    finally:
        outboxes.close()
    for uid in surplus:
        _log.warning(
            "user %d has %d outboxes, more than %d: which of their events are erased is decided by "
            "the time that they claim",
            uid, files[uid], FILES_PER_USER_MAX,
        )  # fmt: skip
    return SurveyedOutboxes(named, written, frozenset(keys), frozenset(surplus))


def _written(outboxes: OutboxDirectory, name: str, key: Key, watermark: int) -> int | None:
    """Returns the last sequence written in an outbox; None if it cannot be opened.

    Returns 0 if the outbox was removed meanwhile, since all of it is stored. Raises WireError.
    """
    outbox = outboxes.open(name, *key)
    if outbox is None:
        return None if outboxes.has(name) else 0
    try:
        check_numbers(outbox.header, watermark)
        return outbox.header.written
    finally:
        outboxes.release(outbox)


def _watermark(connection: Connection, key: Key) -> int | None:
    row = connection.execute(
        "SELECT watermark FROM producer WHERE uid = ? AND key = ?", (key[0], f"{key[1]:016x}")
    ).fetchone()
    return None if row is None else int(row[0])
