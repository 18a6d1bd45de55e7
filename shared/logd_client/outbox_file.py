"""Creates a producer's outbox file: locks, allocates, maps it, then gives it its name."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import sys
from pathlib import Path
from typing import Any

if sys.version_info < (3, 13):
    # ctypes is imported with this module: at the first event it would delay the caller,
    # and the process may no longer have the right to read the file.
    try:
        import ctypes
    except ImportError:  # this Python was built without ctypes
        _mmap_at: Any = None
    else:
        _mmap_at = ctypes.CDLL(None, use_errno=True).mmap
        _mmap_at.restype = ctypes.c_void_p
        _mmap_at.argtypes = (
            *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
            ctypes.c_long,
        )

from logd_client.descriptors import Identity
from logd_wire import liveness
from logd_wire.causes import why_no_outbox
from logd_wire.forks import Forked, Mark
from logd_wire.outbox.layout import RING_BYTES_MAX, RING_BYTES_MIN, outbox_bytes
from logd_wire.outbox.names import TEMPORARY_PREFIX, outbox_name
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.rendezvous import NoOutbox, open_directory

_MAP_FIXED = 0x10  # a constant of <linux/mman.h>


class OutboxFile:
    """The outbox of one producer of this process. Raises NoOutbox when it cannot be made.

    The file stays when the process ends: the daemon removes it once all of it is stored. `uid` is
    the producer's user id as the daemon sees it. Raises FileExistsError when another producer has
    this id, and Forked in a child of the process that `mark` belongs to, without touching the
    parent's file.
    """

    def __init__(
        self,
        socket_path: str,
        directory: str | None,
        producer_id: int,
        ring_bytes: int,
        now_ns: int,
        mark: Mark,
        follows: int = 0,
        growth_bytes: int = 0,
    ) -> None:
        if os.getuid() != os.geteuid():
            # The kernel gives a datagram the real uid and a
            # file the effective one; the daemon compares them.
            raise NoOutbox("this process has different real and effective user ids")
        self._mark = mark
        self._fd = -1
        self._identity: Identity | None = None
        self._map: mmap.mmap | None = None
        self._view: memoryview | None = None
        self._temporary = ""
        self._nameless = False
        self._abandoned = False
        ring_bytes = min(max(ring_bytes, RING_BYTES_MIN), RING_BYTES_MAX) & -8
        directory_fd, path, self.uid = open_directory(socket_path, directory)
        try:
            # The path is kept absolute, since the process may change its working directory.
            self._directory = Path(path).absolute()
            self._directory_identity = Identity.of(directory_fd)
            self._path = self._directory / outbox_name(self.uid, producer_id)
            length = outbox_bytes(ring_bytes)
            self._create(directory_fd, producer_id, length, now_ns, (follows, growth_bytes))
        except FileExistsError:
            self._discard(directory_fd)
            raise
        except OSError as error:
            self._discard(directory_fd)
            raise NoOutbox(f"an outbox of {ring_bytes} bytes: {why_no_outbox(error)}") from error
        except BaseException:
            self._discard(directory_fd)
            raise
        finally:
            os.close(directory_fd)

    def _create(
        self,
        directory_fd: int,
        producer_id: int,
        length: int,
        now_ns: int,
        succession: tuple[int, int],
    ) -> None:
        name = outbox_name(self.uid, producer_id)
        temporary = TEMPORARY_PREFIX + name
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        pid, mark = os.getpid(), self._mark
        # The mark is checked right before every step that a forked child must not take.
        if not mark[0]:
            raise Forked
        self._fd = os.open(temporary, flags, 0o600, dir_fd=directory_fd)
        self._temporary = temporary
        if not mark[0]:
            raise Forked
        # While the temporary name is taken, no other producer with this id can rename its own file.
        # If it has done so already, renaming this file would replace it.
        if _exists(name, directory_fd):
            raise FileExistsError
        if not liveness.acquire(self._fd, mark):
            if not mark[0]:
                raise Forked  # in a forked child, where the parent holds the lock
            raise NoOutbox("another process has locked a file that was just created")
        # The file is allocated, not truncated:
        # a full tmpfs raises ENOSPC here instead of SIGBUS later.
        os.posix_fallocate(self._fd, 0, length)
        os.fchmod(self._fd, 0o660)
        self._identity = Identity.of(self._fd)
        self._map = _map_shared(self._fd, length)
        self._view = memoryview(self._map)
        self.writer = OutboxWriter(self._view, producer_id, pid, now_ns, mark, *succession)
        if not mark[0]:
            raise Forked
        os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        self._temporary = ""
        if not mark[0]:
            raise Forked

    def _discard(self, directory_fd: int) -> None:
        if self._temporary and self._mark[0]:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=directory_fd)
        self.close()

    def intact(self) -> bool:
        """Whether the descriptor still names the file that was made, and the file has one name.

        False once the application has closed the descriptor (which drops the lock) or reused its
        number, and when the file was removed or got another name.
        """
        return self._identity is not None and self._identity.matches(self._fd)

    def removed(self) -> bool:
        """Whether the file has lost its name; a daemon that has it open may still read it.

        False where that cannot be determined: the path may not be accessible any more, or lead to
        another directory.
        """
        if self._identity is None or self._nameless:
            return self._nameless
        try:
            there = self._identity.names(self._path.lstat())
        except FileNotFoundError:
            there = False
        except OSError:
            return False
        return not there and (self._abandoned or self._leads_to_the_directory())

    def displaced(self) -> bool:
        """Whether the outbox's path leads to another directory, which does not have the file.

        This happens if the directory is renamed, for example; a daemon that starts now does not
        find the file. False where that cannot be determined, and while nothing is at the path.
        """
        if self._identity is None:
            return False
        try:
            if self._identity.names(self._path.lstat()):
                return False
        except FileNotFoundError:
            pass
        except OSError:
            return False
        try:
            found = self._directory.stat()
        except OSError:
            return False
        return stat.S_ISDIR(found.st_mode) and not self._directory_identity.names(found)

    def abandon(self) -> None:
        """Records that the client has replaced this outbox, by one in the path's new directory."""
        self._abandoned = True

    def _leads_to_the_directory(self) -> bool:
        try:
            return self._directory_identity.names(self._directory.stat())
        except OSError:
            return False

    def release_descriptor(self) -> None:
        """Closes the descriptor, and with it the lock: for the daemon, the producer has ended.

        What was written stays readable here, confirmations included. A descriptor that the
        application has closed, or whose number it has reused, is left alone.
        """
        fd, identity = self._fd, self._identity
        if fd >= 0 and identity is not None:
            with contextlib.suppress(OSError):
                status = os.fstat(fd)
                if identity.names(status):
                    self._nameless = status.st_nlink == 0
                    os.close(fd)
        self._fd = -1

    def close(self) -> None:
        """Unmaps and closes the file. This drops the lock, so nothing may be written afterwards.

        In a forked child it does the same: the child closes its own copy of the descriptor, and the
        parent keeps its lock (it is never dropped by an unlock call, which would drop the
        parent's).
        """
        if self._view is not None and self._map is not None:
            if hasattr(self, "writer"):  # `writer` is missing if the constructor was interrupted
                self.writer.release()
            self._view.release()
            self._map.close()
        if self._identity is None and self._fd >= 0:
            os.close(self._fd)  # in an interrupted constructor the number cannot have been reused
            self._fd = -1
        self.release_descriptor()

    def __del__(self) -> None:
        """Closes the file if the constructor's caller was interrupted before it had the object."""
        if hasattr(self, "_view"):
            with contextlib.suppress(Exception):
                self.close()


def _exists(name: str, directory_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _map_shared(fd: int, length: int) -> mmap.mmap:
    """Maps the file without the second descriptor that `mmap.mmap` would keep.

    An application may close that second descriptor and reuse its number, and unmapping would then
    close the application's own file. Since Python 3.13 `trackfd=False` avoids the descriptor.
    """
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, length, trackfd=False)
    if _mmap_at is None:
        return mmap.mmap(fd, length)
    mapped = mmap.mmap(-1, length)  # this reserves the addresses, and unmaps them when it is closed
    view = ctypes.c_char.from_buffer(mapped)
    address = ctypes.addressof(view)
    del view
    flags = mmap.MAP_SHARED | _MAP_FIXED
    got = _mmap_at(address, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0)
    if got != address:
        error = ctypes.get_errno()
        mapped.close()
        raise OSError(error, os.strerror(error))
    return mapped
