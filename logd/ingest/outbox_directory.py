"""The outboxes' directory: creates it, lists it, and opens, refuses and removes files in it.

Every file in it is untrusted input: it is checked before use, and opened without following links
and without waiting.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from logd.errors import CannotCreate, cannot_write, is_shortage
from logd.ingest.open_outbox import (
    LEFT_BYTES,
    LEFT_OFFSET,
    Foreign,
    OpenOutbox,
    check_no_holes,
    give_up_foreign,
)
from logd.ingest.refused_files import FileIdentity, RefusedFiles
from logd_wire.outbox.layout import HEADER_BYTES, parse_header
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
# The most temporary files that are tracked until they are old enough to be removed.
TEMPORARY_MAX = 1000
_log = logging.getLogger("logd")


class OutboxDirectory:
    """The directory of the outboxes: `prepare` creates it, `attach` only opens it.

    With `read_only`, outboxes can be read but not confirmed, and nothing is removed.
    """

    def __init__(
        self,
        path: Path,
        *,
        many_users: bool = False,
        read_only: bool = False,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic_s = monotonic_s
        self.path = path
        self._access = os.O_RDONLY if read_only else os.O_RDWR
        self._mode = MODE_SHARED if many_users else MODE_PRIVATE
        self.fd = -1
        self.token = ""
        self.refused = RefusedFiles()
        # When each temporary file was first seen, on the monotonic clock:
        # the times of the files themselves are of the wall clock, which may have been set.
        self._temporary: dict[str, float] = {}
        # Files and bytes of each user in the directory, as of the last complete listing.
        self.usage: dict[int, tuple[int, int]] = {}

    def prepare(self, socket_path: str, token: str | None = None, *, claim: bool = False) -> None:
        """Creates the directory with its token, and writes the rendezvous file for clients.

        The directory keeps its token unless `token` is given. With `claim`, for a daemon, it is
        locked first.

        If the default name, made of the socket's path, belongs to another user, another name is
        chosen. Raises CannotCreate when a configured directory belongs to another user, or when it
        would put plain text on a disk.
        """
        kind = filesystem_type(self.path.parent)
        if kind not in ("tmpfs", "ramfs"):
            raise CannotCreate(
                f"{self.path}: outboxes hold plain text and must lie in memory, but "
                f"{self.path.parent} {f'is on {kind}' if kind else 'does not exist'}. "
                "Set outbox_directory to a path on a tmpfs."
            )
        try:
            self.token = self._make(socket_path, token)
            self.attach()
            if claim:
                self.claim()
            found = Rendezvous.of_this_process(str(self.path), self.token)
            write_rendezvous(socket_path, found)
        except NoOutbox as error:
            raise CannotCreate(f"outboxes: {error}") from error
        except OSError as error:
            raise cannot_write(rendezvous_path(socket_path), error) from error

    def _make(self, socket_path: str, wanted: str | None) -> str:
        """Creates the directory under the first name that no other user has; returns its token."""
        names = [str(self.path)]
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
            self.path = Path(name)
            return token
        assert problem is not None
        raise problem

    def attach(self) -> None:
        """Opens the existing directory and changes nothing. Raises OSError."""
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def claim(self) -> None:
        """Locks the directory for this daemon until the directory is closed. Raises CannotCreate.

        Two daemons in one directory would each store and remove outboxes of the other.
        """
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotCreate(
                f"{self.path}: another instance's daemon reads the outboxes in it. Stop it, or set "
                "another outbox_directory."
            ) from None

    def names(self) -> Iterator[tuple[str, int, int]]:
        """Yields name, uid and producer id of each file that is named like an outbox.

        Files that were refused, and have not changed since, are skipped.
        """
        gone = self.refused.names()
        usage: dict[int, tuple[int, int]] = {}
        temporary: dict[str, float] = {}
        with os.scandir(self.fd) as listed:
            for entry in listed:
                name = entry.name
                parsed = parse_name(name)
                if parsed is not None:
                    gone.discard(name)
                    identity = _count(entry, usage)
                    if not self.refused.is_unchanged(name, identity):
                        yield (name, *parsed)
                elif name.startswith(TEMPORARY_PREFIX) and len(temporary) < TEMPORARY_MAX:
                    now_s = self._monotonic_s()
                    temporary[name] = self._temporary.get(name, now_s)
                    self._remove_stale(name, now_s - temporary[name])
        for name in gone:
            self.refused.drop(name)
        self.usage, self._temporary = usage, temporary

    def _remove_stale(self, name: str, age_s: float) -> None:
        # A temporary file belongs to a producer that was killed before it accepted an event.
        if self._access == os.O_RDWR and age_s > TEMPORARY_AGE_MAX_S:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self.fd)

    def has(self, name: str) -> bool:
        """Returns whether a file with that name exists, without opening it."""
        return self.owner(name) is not None

    def owner(self, name: str) -> int | None:
        """Returns the uid of the owner of the file with that name; None if there is none."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_uid
        except FileNotFoundError:
            return None

    def open(self, name: str, uid: int, producer_id: int) -> OpenOutbox | None:
        """Opens the outbox with that name; None if there is none or it was refused before.

        Raises Foreign with what is wrong with the file, OtherVersion for a newer version (each
        time), and OSError if this process lacks descriptors or memory and may retry.
        """
        try:
            status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            self.refused.drop(name)
            return None
        identity, refused = _identity(status), self.refused
        if refused.is_unchanged(name, identity):
            if refused.is_newer(name):
                raise OtherVersion("other version", name)
            return None
        try:
            if name not in refused and refused.is_over_quota(identity.uid):
                # The file is opened read-only: closing a writable
                # descriptor wakes the daemon, which would open it again.
                try:
                    os.close(self._open(name, uid, producer_id, os.O_RDONLY).fd)
                except WireError:
                    return None
                if not refused.has_room(identity.uid):
                    problem = f"user {identity.uid} has too many files that are no outboxes"
                    raise OSError(errno.EDQUOT, problem)
            return self._open(name, uid, producer_id, self._access)
        except WireError as error:
            error.uid = identity.uid
            # The identity is read after the refusal, which has changed the file. With the
            # earlier identity, the file would be opened, and the daemon woken, again and again.
            now = self._identity_of(name)
            same = now is not None and now.inode == identity.inode
            refused.add(
                name,
                now if now is not None and same else identity,
                newer=isinstance(error, OtherVersion),
            )
            raise

    def _identity_of(self, name: str) -> FileIdentity | None:
        try:
            return _identity(os.stat(name, dir_fd=self.fd, follow_symlinks=False))
        except OSError:
            return None

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
            check_no_holes(status)
        except BaseException as error:
            if access == os.O_RDWR and isinstance(error, WireError):
                give_up_foreign(fd)
            os.close(fd)
            if isinstance(error, OSError) and not is_shortage(error):
                raise Foreign("not readable by logd", error.strerror or "") from error
            raise
        outbox = OpenOutbox(name, uid, producer_id, fd, header)
        if access == os.O_RDWR and any(page[LEFT_OFFSET : LEFT_OFFSET + LEFT_BYTES]):
            outbox.take_back()
        return outbox

    def remove(self, outbox: OpenOutbox) -> None:
        """Removes the file of a dead producer, once all of it is stored, and closes it.

        Another file that was put under that name since stays. Raises OSError if the file cannot be
        removed; it is not opened again until it changes.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(outbox.name, dir_fd=self.fd, follow_symlinks=False)
                if os.path.samestat(there, os.fstat(outbox.fd)):
                    try:
                        os.unlink(outbox.name, dir_fd=self.fd)
                    except OSError:
                        self.refused.add(outbox.name, _identity(there))
                        raise
        finally:
            self.release(outbox)

    def refuse(self, outbox: OpenOutbox) -> None:
        """Closes an outbox that cannot be read; the file is not opened again until it changes."""
        give_up_foreign(outbox.fd)
        try:
            self.refused.add(outbox.name, _identity(os.fstat(outbox.fd)))
        finally:
            self.release(outbox)

    def release(self, outbox: OpenOutbox) -> None:
        """Closes an outbox; the file stays for the next daemon."""
        # Close() frees the descriptor even if it fails (close(2)).
        with contextlib.suppress(OSError):
            os.close(outbox.fd)

    def close(self) -> None:
        """Closes the directory."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _identity(status: os.stat_result) -> FileIdentity:
    return FileIdentity(status.st_ino, status.st_ctime_ns, status.st_uid)


def _count(entry: os.DirEntry[str], usage: dict[int, tuple[int, int]]) -> FileIdentity | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    files, size = usage.get(status.st_uid, (0, 0))
    # The memory that the file takes is counted,
    # not its length, which a sparse file can have for nothing.
    usage[status.st_uid] = (files + 1, size + status.st_blocks * 512)
    return _identity(status)


def mount_fields(path: Path) -> list[str]:
    """Returns the fields of /proc/self/mountinfo (proc(5)) for the file system that holds `path`.

    Returns an empty list if there is no such line.
    """
    try:
        device = path.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[2] == wanted:
                return fields
    except (OSError, IndexError):
        pass
    return []


def filesystem_type(path: Path) -> str | None:
    """Returns the type of the file system that holds `path`, None if it is unknown."""
    fields = mount_fields(path)
    return fields[fields.index("-") + 1] if "-" in fields else None
