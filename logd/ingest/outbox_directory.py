"""The outboxes' directory as the daemon sees it: found, checked, read, confirmed, removed.

Every file in it is a stranger's input. It is never mapped (a file cut short under a mapping kills
the reader), never locked, and opened without following or waiting for anything.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from logd.errors import CannotCreate, cannot_write, is_shortage
from logd.runtime_stats import WriteRate
from logd_wire import liveness
from logd_wire.outbox.layout import (
    CONFIRMED_OFFSET,
    HEADER_BYTES,
    WORD_GIVEN_UP,
    WORD_RETIRED,
    WORD_WATCHED_UNTIL_NS,
    WORD_WRITTEN,
    Header,
    OutboxError,
    is_outbox,
    parse_header,
)
from logd_wire.outbox.names import TEMPORARY_PREFIX, parse_name
from logd_wire.rendezvous import (
    MODE_PRIVATE,
    MODE_SHARED,
    NoOutbox,
    NotOurs,
    Rendezvous,
    default_directory,
    default_directory_in_use,
    make_directory,
    other_directory,
    rendezvous_path,
    write_rendezvous,
)
from logd_wire.wire import OtherVersion, WireError

TEMPORARY_AGE_MAX_S = 60.0
# Of the files under a temporary name so many are waited for at once; the others come after them.
TEMPORARY_MAX = 1000
# So many files of one user that are no outboxes are put into quarantine, and remembered. Past that
# a file is only looked into, and past twice as many, or so many of all users, one that looks right
# waits: whether it is would have to be remembered.
REFUSED_PER_USER_MAX = 1000
REFUSED_MAX = 10_000
REFUSED_OF_ANY_USER = 16
_WORDS = struct.Struct("=QQQ")  # confirmed sequence and position, watched until
_WORD = struct.Struct("=Q")
# The words with which the daemon says that it leaves an outbox: RETIRED and GIVEN_UP.
_LEFT_OFFSET, _LEFT_BYTES = WORD_RETIRED * 8, 16
_log = logging.getLogger("logd")


class Foreign(WireError):
    """A file in the directory that is no outbox of the producer it is named after."""


@dataclass(slots=True, eq=False)
class OpenOutbox:
    """An outbox that has passed every check, held open."""

    name: str
    uid: int
    producer_id: int
    fd: int
    header: Header
    # How often damage is searched past before the outbox is given up: a search reads all of it.
    scans_left: int = 3
    # Why it is to be given up once all that can still be read of it is taken.
    unusable: str | None = None
    # Whether it was removed by another program: no later daemon will find it.
    nameless: bool = False
    confirmed: int = field(init=False)
    pace: WriteRate | None = None  # of its producer, once the daemon has looked for it

    def __post_init__(self) -> None:
        self.confirmed = self.header.confirmed_sequence

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes of the file. Short when the file was cut: the caller's checks find that."""
        return os.pread(self.fd, length, offset)

    def refresh(self) -> Header:
        """Reads the header again. Raises WireError when it has become impossible."""
        header = parse_header(self.read_at(0, HEADER_BYTES), self._size())
        if header.producer_id != self.producer_id:
            raise OutboxError("another producer's outbox")
        self.header = header
        return header

    def written(self) -> int:
        """The one word that grows while the producer lives: 8 bytes, read alone."""
        return int.from_bytes(self.read_at(WORD_WRITTEN * 8, 8), sys.byteorder)

    def alive(self) -> bool:
        """Whether the producer's process still holds its lock."""
        return liveness.holder(self.fd) is not None

    def confirm(self, sequence: int, position: int, watched_until_ns: int) -> None:
        """Tells the producer what is on disk; only ever called after a commit. Never goes back.

        `watched_until_ns` promises to look here by ourselves until then (see
        `logd.ingest.wakeups`).
        """
        if sequence <= self.confirmed:
            return
        if self.nameless:
            watched_until_ns = 0  # so that its producer sends, looks at its file, and follows
        self._write_at(CONFIRMED_OFFSET, _WORDS.pack(sequence, position, watched_until_ns))
        self.confirmed = sequence

    def retire(self) -> bool:
        """Declares that no more is read here; False, and it is not, when there is more to read.

        A process whose lock went with a closed descriptor still writes: it sees this, or we see
        what it wrote.
        """
        self._write_at(WORD_RETIRED * 8, _WORD.pack(1))
        if self.written() <= self.confirmed:
            return True
        self._write_at(WORD_RETIRED * 8, bytes(8))
        return False

    def give_up(self) -> None:
        """Tells the producer to go on with another outbox: this one is foreign, or damaged."""
        self._write_at(WORD_GIVEN_UP * 8, _WORD.pack(1))

    def take_back(self) -> None:
        """Clears words 19 and 20 as a killed daemon has left them: this one reads the outbox.

        Where they cannot be written they stand as they did.
        """
        with contextlib.suppress(OSError):
            self._write_at(_LEFT_OFFSET, bytes(_LEFT_BYTES))

    def unwatch(self) -> None:
        """Takes back any promise to look here."""
        self._write_at(WORD_WATCHED_UNTIL_NS * 8, bytes(8))

    def _size(self) -> int:
        status = os.fstat(self.fd)
        self.nameless = status.st_nlink == 0
        _check_no_holes(status)
        return status.st_size

    def _write_at(self, offset: int, data: bytes) -> None:
        os.pwrite(self.fd, data, offset)


def _give_up_foreign(fd: int) -> None:
    """Tells the producer of a file that is refused, where the file is certainly an outbox.

    Into anything else the daemon writes nothing: a stranger may have put another file, or a link to
    one, under an outbox's name. An error is ignored: what cannot be written stays as it is.
    """
    with contextlib.suppress(OSError):
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            page = os.pread(fd, HEADER_BYTES, 0)
            if is_outbox(page, status.st_size):
                # In the page that holds the magic: never in a hole, and never past the end.
                os.pwrite(fd, _WORD.pack(1), WORD_GIVEN_UP * 8)
                os.pwrite(fd, bytes(8), WORD_WATCHED_UNTIL_NS * 8)


def _check_no_holes(status: os.stat_result) -> None:
    """Raises OutboxError for a file that takes less memory than it is long.

    No producer makes one (shared/PROTOCOL.md): it would let its maker claim, and have searched,
    what it does not pay for, and a write of ours into a hole may fail.
    """
    if status.st_blocks * 512 < status.st_size:
        raise OutboxError("sparse file", f"{status.st_blocks * 512} of {status.st_size} bytes")


@dataclass(frozen=True, slots=True)
class _Identity:
    """A file as it was when it was refused, and whose it is."""

    inode: int
    ctime_ns: int
    uid: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Identity:
        return cls(status.st_ino, status.st_ctime_ns, status.st_uid)


class Outboxes:
    """The directory: `prepare` makes it ours, `attach` only opens it; then names in it are taken.

    With `read_only` outboxes can be looked at, not confirmed, and nothing is removed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        many_users: bool = False,
        read_only: bool = False,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic_s = monotonic_s
        self.directory = directory
        self._access = os.O_RDONLY if read_only else os.O_RDWR
        self._mode = MODE_SHARED if many_users else MODE_PRIVATE
        self.fd = -1
        self.token = ""
        # Files that were refused: not looked at again until they change, or our own closing of
        # them would wake us for ever.
        self._refused: dict[str, _Identity] = {}
        self._refused_of: Counter[int] = Counter()
        self._newer: set[str] = set()  # those of them that another daemon can read
        # Files under a temporary name, each with the moment of the monotonic clock from which on
        # it was seen: their own times are the wall clock's, which may just have been set.
        self._temporary: dict[str, float] = {}
        # Files and bytes of each user in the directory, as of the last whole listing.
        self.usage: dict[int, tuple[int, int]] = {}

    def prepare(self, socket_path: str, token: str | None = None) -> None:
        """Makes the directory, keeps its token unless one is given, and tells clients about it.

        Where the name that follows from the socket's path is another user's, another one is taken.
        Raises CannotCreate when a directory that was configured is another user's, or when it would
        put plain text on a disk.
        """
        kind = filesystem_type(self.directory.parent)
        if kind not in ("tmpfs", "ramfs"):
            raise CannotCreate(
                f"{self.directory}: outboxes hold plain text and must lie in memory, but "
                f"{self.directory.parent} is {f'on {kind}' if kind else 'not there'}. "
                "Set outbox_directory to a path on a tmpfs."
            )
        try:
            self.token = self._make(socket_path, token)
            found = Rendezvous.of_this_process(str(self.directory), self.token)
            write_rendezvous(socket_path, found)
        except NoOutbox as error:
            raise CannotCreate(f"outboxes: {error}") from error
        except OSError as error:
            raise cannot_write(rendezvous_path(socket_path), error) from error
        self.attach()

    def _make(self, socket_path: str, wanted: str | None) -> str:
        """Makes the directory, under the first name that is free or ours; its token."""
        names = [str(self.directory)]
        if names[0] == default_directory_in_use(socket_path):
            names += [default_directory(socket_path), other_directory(socket_path)]
        problem: NotOurs | None = None
        for name in dict.fromkeys(names):
            try:
                token = make_directory(name, wanted, self._mode)
            except NotOurs as error:
                problem = problem or error
                continue
            if problem is not None:
                _log.warning("outboxes: %s. They are in %s instead, as clients know", problem, name)
            self.directory = Path(name)
            return token
        assert problem is not None
        raise problem

    def attach(self) -> None:
        """Opens the directory as it is. Raises OSError."""
        self.fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def names(self) -> Iterator[tuple[str, int, int]]:
        """(name, uid, producer id) of the files that are named like outboxes, one at a time.

        Those that were refused, and are as they were, are passed over.
        """
        gone = set(self._refused)
        usage: dict[int, tuple[int, int]] = {}
        temporary: dict[str, float] = {}
        with os.scandir(self.fd) as listed:
            for entry in listed:
                name = entry.name
                parsed = parse_name(name)
                if parsed is not None:
                    gone.discard(name)
                    identity = _count(entry, usage)
                    if identity is None or self._refused.get(name) != identity:
                        yield (name, *parsed)
                elif name.startswith(TEMPORARY_PREFIX) and len(temporary) < TEMPORARY_MAX:
                    now_s = self._monotonic_s()
                    temporary[name] = self._temporary.get(name, now_s)
                    self._remove_stale(name, now_s - temporary[name])
        for name in gone:
            self._forget_refused(name)
        self.usage, self._temporary = usage, temporary

    def _remove_stale(self, name: str, age_s: float) -> None:
        """A producer that was killed while it created its outbox had accepted nothing yet."""
        if self._access == os.O_RDWR and age_s > TEMPORARY_AGE_MAX_S:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self.fd)

    def has(self, name: str) -> bool:
        """Whether there is a file of that name; opens nothing to find out."""
        return self.owner(name) is not None

    def owner(self, name: str) -> int | None:
        """The uid that the file of that name belongs to; None when there is none."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_uid
        except FileNotFoundError:
            return None

    def open(self, name: str, uid: int, producer_id: int) -> OpenOutbox | None:
        """The outbox of that name; None when there is none, or one refused before: one of a newer
        version is there all the same, and raises again.

        Raises Foreign with what is wrong with it, OtherVersion for a newer one, and OSError when
        this process is out of something (descriptors, memory) and may try again.
        """
        try:
            status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            self._forget_refused(name)
            return None
        identity = _Identity.of(status)
        if self._refused.get(name) == identity:
            if name in self._newer:
                raise OtherVersion("other version", name)
            return None
        try:
            if name not in self._refused and (
                self._refused_of[identity.uid] >= REFUSED_PER_USER_MAX
                or not self._may_remember(identity.uid)
            ):
                # Looked into without a right to write, or our own closing would wake us for ever.
                try:
                    os.close(self._open(name, uid, producer_id, os.O_RDONLY).fd)
                except WireError:
                    return None
                if not self._may_remember(identity.uid):
                    problem = f"user {identity.uid} has too many files that are no outboxes"
                    raise OSError(errno.EDQUOT, problem)
            return self._open(name, uid, producer_id, self._access)
        except WireError as error:
            error.uid = identity.uid
            # As it is now: giving it up has changed it, and our own closing would wake us for ever.
            now = self._identity(name)
            same = now is not None and now.inode == identity.inode
            self._remember_refused(name, now if now is not None and same else identity)
            if isinstance(error, OtherVersion):
                self._newer.add(name)
            raise

    def _identity(self, name: str) -> _Identity | None:
        try:
            return _Identity.of(os.stat(name, dir_fd=self.fd, follow_symlinks=False))
        except OSError:
            return None

    def _may_remember(self, uid: int) -> bool:
        own = self._refused_of[uid]
        few = own < REFUSED_OF_ANY_USER or len(self._refused) < REFUSED_MAX
        return few and own < 2 * REFUSED_PER_USER_MAX

    def _remember_refused(self, name: str, identity: _Identity) -> None:
        self._forget_refused(name)
        self._refused[name] = identity
        self._refused_of[identity.uid] += 1

    def _forget_refused(self, name: str) -> None:
        identity = self._refused.pop(name, None)
        if identity is not None:
            self._refused_of[identity.uid] -= 1
            if not self._refused_of[identity.uid]:
                del self._refused_of[identity.uid]
            self._newer.discard(name)

    def _open(self, name: str, uid: int, producer_id: int, access: int) -> OpenOutbox:
        flags = access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self.fd)
        except (PermissionError, IsADirectoryError) as error:
            raise Foreign("not readable by logd", name) from error
        except OSError as error:
            if is_shortage(error):
                raise
            raise Foreign("not a regular file", name) from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise Foreign("not a regular file", name)
            if status.st_nlink != 1:
                raise Foreign("has other links", name)
            if status.st_uid != uid:
                raise Foreign("not its owner's", f"{name} belongs to uid {status.st_uid}")
            page = os.pread(fd, HEADER_BYTES, 0)
            header = parse_header(page, status.st_size)
            if header.producer_id != producer_id:
                raise Foreign("another producer's outbox", name)
            _check_no_holes(status)
        except BaseException as error:
            if access == os.O_RDWR and isinstance(error, WireError):
                _give_up_foreign(fd)
            os.close(fd)
            if isinstance(error, OSError) and not is_shortage(error):
                raise Foreign("not readable by logd", error.strerror or "") from error
            raise
        outbox = OpenOutbox(name, uid, producer_id, fd, header)
        if access == os.O_RDWR and any(page[_LEFT_OFFSET : _LEFT_OFFSET + _LEFT_BYTES]):
            outbox.take_back()
        return outbox

    def remove(self, outbox: OpenOutbox) -> None:
        """Removes the file of a dead producer, once all of it is stored, and closes it.

        Another file that has been put under its name since is not what was read, and stays. Raises
        OSError when the file cannot be removed: it is not opened again as it is now.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(outbox.name, dir_fd=self.fd, follow_symlinks=False)
                if os.path.samestat(there, os.fstat(outbox.fd)):
                    try:
                        os.unlink(outbox.name, dir_fd=self.fd)
                    except OSError:
                        self._remember_refused(outbox.name, _Identity.of(there))
                        raise
        finally:
            self.release(outbox)

    def refuse(self, outbox: OpenOutbox) -> None:
        """Closes an outbox that turned out unreadable; it is not opened again as it is now."""
        _give_up_foreign(outbox.fd)
        try:
            self._remember_refused(outbox.name, _Identity.of(os.fstat(outbox.fd)))
        finally:
            self.release(outbox)

    def release(self, outbox: OpenOutbox) -> None:
        """Closes an outbox and leaves it for the next daemon."""
        with contextlib.suppress(OSError):  # it is closed all the same (close(2))
            os.close(outbox.fd)

    def close(self) -> None:
        """Closes the directory."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _count(entry: os.DirEntry[str], usage: dict[int, tuple[int, int]]) -> _Identity | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    files, size = usage.get(status.st_uid, (0, 0))
    # What it takes, not how long it says it is: a sparse file takes nothing.
    usage[status.st_uid] = (files + 1, size + status.st_blocks * 512)
    return _Identity.of(status)


def filesystem_type(path: Path) -> str | None:
    """The type of the file system that holds `path`, from /proc/self/mountinfo (proc(5))."""
    try:
        device = path.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[2] == wanted:
                return fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        pass
    return None
