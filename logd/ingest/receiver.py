"""The datagram socket: bound here or inherited from systemd, and read into one reused buffer."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from logd.errors import CannotCreate, ConfigError

# More than the largest datagram that a sender with the default SO_SNDBUF can send.
BUFFER_BYTES = 256 * 1024
LISTEN_FDS_START = 3  # the first inherited descriptor (sd_listen_fds(3))

_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid
# Space for the credentials only, so that the kernel drops descriptors that a sender attaches.
_ANCILLARY_BYTES = socket.CMSG_SPACE(_UCRED.size)
_UNKNOWN = (0, 65534)


def inherited_sockets() -> dict[str, socket.socket]:
    """Returns the sockets that the service manager passed, by FileDescriptorName."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, socket.socket] = {}
    for index in range(int(os.environ.get("LISTEN_FDS", "0"))):
        sock = socket.socket(fileno=LISTEN_FDS_START + index)
        sock.set_inheritable(False)
        name = names[index] if index < len(names) else ""
        if sock.family != socket.AF_UNIX:
            raise ConfigError("the service manager passed a socket that is not a Unix socket")
        found[name if name not in found else f"{name}{index}"] = sock
    return found


def pick(sockets: dict[str, socket.socket], kind: socket.SocketKind) -> socket.socket | None:
    """Returns the inherited socket of the given kind: datagram for events, stream for reports."""
    return next((sock for sock in sockets.values() if sock.type == kind), None)


def bind(path: Path, kind: socket.SocketKind, mode: int) -> socket.socket:
    """Returns a socket bound to `path`, in place of a stale one. Raises CannotCreate.

    The caller holds the instance's lock, so a daemon that uses the socket is of another instance.
    """
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        if kind == socket.SOCK_DGRAM:
            ask_for_credentials(sock)  # set before bind, so that no datagram lacks its sender
        if os.path.lexists(path):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise CannotCreate(f"{path}: a file that is not a socket is there. Move it away.")
            if kind == socket.SOCK_DGRAM:
                check_not_in_use(path, kind)
            path.unlink()
        # The umask closes the socket to others until its mode is set.
        before = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        path.chmod(mode)
    except OSError as error:
        sock.close()
        raise CannotCreate(f"{path}: the socket cannot be created: {error.strerror}") from error
    except CannotCreate:
        sock.close()
        raise
    return sock


def check_not_in_use(path: Path, kind: socket.SocketKind) -> None:
    """Raises CannotCreate if a process uses the socket at that path. Sends no datagram.

    Two daemons would take the socket from each other again and again.

    Two daemons would keep taking it from each other.
    """
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except BlockingIOError:
            pass  # the socket has a listener, whose queue is full
        except OSError:
            return
    raise CannotCreate(
        f"{path}: another process, not of this instance, receives there. Stop it, or give each "
        "instance a socket of its own."
    )


def queue_length() -> int | None:
    """Returns how many datagrams a socket created now in this network namespace can queue.

    An existing socket keeps its number. The kernel queues one more than the setting.
    """
    try:
        return int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1
    except (OSError, ValueError):
        return None


def ask_for_credentials(sock: socket.socket) -> None:
    """Makes the kernel attach the sender's credentials to each datagram."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


class Receiver:
    """Reads a datagram socket into one reused buffer: a new one each time takes up to 19 us."""

    def __init__(self, sock: socket.socket, queue_datagrams: int | None = None) -> None:
        self.socket = sock
        self._former: list[socket.socket] = []
        # The queue's length; None if unknown (see `queue_length`).
        self.queue_datagrams = queue_datagrams
        ask_for_credentials(sock)
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._into = [self._buffer]

    def replace(self, sock: socket.socket, queue_datagrams: int | None = None) -> None:
        """Receives from another socket, after emptying the queue of the former one.

        The kernel refuses clients that are connected to the former one; they connect again.
        """
        ask_for_credentials(sock)
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)  # datagrams that are queued can still be read
        self._former.append(self.socket)
        self.socket, self.queue_datagrams = sock, queue_datagrams

    def datagrams(self) -> Iterator[tuple[bytes, int, int, bool]]:
        """Yields queued datagrams: data, the sender's uid and pid, whether the data was cut.

        Raises OSError for errors that only a broken socket gives.
        """
        return self._queued_in_all() if self._former else self._queued(self.socket)

    def _queued_in_all(self) -> Iterator[tuple[bytes, int, int, bool]]:
        while self._former:
            yield from self._queued(self._former[0])
            self._former.pop(0).close()
        yield from self._queued(self.socket)

    def _queued(self, sock: socket.socket) -> Iterator[tuple[bytes, int, int, bool]]:
        receive, view, into = sock.recvmsg_into, self._view, self._into
        while True:
            try:
                # The flag is of the call, not of the socket: other processes share the socket,
                # and systemd resets its flag each time that it passes the socket to a service.
                length, ancillary, flags, _address = receive(
                    into, _ANCILLARY_BYTES, socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return
            uid, pid = _UNKNOWN[1], _UNKNOWN[0]
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    pid, uid, _gid = _UCRED.unpack(data)
            yield bytes(view[:length]), uid, pid, bool(flags & socket.MSG_TRUNC)

    def close(self) -> None:
        """Closes the socket; the service manager's descriptor of it stays open."""
        for sock in (*self._former, self.socket):
            sock.close()
