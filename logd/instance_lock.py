"""The instance's lock file: one daemon at a time, a page in which it says what troubles it, a
second one with figures of how it goes, a third in which the report process says who asks, and two
more with the files that the daemon depends on (`logd.self_repair.runtime_files`).

`status` reads the pages while the disk is full or the database locked, so writing them must need
neither: they are written whole and flushed when the lock is taken, and later only overwritten in
place, which takes no new block (one that copies on write may refuse; then a page keeps what it
said, and the line on stderr is all there is). A page that a crash tore fails its check sum and says
nothing; one that a killed daemon left is told from a running one's by the lock.
"""

from __future__ import annotations

import contextlib
import json
import os
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
TROUBLE_CHARS_MAX = 300  # of up to 12 bytes each in JSON: the page holds them
_READ_TRIES = 3


@dataclass(frozen=True)
class Page:
    """What the lock file holds. `made`: a database has been made for this instance."""

    pid: int = 0
    made: bool = False
    trouble: str | None = None
    since_ns: int = 0

    def encode(self) -> bytes:
        """The page's bytes."""
        return _encode(asdict(self))


def _encode(fields: dict[str, Any], length: int = PAGE_BYTES) -> bytes:
    """One line of JSON, its check sum, and blanks up to the page's end."""
    text = json.dumps(fields)
    return f"{text}\n{zlib.crc32(text.encode()):08x}\n".encode().ljust(length)


def _fields(page: bytes) -> dict[str, Any]:
    """What a page says. Raises ValueError when it is torn, or none."""
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


def _decode_figures(page: bytes) -> RuntimeStats | None:
    try:
        fields = _fields(page)
        fields["commit_counts"] = tuple(fields["commit_counts"])
        fields["ignored"] = tuple(fields.get("ignored", ()))
        return RuntimeStats(**fields)
    except (ValueError, TypeError, KeyError):  # torn, or another version's
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
    except (ValueError, KeyError):  # torn, or nothing said yet
        return None


class InstanceLock:
    """The lock while it is held: what its holder says of itself."""

    def __init__(self, path: Path, fd: int, now_ns: Callable[[], int]) -> None:
        self.path = path
        self._fd = fd
        self._now_ns = now_ns
        before = _decode(os.pread(fd, PAGE_BYTES, 0))
        self._page = Page(os.getpid(), made=before is not None and before.made)
        # The last daemon's, until ours are there.
        self._lay_out(fd, os.pread(fd, PAGE_BYTES, PAGE_BYTES))

    def _lay_out(self, fd: int, figures: bytes) -> None:
        pages = self._page.encode() + figures.ljust(PAGE_BYTES)
        os.pwrite(fd, pages.ljust(FILE_BYTES), 0)
        os.ftruncate(fd, FILE_BYTES)
        os.fsync(fd)

    def put_back(self) -> None:
        """Makes the file again, with the lock and all that it says, where its name is gone or a
        copy's.

        Raises AlreadyRunning when another daemon has it locked by now, and OSError.
        """
        fd = _open_locked(self.path)
        try:
            self._lay_out(fd, os.pread(self._fd, PAGE_BYTES, PAGE_BYTES))
        except BaseException:
            os.close(fd)
            raise
        former, self._fd = self._fd, fd
        os.close(former)

    def close(self) -> None:
        """Lets go of the lock."""
        os.close(self._fd)

    @property
    def page(self) -> Page:
        """What the page says now."""
        return self._page

    @property
    def database_made(self) -> bool:
        """Whether an earlier daemon made this instance's database."""
        return self._page.made

    def mark_database_made(self) -> None:
        """From now on an empty or missing database is no new one."""
        if not self._page.made:
            self._write(Page(self._page.pid, True, self._page.trouble, self._page.since_ns))
            with contextlib.suppress(OSError):
                os.fsync(self._fd)

    def set_trouble(self, trouble: str | None) -> None:
        """Says what nothing can be stored for, or that it is over. The first time counts."""
        said = self._page.trouble
        trouble = trouble if trouble is None else trouble[:TROUBLE_CHARS_MAX]
        if trouble == said:
            return
        since_ns = 0 if trouble is None else self._page.since_ns if said else self._now_ns()
        self._write(Page(self._page.pid, self._page.made, trouble, since_ns))

    def publish_stats(self, figures: RuntimeStats) -> None:
        """Says how it goes."""
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, _encode(asdict(figures)), PAGE_BYTES)

    def publish_files(self, files: list[dict[str, Any]]) -> None:
        """Reports the files that this daemon depends on: see `logd.self_repair.runtime_files`."""
        data = _encode({"files": files}, FILES_BYTES)
        if len(data) <= FILES_BYTES:  # else paths are so long that there is no room
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, data, _FILES_OFFSET)

    def _write(self, page: Page) -> None:
        self._page = page
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, page.encode(), 0)


@contextlib.contextmanager
def instance_lock(path: Path, now_ns: Callable[[], int] = time.time_ns) -> Iterator[InstanceLock]:
    """Only one daemon an instance. Raises AlreadyRunning, naming the other's pid."""
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
            f"{path}: the lock cannot be made: {error.strerror}. logd writes beside its database: "
            "look at that folder's permissions and at how its file system is mounted."
        ) from error
    if not liveness.hold(fd):
        page = _decode(os.pread(fd, PAGE_BYTES, 0))
        os.close(fd)
        raise AlreadyRunning(
            f"{path}: another logd (pid {page.pid if page else 'unknown'}) serves this "
            "instance. Stop it first."
        )
    return fd


def read_lock_page(path: Path) -> tuple[int | None, Page]:
    """The pid of the daemon that holds the lock, or None; and what the page says, never waiting.

    Without that file, or with a damaged one, an empty page.
    """
    with _opened(path) as fd:
        if fd is None:
            return None, Page()
        return liveness.holder(fd), _try(_decode, fd, 0) or Page()


def read_runtime_stats(path: Path) -> RuntimeStats | None:
    """How it goes by the word of the running daemon, or of the last one; None: it never said."""
    with _opened(path) as fd:
        return None if fd is None else _try(_decode_figures, fd, PAGE_BYTES)


def publish_readers(path: Path, readers: list[dict[str, Any]]) -> None:
    """Says who asks for reports. For the report process, which holds no lock that this drops."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(fd, _encode({"readers": readers}), _READERS_OFFSET)
        finally:
            os.close(fd)


def read_runtime_files(path: Path) -> list[dict[str, Any]]:
    """The files that the daemon depends on, as it has reported them; of a running daemon only."""
    with _opened(path) as fd:
        if fd is None or liveness.holder(fd) is None:
            return []
        return _try(_decode_files, fd, _FILES_OFFSET, FILES_BYTES) or []


def read_report_usage(path: Path) -> list[dict[str, Any]]:
    """Who has asked for reports since the report process started, whoever took most first."""
    with _opened(path) as fd:
        return [] if fd is None else _try(_decode_readers, fd, _READERS_OFFSET) or []


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


T = TypeVar("T")


def _try(
    decode: Callable[[bytes], T | None], fd: int, offset: int, length: int = PAGE_BYTES
) -> T | None:
    found = None
    for _ in range(_READ_TRIES):  # it may be overwritten just now
        found = found or decode(os.pread(fd, length, offset))
    return found
