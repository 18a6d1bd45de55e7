"""A copy of a database that can be relied on: consistent, encrypted, looked through, on the disk.

It is made under a name that says that it is unfinished; who has copied, checked and flushed it
gives it another. What a killed program leaves under such a name is nothing to anybody.
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

from logd.atomic_file import sync
from logd.audit.verify import verify
from logd.errors import (
    EXIT_NOT_WHOLE,
    EXIT_TEMPORARY,
    CannotCreate,
    DatabaseDamaged,
    KeyFileError,
    LogdError,
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
from logd.storage.hash_chain import GENESIS, Head

PROGRESS_STEPS = 20_000  # of SQLite's machine, between two looks at signals and at how far it is
FINDINGS_SHOWN = 3
SIDE_FILES = ("-wal", "-shm", "-journal")

# Called with what is done and how much of it there is; gives a function that takes steps of that.
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Interrupted(LogdError):
    """Somebody wanted this to end; what was unfinished is removed."""

    exit_code = EXIT_TEMPORARY


class NotWhole(LogdError):
    """A copy does not verify."""

    exit_code = EXIT_NOT_WHOLE


class Stop:
    """SIGINT, SIGTERM or SIGHUP, noted: the work looks at it between two steps, and cleans up."""

    def __init__(self) -> None:
        self.asked: str | None = None

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """A signal's handler."""
        self.asked = signal.Signals(number).name

    def check(self) -> None:
        """Raises Interrupted if there was one."""
        if self.asked is not None:
            raise Interrupted(f"ended by {self.asked}. What was unfinished is removed.")


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Notes signals instead of dying of them; in the main thread."""
    stop = Stop()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if number != signal.SIGHUP or handler is not signal.SIG_IGN:
            signal.signal(number, stop.note)  # under nohup SIGHUP stays ignored
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Checked:
    """A database that was whole when it was looked through. Times in nanoseconds since 1970."""

    head: Head
    stored_ns: int | None
    bytes: int


def head_of(connection: Connection) -> tuple[Head, int | None]:
    """Where the chain ends, and when that was stored."""
    row = connection.execute(
        "SELECT id, first_event + events - 1, hash, stored_ns FROM batch ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return (Head(*row[:3]), row[3]) if row else (Head(0, 0, GENESIS), None)


def bytes_of(connection: Connection) -> int:
    """The size of its pages."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page_bytes)  # SQLCipher says the latter as text


def copy(connection: Connection, source: Path, target: Path, stop: Stop, bar: Bar) -> None:
    """Copies the open database `source` into a new file, which only its owner may read.

    Raises LogdError kinds; then the new file is for the caller to remove.
    """
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise cannot_write(target, error) from error
    with bar("copying", bytes_of(connection)) as step:
        done = 0

        def look() -> int:
            nonlocal done
            with contextlib.suppress(OSError):
                size = target.stat().st_size
                step(size - done)
                done = size
            return stop.asked is not None

        connection.set_progress_handler(look, PROGRESS_STEPS)
        try:
            copy_into(connection, target)
        except DatabaseError as error:
            if is_interrupt(error):
                stop.check()
            problem = translate(error, target)
            if isinstance(problem, DatabaseDamaged | KeyFileError):
                problem = translate(error, source)  # what could not be read, not what was written
            raise problem from error
        finally:
            connection.set_progress_handler(None, 0)
    stop.check()


def check(path: Path, key: bytes, stop: Stop, bar: Bar) -> Checked:
    """Opens the file and recomputes all of it. Raises NotWhole with what is wrong, Interrupted,
    and what `connect` raises.
    """
    connection = connect(path, key, read_only=True)
    try:
        connection.set_progress_handler(lambda: stop.asked is not None, PROGRESS_STEPS)
        head, stored_ns = head_of(connection)
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
        return Checked(head, stored_ns, bytes_of(connection))
    except DatabaseError as error:
        stop.check()
        raise translate(error, path) from error
    finally:
        connection.close()


def flush(path: Path) -> None:
    """Has a file, or a directory's names, on the disk. Raises LogdError kinds."""
    try:
        sync(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def give_to_owner_of(model: Path, path: Path) -> None:
    """What root makes is to be used by who owns `model`. Raises CannotCreate."""
    if os.geteuid() != 0:
        return
    try:
        status = model.stat()
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    except OSError as error:
        raise CannotCreate(f"{path}: cannot be given to its owner: {error.strerror}") from error


def remove(path: Path) -> None:
    """Removes a database that nobody uses, with what SQLite may have put beside it."""
    remove_side_files(path)
    path.unlink(missing_ok=True)


def remove_side_files(path: Path) -> None:
    """Removes what SQLite may have put beside a database that nobody uses."""
    for suffix in SIDE_FILES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def time_name(now_ns: int) -> str:
    """A moment in UTC, as names of files have it."""
    return f"{datetime.fromtimestamp(now_ns // 10**9, UTC):%Y%m%dT%H%M%SZ}"


def dated(path: Path, word: str, now_ns: int) -> Path:
    """A name for what stood at `path` before that moment; nothing is there yet."""
    name = f"{path.name}.{word}-{time_name(now_ns)}"
    names = (path.with_name(name), *(path.with_name(f"{name}-{n}") for n in range(2, 100)))
    return next((free for free in names if not os.path.lexists(free)), names[0])
