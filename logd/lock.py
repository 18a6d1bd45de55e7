"""The instance's lock file: one daemon at a time, and a page in which it says what troubles it.

`status` reads the page while the disk is full or the database locked, so writing it must need
neither: the page is written whole and flushed when the lock is taken, and later only overwritten in
place, which takes no new block (one that copies on write may refuse; then the page keeps what it
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

from logd.errors import AlreadyRunning, CannotCreate, cannot_write
from shared import liveness

PAGE_BYTES = 4096
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
        """One line of JSON, its check sum, and blanks up to the page's end."""
        text = json.dumps(asdict(self))
        return f"{text}\n{zlib.crc32(text.encode()):08x}\n".encode().ljust(PAGE_BYTES)


def _decode(page: bytes) -> Page | None:
    try:
        text, check = page.decode("ascii").split("\n")[:2]
        if int(check, 16) != zlib.crc32(text.encode()):
            return None
        return Page(**json.loads(text))
    except (ValueError, TypeError):
        return None


class InstanceLock:
    """The lock while it is held: what its holder says of itself."""

    def __init__(self, fd: int, now_ns: Callable[[], int]) -> None:
        self._fd = fd
        self._now_ns = now_ns
        before = _decode(os.pread(fd, PAGE_BYTES, 0))
        self._page = Page(os.getpid(), made=before is not None and before.made)
        os.ftruncate(fd, PAGE_BYTES)
        os.pwrite(fd, self._page.encode(), 0)
        os.fsync(fd)

    @property
    def page(self) -> Page:
        """What the page says now."""
        return self._page

    @property
    def database_made(self) -> bool:
        """Whether an earlier daemon made this instance's database."""
        return self._page.made

    def note_database(self) -> None:
        """From now on an empty or missing database is no new one."""
        if not self._page.made:
            self._write(Page(self._page.pid, True, self._page.trouble, self._page.since_ns))
            with contextlib.suppress(OSError):
                os.fsync(self._fd)

    def tell(self, trouble: str | None) -> None:
        """Says what nothing can be stored for, or that it is over. The first time counts."""
        said = self._page.trouble
        trouble = trouble if trouble is None else trouble[:TROUBLE_CHARS_MAX]
        if trouble == said:
            return
        since_ns = 0 if trouble is None else self._page.since_ns if said else self._now_ns()
        self._write(Page(self._page.pid, self._page.made, trouble, since_ns))

    def _write(self, page: Page) -> None:
        self._page = page
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, page.encode(), 0)


@contextlib.contextmanager
def instance_lock(path: Path, now_ns: Callable[[], int] = time.time_ns) -> Iterator[InstanceLock]:
    """Only one daemon an instance. Raises AlreadyRunning, naming the other's pid."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotCreate(
            f"{path}: the lock cannot be made: {error.strerror}. logd writes beside its database: "
            "look at that folder's permissions and at how its file system is mounted."
        ) from error
    try:
        if not liveness.hold(fd):
            page = _decode(os.pread(fd, PAGE_BYTES, 0))
            raise AlreadyRunning(
                f"{path}: another logd (pid {page.pid if page else 'unknown'}) serves this "
                "instance. Stop it first."
            )
        try:
            held = InstanceLock(fd, now_ns)
        except OSError as error:
            raise cannot_write(path, error) from error
        yield held
    finally:
        os.close(fd)


def look(path: Path) -> tuple[int | None, Page]:
    """The pid of the daemon that holds the lock, or None; and what the page says, never waiting.

    Without that file, or with a damaged one, an empty page.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None, Page()
    try:
        page = None
        for _ in range(_READ_TRIES):  # it may be overwritten just now
            page = page or _decode(os.pread(fd, PAGE_BYTES, 0))
        return liveness.holder(fd), page or Page()
    finally:
        os.close(fd)
