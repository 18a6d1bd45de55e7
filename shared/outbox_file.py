"""A producer's outbox as a file: created, locked, allocated, mapped, then given its name."""

from __future__ import annotations

import contextlib
import mmap
import os

from shared import forks, liveness
from shared.forks import Forked
from shared.outbox import RING_BYTES_MAX, RING_BYTES_MIN, OutboxWriter, outbox_bytes
from shared.rendezvous import NoOutbox, open_directory

SUFFIX = ".outbox"
TEMPORARY_PREFIX = ".new-"
UID_MAX = 2**32 - 1


def outbox_name(uid: int, producer_id: int) -> str:
    """The file's name: whose it is and which producer's. The daemon checks both."""
    return f"{uid}-{producer_id:016x}{SUFFIX}"


def parse_name(name: str) -> tuple[int, int] | None:
    """The uid and producer id in a file's name, or None when it is no outbox's."""
    stem, dot, suffix = name.partition(".")
    uid, dash, producer = stem.partition("-")
    if dot + suffix != SUFFIX or not dash or len(producer) != 16:
        return None
    try:
        parsed = int(uid), int(producer, 16)
    except ValueError:
        return None
    return parsed if parsed[0] <= UID_MAX and outbox_name(*parsed) == name else None


class OutboxFile:
    """This process's outbox for one producer. Raises NoOutbox when there can be none.

    The file stays when the process goes: the daemon removes it once all of it is stored. Raises
    Forked in a child that is forked in the middle of this; the parent's file is not touched then.
    """

    def __init__(
        self,
        socket_path: str,
        directory: str | None,
        producer_id: int,
        ring_bytes: int,
        now_ns: int,
    ) -> None:
        if os.getuid() != os.geteuid():
            # The kernel names datagrams by the real uid and files by the effective one.
            raise NoOutbox("this process has different real and effective user ids")
        self._forks = forks.count
        self._fd = -1
        self._map: mmap.mmap | None = None
        self._view: memoryview | None = None
        self._temporary = ""
        ring_bytes = min(max(ring_bytes, RING_BYTES_MIN), RING_BYTES_MAX) & -8
        directory_fd = open_directory(socket_path, directory)
        try:
            self._create(directory_fd, producer_id, outbox_bytes(ring_bytes), now_ns)
        except OSError as error:
            self._discard(directory_fd)
            raise NoOutbox(f"an outbox of {ring_bytes} bytes: {error.strerror or error}") from error
        except BaseException:
            self._discard(directory_fd)
            raise
        finally:
            os.close(directory_fd)

    def _create(self, directory_fd: int, producer_id: int, length: int, now_ns: int) -> None:
        name = outbox_name(os.geteuid(), producer_id)
        temporary = TEMPORARY_PREFIX + name
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        pid = os.getpid()
        # Every step that a forked child must not take is checked right before it.
        if self._forks != forks.count:
            raise Forked
        self._fd = os.open(temporary, flags, 0o600, dir_fd=directory_fd)
        self._temporary = temporary
        if self._forks != forks.count:
            raise Forked
        if not liveness.hold(self._fd):
            if self._forks != forks.count:
                raise Forked  # the parent holds it
            raise NoOutbox("somebody else has locked a file that was just created")
        # Allocated, not truncated: a full tmpfs says ENOSPC here instead of SIGBUS later.
        os.posix_fallocate(self._fd, 0, length)
        os.fchmod(self._fd, 0o660)
        self._map = mmap.mmap(self._fd, length)
        self._view = memoryview(self._map)
        self.writer = OutboxWriter(self._view, producer_id, pid, now_ns)
        if self._forks != forks.count:
            raise Forked
        os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        self._temporary = ""
        if self._forks != forks.count:
            raise Forked

    def _discard(self, directory_fd: int) -> None:
        if self._temporary and self._forks == forks.count:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=directory_fd)
        self.close()

    def removed(self) -> bool:
        """Whether the file has no name any more."""
        return os.fstat(self._fd).st_nlink == 0

    def close(self) -> None:
        """Unmaps and closes; only closing lets go of the lock, so nothing may be written after.

        In a forked child it does the same: the child's descriptor is its own, the parent's lock
        stays (no unlock is ever asked for, since that would free it).
        """
        if self._view is not None and self._map is not None:
            if hasattr(self, "writer"):  # else its making was cut short
                self.writer.release()
            self._view.release()
            self._map.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
