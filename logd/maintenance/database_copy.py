"""Copies a database consistently and encrypted, verifies the copy, and flushes it to disk.

The copy has a name that marks it as unfinished; the caller renames it once it is copied, checked
and flushed. A file that a killed program leaves under such a name is ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from logd.atomic_file import sync_path
from logd.audit.verify import verify
from logd.errors import (
    EXIT_NOT_WHOLE,
    EXIT_TEMPORARY,
    CannotCreate,
    DatabaseDamaged,
    KeyFileError,
    LogdError,
    NotChecked,
    cannot_write,
)
from logd.storage.database import (
    Connection,
    DatabaseError,
    connect,
    copy_into,
    is_interrupt,
    translate,
)
from logd.storage.tree_head import Head, read_head
from logd.storage.wal import database_bytes

PROGRESS_STEPS = 20_000  # instructions of SQLite's virtual machine between two checks for a signal
FINDINGS_SHOWN = 3
SIDE_FILES = ("-wal", "-shm", "-journal")

# A function called with a label and a total; it yields a function that adds to the progress.
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Interrupted(LogdError):
    """A signal ended the command, and its unfinished work was removed."""

    exit_code = EXIT_TEMPORARY


class NotWhole(LogdError):
    """A copy of the database does not verify."""

    exit_code = EXIT_NOT_WHOLE


class Stop:
    """Holds a received SIGINT, SIGTERM or SIGHUP; the work checks it between two steps."""

    def __init__(self) -> None:
        self.asked: str | None = None

    def handle_signal(self, number: int, _frame: FrameType | None = None) -> None:
        """Records a received signal; installed as the handler."""
        self.asked = signal.Signals(number).name

    def check(self) -> None:
        """Raises Interrupted if a signal was received."""
        if self.asked is not None:
            raise Interrupted(f"ended by {self.asked}. What was unfinished is removed.")


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Records signals instead of ending the process by them. Used in the main thread."""
    stop = Stop()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if number != signal.SIGHUP or handler is not signal.SIG_IGN:
            # With nohup, SIGHUP stays ignored.
            signal.signal(number, stop.handle_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Checked:
    """A database that was verified. Times are in nanoseconds since 1970."""

    head: Head
    stored_ns: int | None
    bytes: int


def copy(connection: Connection, source: Path, target: Path, stop: Stop, bar: Bar) -> None:
    """Copies the open database `source` into a new file that only its owner may read.

    Raises a LogdError; then the caller removes the new file.
    """
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise cannot_write(target, error) from error
    with bar("copying", database_bytes(connection)) as step:
        done = 0

        def report() -> int:
            nonlocal done
            with contextlib.suppress(OSError):
                size = target.stat().st_size
                step(size - done)
                done = size
            return stop.asked is not None

        connection.set_progress_handler(report, PROGRESS_STEPS)
        try:
            copy_into(connection, target)
        except DatabaseError as error:
            if is_interrupt(error):
                stop.check()
            problem = translate(error, target)
            if isinstance(problem, DatabaseDamaged | KeyFileError):
                problem = translate(error, source)  # the damaged file is the source
            raise problem from error
        finally:
            connection.set_progress_handler(None, 0)
    stop.check()


def check(path: Path, key: bytes, stop: Stop, bar: Bar) -> Checked:
    """Opens the file and verifies it. Raises NotWhole with the findings, or Interrupted.

    Also raises what `connect` raises.
    """
    connection = connect(path, key, read_only=True)
    try:
        connection.set_progress_handler(lambda: stop.asked is not None, PROGRESS_STEPS)
        head, stored_ns = read_head(connection)
        with bar("verifying", head.events) as step:

            def checked(events: int) -> None:
                stop.check()
                step(events)

            verdict = verify(connection, checked)
        stop.check()
        if not verdict.whole:
            found = "; ".join(verdict.findings[:FINDINGS_SHOWN])
            more = len(verdict.findings) - FINDINGS_SHOWN
            raise NotWhole(f"{path}: not whole: {found}{f'; and {more} more' * (more > 0)}")
        return Checked(head, stored_ns, database_bytes(connection))
    except (DatabaseError, NotChecked) as error:
        stop.check()  # a signal may have interrupted the statement
        raise (error if isinstance(error, NotChecked) else translate(error, path)) from error
    finally:
        connection.close()


def sync(path: Path) -> None:
    """Flushes a file, or a directory's entries, to disk. Raises a LogdError."""
    try:
        sync_path(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def give_to_owner_of(model: Path, path: Path) -> None:
    """Gives the file the owner of `model`, if this is root. Raises CannotCreate."""
    if os.geteuid() != 0:
        return
    try:
        status = model.stat()
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    except OSError as error:
        raise CannotCreate(f"{path}: cannot be given to its owner: {error.strerror}") from error


def remove(path: Path) -> None:
    """Removes an unused database, with the files that SQLite may have put beside it."""
    remove_side_files(path)
    path.unlink(missing_ok=True)


def remove_side_files(path: Path) -> None:
    """Removes the files that SQLite may have put beside an unused database."""
    for suffix in SIDE_FILES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def format_time(now_ns: int) -> str:
    """Formats a time in UTC for the name of a file."""
    return f"{datetime.fromtimestamp(now_ns // 10**9, UTC):%Y%m%dT%H%M%SZ}"


def dated_path(path: Path, word: str, now_ns: int) -> Path:
    """Returns an unused path for a former file, named after the time when its use ended."""
    name = f"{path.name}.{word}-{format_time(now_ns)}"
    names = (path.with_name(name), *(path.with_name(f"{name}-{n}") for n in range(2, 100)))
    return next((free for free in names if not os.path.lexists(free)), names[0])
