"""The instance's lock file: ensures one daemon at a time, and holds what `logd status` reads.

Its pages hold the daemon's pid and trouble; its runtime statistics; the users of reports, written
by the report process; and, in two pages, the files that the daemon depends on
(`logd.self_repair.runtime_files`).

`status` reads the pages even while the disk is full or the database locked, so writing them must
need neither. They are written and flushed when the lock is taken, and later only overwritten in
place, which takes no new block. (A file system that copies on write may refuse; then a page keeps
its old text, and only the line on stderr is new.) A half-written page fails its checksum and is
ignored. The lock shows whether the daemon that wrote the pages is running.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from logd.errors import AlreadyRunning, CannotCreate, cannot_write
from logd.runtime_stats import RuntimeStats
from logd_wire import liveness

PAGE_BYTES = 4096
FILES_BYTES = 2 * PAGE_BYTES
_READERS_OFFSET = 2 * PAGE_BYTES
_FILES_OFFSET = 3 * PAGE_BYTES
FILE_BYTES = _FILES_OFFSET + FILES_BYTES
# A character takes up to 12 bytes in JSON, and the page must hold all of them.
TROUBLE_CHARS_MAX = 300
_READ_TRIES = 3


@dataclass(frozen=True)
class Page:
    """The first page of the lock file. `made` is true once a database was created."""

    pid: int = 0
    made: bool = False
    trouble: str | None = None
    since_ns: int = 0

    def encode(self) -> bytes:
        """Returns the page as bytes."""
        return _encode(asdict(self))


def _encode(fields: dict[str, Any], length: int = PAGE_BYTES) -> bytes:
    """Returns a page as bytes: one line of JSON, its checksum, and blanks to fill the page."""
    text = json.dumps(fields)
    return f"{text}\n{zlib.crc32(text.encode()):08x}\n".encode().ljust(length)


def _fields(page: bytes) -> dict[str, Any]:
    """Returns the fields of a page. Raises ValueError if the page is half written or missing."""
    text, check = page.decode("ascii").split("\n")[:2]
    if int(check, 16) != zlib.crc32(text.encode()):
        raise ValueError("torn")
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("not a page")
    return fields


def _decode(page: bytes) -> Page | None:
    try:
        return Page(**_fields(page))
    except (ValueError, TypeError):
        return None


def _decode_runtime_stats(page: bytes) -> RuntimeStats | None:
    try:
        fields = _fields(page)
        fields["commit_counts"] = tuple(fields["commit_counts"])
        fields["ignored"] = tuple(fields.get("ignored", ()))
        return RuntimeStats(**fields)
    except (ValueError, TypeError, KeyError):  # the page is half written, or of another version
        return None


def _decode_files(page: bytes) -> list[dict[str, Any]] | None:
    try:
        files = _fields(page)["files"]
        return files if isinstance(files, list) else None
    except (ValueError, KeyError):
        return None


def _decode_readers(page: bytes) -> list[dict[str, Any]] | None:
    try:
        readers = _fields(page)["readers"]
        return readers if isinstance(readers, list) else None
    except (ValueError, KeyError):  # the page is half written, or was not written yet
        return None


class InstanceLock:
    """The lock of an instance while it is held, and the pages that its holder writes."""

    def __init__(self, path: Path, fd: int, now_ns: Callable[[], int]) -> None:
        self.path = path
        self._fd = fd
        self._now_ns = now_ns
        before = _decode(os.pread(fd, PAGE_BYTES, 0))
        self._page = Page(os.getpid(), made=before is not None and before.made)
        # The last daemon's statistics stay until there are new ones.
        self._lay_out(fd, os.pread(fd, PAGE_BYTES, PAGE_BYTES))

    def _lay_out(self, fd: int, figures: bytes) -> None:
        pages = self._page.encode() + figures.ljust(PAGE_BYTES)
        os.pwrite(fd, pages.ljust(FILE_BYTES), 0)
        os.ftruncate(fd, FILE_BYTES)
        os.fsync(fd)

    def put_back(self) -> None:
        """Creates the lock file again, with lock and pages, if it was removed or replaced.

        Raises AlreadyRunning if another daemon has locked it since, and OSError.
        """
        fd = _open_locked(self.path)
        try:
            self._lay_out(fd, os.pread(self._fd, PAGE_BYTES, PAGE_BYTES))
            former, self._fd = self._fd, fd
        except BaseException:
            former = fd
            raise
        finally:
            os.close(former)
            # If both descriptors are of the same file,
            # which was moved back, closing one dropped the lock.
            liveness.acquire(self._fd)

    def close(self) -> None:
        """Releases the instance's lock."""
        os.close(self._fd)

    @property
    def page(self) -> Page:
        """The first page of the lock file, as it was last written."""
        return self._page

    @property
    def database_made(self) -> bool:
        """Whether an earlier daemon created this instance's database."""
        return self._page.made

    def mark_database_made(self) -> None:
        """Records that the database exists: a missing or empty one is an error from now on."""
        if not self._page.made:
            self._write(Page(self._page.pid, True, self._page.trouble, self._page.since_ns))
            with contextlib.suppress(OSError):
                os.fsync(self._fd)

    def set_trouble(self, trouble: str | None) -> None:
        """Publishes why nothing can be stored, and since when; None ends the trouble."""
        before = self._page.trouble
        trouble = trouble if trouble is None else trouble[:TROUBLE_CHARS_MAX]
        if trouble == before:
            return
        since_ns = 0 if trouble is None else self._page.since_ns if before else self._now_ns()
        self._write(Page(self._page.pid, self._page.made, trouble, since_ns))

    def publish_stats(self, figures: RuntimeStats) -> None:
        """Publishes runtime statistics in the lock file."""
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, _encode(asdict(figures)), PAGE_BYTES)

    def publish_files(self, files: list[dict[str, Any]]) -> None:
        """Publishes the files that this daemon depends on (`logd.self_repair.runtime_files`)."""
        data = _encode({"files": files}, FILES_BYTES)
        # A list with very long paths exceeds its part of the lock file, and is not published.
        if len(data) <= FILES_BYTES:
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, data, _FILES_OFFSET)

    def _write(self, page: Page) -> None:
        self._page = page
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, page.encode(), 0)


@contextlib.contextmanager
def instance_lock(path: Path, now_ns: Callable[[], int] = time.time_ns) -> Iterator[InstanceLock]:
    """Holds the instance's lock in a `with` block. Raises AlreadyRunning with the holder's pid."""
    fd = _open_locked(path)
    try:
        held = InstanceLock(path, fd, now_ns)
    except OSError as error:
        os.close(fd)
        raise cannot_write(path, error) from error
    try:
        yield held
    finally:
        held.close()


def _open_locked(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotCreate(
            f"{path}: the lock file cannot be created: {error.strerror}. logd writes next to its "
            "database: check that folder's permissions and how its file system is mounted."
        ) from error
    if not liveness.acquire(fd):
        page = _decode(os.pread(fd, PAGE_BYTES, 0))
        os.close(fd)
        raise AlreadyRunning(
            f"{path}: another logd (pid {page.pid if page else 'unknown'}) serves this "
            "instance. Stop it first."
        )
    return fd


def read_lock_page(path: Path) -> tuple[int | None, Page]:
    """Returns the pid of the daemon that holds the lock, or None, and the first page.

    Never waits. If the file is missing or damaged, the page is empty.
    """
    with _opened(path) as fd:
        if fd is None:
            return None, Page()
        return liveness.lock_holder(fd), _try(_decode, fd, 0) or Page()


def read_runtime_stats(path: Path) -> RuntimeStats | None:
    """Returns the statistics of the running daemon, or of the last one; None if there are none."""
    with _opened(path) as fd:
        return None if fd is None else _try(_decode_runtime_stats, fd, PAGE_BYTES)


def publish_readers(path: Path, readers: list[dict[str, Any]]) -> None:
    """Publishes the users of reports. Called by the report process, which does not hold the lock.

    (A process that holds it must not do this: closing the file drops the process's locks on it.)
    """
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(fd, _encode({"readers": readers}), _READERS_OFFSET)
        finally:
            os.close(fd)


def read_runtime_files(path: Path) -> list[dict[str, Any]]:
    """Returns the files that the running daemon depends on, as it has published them."""
    with _opened(path) as fd:
        if fd is None or liveness.lock_holder(fd) is None:
            return []
        return _try(_decode_files, fd, _FILES_OFFSET, FILES_BYTES) or []


def read_report_usage(path: Path) -> list[dict[str, Any]]:
    """Returns the users of reports since the report process started, the heaviest first."""
    with _opened(path) as fd:
        return [] if fd is None else _try(_decode_readers, fd, _READERS_OFFSET) or []


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        # With O_NONBLOCK the open does not wait for the writer of a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield fd if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


T = TypeVar("T")


def _try(
    decode: Callable[[bytes], T | None], fd: int, offset: int, length: int = PAGE_BYTES
) -> T | None:
    found = None
    for _ in range(_READ_TRIES):  # a page may be overwritten while it is read
        found = found or decode(os.pread(fd, length, offset))
    return found
