"""`logd backup`: a complete, encrypted copy of the running database, named after its time.

Only files with a backup's name are removed, and only once a newer backup is verified and on disk.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from logd.clock import readings
from logd.clock.readings import Reading
from logd.config.settings import Config
from logd.errors import CannotCreate, ClockRefused, LogdError, StorageBusy, cannot_write
from logd.maintenance import database_copy
from logd.maintenance.database_copy import Bar, Stop
from logd.storage import erasure_list, keyfile, opening, trail_clock
from logd.storage.copy_registry import BACKUP, Copy, list_copies, register_copy
from logd.storage.database import Connection
from logd.storage.migrations import schema_version
from logd.storage.tree_head import Head
from logd.storage.wal import database_bytes

DAY_NS = 86_400 * 10**9
FORGOTTEN_SCHEMA = 3  # the first schema with a list of forgotten persons


@dataclass(frozen=True)
class Keep:
    """Which backups of a directory to keep: the newest `count`, or those of the last `days` days.

    If both are None, all are kept. By days, the newest `least` are kept however old they are.
    """

    count: int | None = None
    days: int | None = None
    least: int = 2


@dataclass(frozen=True)
class Backup:
    """A backup that is verified and on disk.

    `unrecorded` says why it is not recorded in the trail, `kept_all` why no older backup was
    removed, `not_removed` why some were not.
    """

    path: Path
    head: Head
    bytes: int
    seconds: float
    made_ns: int
    expires_ns: int | None
    removed: tuple[str, ...]
    not_removed: Mapping[str, str]
    kept_all: str | None
    unrecorded: str | None


def backup(
    config: Config,
    destination: Path | None,
    keep: Keep | None,
    now: Reading,
    stop: Stop,
    bar: Bar,
    *,
    yes: bool = False,
) -> Backup:
    """Makes a backup in `destination`, a directory or a new file.

    The default directory is the configuration's, and there the configuration's days apply unless
    `keep` is given. If the clock is not trusted, no backup is removed by days, except with `yes`.
    Raises a LogdError, and then leaves no file.
    """
    began_s = time.monotonic()
    with contextlib.closing(opening.open_for_reading(config)) as connection:
        now_ns = readings.stamp_ns(trail_clock.load(connection), now)
        directory, name = _place(config, destination, now_ns)
        with _directory(config, directory, name) as unfinished:
            _check_room(connection, directory)
            database_copy.copy(connection, config.database, unfinished, stop, bar)
            checked = database_copy.check(unfinished, keyfile.read(config.key_file), stop, bar)
            database_copy.give_to_owner_of(config.database, unfinished)
            database_copy.sync(unfinished)
            list_forgotten(connection, directory / name)
            unfinished.rename(directory / name)
            database_copy.sync(directory)
        if keep is None:
            days = None if destination is not None else config.backup_keep_days or None
            keep = Keep(days=days, least=config.backup_keep_min)
        kept_all = None
        if keep.days is not None:
            try:
                trail_clock.check(config, connection, now, "no older backup was removed", yes=yes)
            except ClockRefused as problem:
                kept_all = str(problem)
    removed: list[str] = []
    not_removed: dict[str, str] = {}
    if not kept_all:
        for old in _expired(directory, config.database, name, keep, now_ns):
            try:
                (directory / old).unlink()
                removed.append(old)
            # The next backup tries again to remove an old backup that could not be removed.
            except OSError as error:
                not_removed[old] = error.strerror or str(error)
    expires_ns = None if keep.days is None else now_ns + keep.days * DAY_NS
    made = Backup(
        path=directory / name,
        head=checked.head,
        bytes=checked.bytes,
        seconds=time.monotonic() - began_s,
        made_ns=now_ns,
        expires_ns=expires_ns,
        removed=tuple(removed),
        not_removed=not_removed,
        kept_all=kept_all,
        unrecorded=None,
    )
    try:
        _record(config, made)
    except LogdError as problem:
        # A backup that is not recorded in the trail is still a good backup.
        return Backup(**{**vars(made), "unrecorded": str(problem)})
    return made


# -- places and names ----------------------------------------------------------------------------


def backup_name(database: Path, now_ns: int) -> str:
    """Returns the name of a backup made at that time, in UTC."""
    return f"{database.stem}-{database_copy.format_time(now_ns)}.db"


def expired(
    names: Iterable[str], database: Path, newest: str, keep: Keep, now_ns: int
) -> list[str]:
    """Returns the names of backups to remove, oldest first; never `newest` (pure).

    A backup named after a future time was made with a wrong clock: it stays, and does not count as
    one of the newest.
    """
    pattern = re.compile(rf"{re.escape(database.stem)}-\d{{8}}T\d{{6}}Z\.db")
    now_name = max(newest, backup_name(database, now_ns))
    ours = sorted(n for n in names if pattern.fullmatch(n) and n != newest and n <= now_name)
    if keep.count is not None:
        return ours[: max(0, len(ours) - (keep.count - 1))]
    if keep.days is not None:
        oldest = backup_name(database, now_ns - keep.days * DAY_NS)
        return [n for n in ours[: max(0, len(ours) - (keep.least - 1))] if n < oldest]
    return []


def _place(config: Config, destination: Path | None, now_ns: int) -> tuple[Path, str]:
    """Returns the directory and the name of the backup: in a directory, the next unused second.

    If the clock is wrong, the name has the earliest possible time, which the previous backup may
    have.
    """
    name, free = backup_name(config.database, now_ns), True
    if destination is None:
        directory = config.backup_directory
        try:
            directory.mkdir(mode=0o700, parents=True)
            database_copy.give_to_owner_of(config.database, directory)
        except FileExistsError:
            pass
        except OSError as error:
            raise cannot_write(directory, error) from error
    elif destination.is_dir():
        directory = destination.absolute()
    else:
        directory, name = destination.absolute().parent, destination.name
        free = False
    while free and os.path.lexists(directory / name):
        now_ns += 10**9
        name = backup_name(config.database, now_ns)
    if os.path.lexists(directory / name):
        raise CannotCreate(f"{directory / name}: already exists, and is not overwritten.")
    return directory, name


@contextlib.contextmanager
def _directory(config: Config, directory: Path, name: str) -> Iterator[Path]:
    """Locks the directory; yields a path for the unfinished backup, removed at the end."""
    unfinished = directory / f".{name}.partial"
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotCreate(f"{directory}: cannot be opened: {error.strerror}.") from error
    try:
        if _lock_directory(fd, directory):
            for path in directory.glob(f".{config.database.stem}-*.db.partial"):
                database_copy.remove(path)  # this file was left by a killed backup
        try:
            yield unfinished
        finally:
            database_copy.remove(unfinished)
    except OSError as error:
        raise cannot_write(directory, error) from error
    finally:
        os.close(fd)


def _lock_directory(fd: int, directory: Path) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise StorageBusy(
                f"{directory}: another backup is being written there. Wait until it ends."
            ) from error
        return False  # some file systems cannot lock a directory
    return True


def list_forgotten(connection: Connection, path: Path) -> None:
    """Writes the list of forgotten persons beside a backup. Raises a LogdError.

    With it, the backup is restored without these persons even if the database is lost.
    """
    if schema_version(connection) >= FORGOTTEN_SCHEMA:
        erasure_list.merge_file(erasure_list.file_beside(path), erasure_list.entries(connection))


def list_beside_backups(connection: Connection) -> Iterator[tuple[Path, LogdError]]:
    """Updates the list of forgotten persons beside each backup, for when one is restored."""
    copies = list_copies(connection)  # expired copies too, since their files may still exist
    for place in sorted({Path(copy.place) for copy in copies if copy.kind == BACKUP}):
        if place.is_file():
            try:
                list_forgotten(connection, place)
            except LogdError as problem:
                yield place, problem


def _check_room(connection: Connection, directory: Path) -> None:
    needed, free = database_bytes(connection), shutil.disk_usage(directory).free
    if needed > free:
        raise StorageBusy(
            f"{directory}: the backup takes up to {needed:,} bytes, {free:,} are free. "
            "Free some, or name another directory."
        )


def _expired(directory: Path, database: Path, newest: str, keep: Keep, now_ns: int) -> list[str]:
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    return expired(names, database, newest, keep, now_ns)


# -- the record in the trail ---------------------------------------------------------------------


def _record(config: Config, made: Backup) -> None:
    """Registers the backup as a copy, and records its event. Raises a LogdError."""
    props = {
        "place": str(made.path),
        "batch": made.head.batch,
        "events": made.head.events,
        "head": made.head.hash.hex(),
        "bytes": made.bytes,
        "expires_ns": made.expires_ns,
    }
    copy = Copy(BACKUP, str(made.path), made.made_ns, made.expires_ns)
    register_copy(config, copy, props, [str(made.path.parent / name) for name in made.removed])
