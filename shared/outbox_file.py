"""A producer's outbox as a file: created, locked, allocated, mapped, then shown under its name."""

from __future__ import annotations

import contextlib
import mmap
import os

from shared import liveness
from shared.outbox import RING_BYTES_MAX, RING_BYTES_MIN, OutboxWriter, outbox_bytes
from shared.rendezvous import NoOutbox, open_directory

SUFFIX = ".outbox"
TEMPORARY_PREFIX = ".new-"


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
    return parsed if outbox_name(*parsed) == name else None


class OutboxFile:
    """This process's outbox for one producer. Raises NoOutbox when there can be none.

    The file stays when the process goes: the daemon removes it once all of it is stored.
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
        ring_bytes = min(max(ring_bytes, RING_BYTES_MIN), RING_BYTES_MAX) & -8
        directory_fd = open_directory(socket_path, directory)
        name = outbox_name(os.geteuid(), producer_id)
        temporary = TEMPORARY_PREFIX + name
        self._fd = -1
        try:
            self._fd = os.open(
                temporary,
                os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
                dir_fd=directory_fd,
            )
            if not liveness.hold(self._fd):
                raise NoOutbox("somebody else has locked a file that was just created")
            # Allocated, not truncated: a full tmpfs says ENOSPC here instead of SIGBUS later.
            os.posix_fallocate(self._fd, 0, outbox_bytes(ring_bytes))
            os.fchmod(self._fd, 0o660)
            self._map = mmap.mmap(self._fd, outbox_bytes(ring_bytes))
            self._view = memoryview(self._map)
            self.writer = OutboxWriter(self._view, producer_id, os.getpid(), now_ns)
            os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        except OSError as error:
            self._discard(temporary, directory_fd)
            raise NoOutbox(f"an outbox of {ring_bytes} bytes: {error.strerror or error}") from error
        except NoOutbox:
            self._discard(temporary, directory_fd)
            raise
        finally:
            os.close(directory_fd)

    def _discard(self, temporary: str, directory_fd: int) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=directory_fd)
            os.close(self._fd)

    def close(self) -> None:
        """Unmaps and closes; only closing lets go of the lock, so nothing may be written after.

        In a forked child it does the same: the child's descriptor is its own, the parent's lock
        stays (no unlock is ever asked for, since that would free it).
        """
        self.writer.release()
        self._view.release()
        self._map.close()
        os.close(self._fd)
