"""Serves bounded requests on a stream socket: one thread for all sockets, some for the answers.

Peers are not trusted: one may send nothing, or a byte at a time, not read its answer, or connect in
a loop. So each state of a connection has a deadline, a connection costs a descriptor and a buffer
but no thread, and `Admission` shares seats and running places by user. The `Service` defines
requests and answers.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import errno
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from logd.log_limit import ThrottledLog
from logd.serve.admission import Admission
from logd.serve.usage import PublishedUsage

# The seconds for a complete request, from the connection or the last answer.
REQUEST_TIMEOUT_S = 1.0
WAIT_TIMEOUT_S = 5.0  # the seconds for which a request waits until a running place is free
ANSWER_TIMEOUT_S = 5.0  # the seconds for the peer to read its whole answer
BUG_LOG_INTERVAL_S = 60.0
ACCEPTED_AT_ONCE = 64
ACCEPT_PAUSE_S = 0.1  # the seconds without accepting, when descriptors have run out
RECEIVED_BYTES = 64 * 1024
# A constant that Python's socket module lacks; the same on all common architectures.
SO_PEERGROUPS = 59
GROUPS_BYTES_MAX = 1024  # the most bytes that Python reads of a socket option: 256 groups
UID_UNKNOWN = -1  # the uid of a peer over TCP

_log = logging.getLogger("logd.reports")
_UCRED = struct.Struct("iII")
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL
_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(frozen=True)
class Credentials:
    """The credentials of a peer, from the kernel."""

    pid: int
    uid: int
    gids: frozenset[int]


class Service(Protocol):
    """The protocol that is spoken over the connections."""

    def take_request(self, received: bytearray, *, ended: bool) -> bytes | None:
        """Removes one request from the received bytes; returns None if it is not complete yet.

        Bytes that can never become a request, or end with the stream, are returned as one, which
        `answer` refuses. It returns None at the stream's end if no bytes are left.
        """

    def deny(self, credentials: Credentials) -> bytes | None:
        """Returns the answer to a peer without permission; None if it has permission."""

    def answer(self, request: bytes, credentials: Credentials) -> tuple[bytes, bool]:
        """Returns the answer, and whether the connection stays open. Runs in a thread."""

    def error(self, code: str, message: str) -> bytes:
        """Returns an error answer: `code` is "busy" or "bad_request"."""


class _State(enum.Enum):
    READING = select.POLLIN
    WAITING = 0  # poll() reports a hang-up even for no events
    RUNNING = -1  # the socket is not in the poll set
    WRITING = select.POLLOUT


class _Peer:
    """A connection that is kept, and its state."""

    def __init__(self, sock: socket.socket, credentials: Credentials, deadline_s: float) -> None:
        self.sock = sock
        self.credentials = credentials
        self.uid = credentials.uid
        self.state = _State.READING
        self.deadline_s = deadline_s
        self.received = bytearray()
        self.ended = False  # the peer has closed its side
        self.request = b""
        self.unsent = memoryview(b"")
        self.started_s = 0.0
        self.stays = True


class _Acceptor:
    """Accepts connections, up to ACCEPTED_AT_ONCE at a time; pauses if descriptors run out."""

    def __init__(
        self, listener: socket.socket, poll: select.poll, clock_s: Callable[[], float]
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._poll = poll
        self._clock_s = clock_s
        self.due_s: float | None = None  # when accepting resumes; None while it is not paused
        self.fd = listener.fileno()
        poll.register(listener, select.POLLIN)

    def connections(self) -> Iterator[socket.socket]:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                # The flag is set before each accept. It belongs to the socket: systemd clears
                # it each time that it passes the socket to a service, also to logd-hold.service.
                self._listener.setblocking(False)
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS:
                    self._poll.unregister(self._listener)
                    self.due_s = self._clock_s() + ACCEPT_PAUSE_S
                    return
                continue  # the connection was closed already
            sock.setblocking(False)
            yield sock

    def resume(self, now_s: float) -> None:
        """Accepts connections again, if the pause is over."""
        if self.due_s is not None and now_s >= self.due_s:
            self.due_s = None
            self._poll.register(self._listener, select.POLLIN)


class RequestServer:
    """Serves the connections of one listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        service: Service,
        *,
        seats_max: int,
        running_max: int,
        publish: Callable[[list[dict[str, Any]]], None] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._clock_s = clock_s
        self._usage = PublishedUsage(publish, clock_s())
        # The log is throttled, since a user's request may trigger a bug again and again.
        self._bugs = ThrottledLog(_log, clock_s, BUG_LOG_INTERVAL_S)
        self._admission: Admission[_Peer] = Admission(seats_max, running_max)
        self._peers: dict[int, _Peer] = {}
        self._poll = select.poll()
        self._acceptor = _Acceptor(listener, self._poll, clock_s)
        self._answered: collections.deque[tuple[_Peer, bytes | None, bool]] = collections.deque()
        self._woken, self._waker = socket.socketpair()
        for sock in (self._woken, self._waker):
            sock.setblocking(False)
        self._poll.register(self._woken, select.POLLIN)
        self._lifeline_fd: int | None = None
        self._is_alive: Callable[[], bool] = lambda: True

    def serve(self, lifeline_fd: int, is_alive: Callable[[], bool] | None = None) -> None:
        """Serves until the lifeline ends, which `is_alive` finds by reading from it."""
        self._lifeline_fd = lifeline_fd
        self._is_alive = is_alive or (lambda: bool(os.read(lifeline_fd, 1)))
        self._poll.register(lifeline_fd, select.POLLIN)
        while self.run_once(None):
            pass

    def run_once(self, timeout_s: float | None) -> bool:
        """Waits for events and handles them; returns False when the daemon has ended the server."""
        connected = False
        for fd, events in self._poll.poll(self._poll_ms(timeout_s)):
            if fd == self._lifeline_fd:
                if not self._is_alive():
                    return False
            elif fd == self._woken.fileno():
                self._woken.recv(RECEIVED_BYTES)
            elif fd == self._acceptor.fd:
                connected = True
            else:
                self._advance(self._peers[fd], events)
        if connected:
            # New connections are handled last: one may get the descriptor of a
            # connection that was just closed, and must not be given its events.
            for sock in self._acceptor.connections():
                self._welcome(sock)
        while self._answered:
            self._send(*self._answered.popleft())
        self._expire()
        while (peer := self._admission.start_next()) is not None:
            self._run(peer)
        self._usage.publish_if_due(self._clock_s())
        return True

    def close(self) -> None:
        """Closes every connection. The caller closes the listener."""
        for sock in (*(peer.sock for peer in self._peers.values()), self._woken, self._waker):
            sock.close()

    # -- events ----------------------------------------------------------------------------------

    def _welcome(self, sock: socket.socket) -> None:
        credentials = _credentials(sock)
        uid = credentials.uid
        idle = self._admission.make_room(uid)
        if idle is not None:
            self._usage.of(idle.uid).let_go += 1
            message = f"{_user(idle.uid)} has other connections, and this one was idle"
            self._dismiss(idle, f"{message}: send the request at once after connecting")
        if not self._admission.has_room(uid):
            self._usage.of(uid).put_off += 1
            message = f"{_user(uid)} has as many requests open as it may have"
            _send_and_close(sock, self._service.error("busy", _retry_later(message)))
            return
        peer = _Peer(sock, credentials, self._clock_s() + REQUEST_TIMEOUT_S)
        self._peers[sock.fileno()] = peer
        self._admission.seat(peer)
        self._poll.register(sock, peer.state.value)
        self._receive(peer)  # a request has often arrived with the connection

    def _advance(self, peer: _Peer, events: int) -> None:
        if peer.state is _State.READING:
            self._receive(peer)
        elif events & _GONE:
            self._close(peer)  # the peer has closed the connection
        elif peer.state is _State.WRITING:
            self._write(peer)

    def _receive(self, peer: _Peer) -> None:
        try:
            data = peer.sock.recv(RECEIVED_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._close(peer)
            return
        peer.received += data
        peer.ended = not data
        self._take_request(peer)

    def _take_request(self, peer: _Peer) -> None:
        request = self._service.take_request(peer.received, ended=peer.ended)
        if request is None:
            if peer.ended:
                self._close(peer)
            return
        denial = self._service.deny(peer.credentials)
        if denial is not None:
            self._dismiss(peer, denial)
            return
        peer.request = request
        self._admission.ask(peer)
        self._enter(peer, _State.WAITING, WAIT_TIMEOUT_S)

    def _run(self, peer: _Peer) -> None:
        self._poll.unregister(peer.sock)
        peer.state = _State.RUNNING
        peer.started_s = self._clock_s()
        thread = threading.Thread(target=self._answer, args=(peer, peer.request), daemon=True)
        peer.request = b""
        try:
            thread.start()
        except RuntimeError:  # the process has no threads left
            self._finish(peer, None, False)

    def _answer(self, peer: _Peer, request: bytes) -> None:
        """Computes the answer to one request, in a thread of its own."""
        answer, stays = None, False
        try:
            answer, stays = self._service.answer(request, peer.credentials)
        except Exception:  # noqa: BLE001 - a bug costs that answer only
            self._bugs.exception("an answer could not be made")
        finally:
            self._finish(peer, answer, stays)

    def _finish(self, peer: _Peer, answer: bytes | None, stays: bool) -> None:
        """Queues an answer to be sent. Called from any thread."""
        self._answered.append((peer, answer, stays))
        with contextlib.suppress(OSError):  # the loop is woken already, or the socket is closed
            self._waker.send(b"\0")

    def _send(self, peer: _Peer, answer: bytes | None, stays: bool) -> None:
        if answer is None:  # there was a bug, whose traceback was logged, or no thread was left
            answer = self._service.error("busy", "no answer could be made now: try again later")
        usage = self._usage.of(peer.uid)
        usage.questions += 1
        usage.running_s += self._clock_s() - peer.started_s
        peer.unsent, peer.stays = memoryview(answer), stays
        self._poll.register(peer.sock, 0)
        self._enter(peer, _State.WRITING, ANSWER_TIMEOUT_S)
        self._write(peer)

    def _write(self, peer: _Peer) -> None:
        # The running place is kept until the answer is sent, since unread answers take memory.
        try:
            peer.unsent = peer.unsent[peer.sock.send(peer.unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._close(peer)
            return
        if peer.unsent:
            return
        if not peer.stays:
            self._close(peer)
            return
        self._admission.finish(peer)
        self._enter(peer, _State.READING, REQUEST_TIMEOUT_S)
        self._take_request(peer)  # the next request may have arrived already

    def _expire(self) -> None:
        now_s = self._clock_s()
        self._acceptor.resume(now_s)
        for peer in [peer for peer in self._peers.values() if peer.deadline_s <= now_s]:
            if peer.state is _State.RUNNING:
                continue
            usage = self._usage.of(peer.uid)
            if peer.state is _State.WAITING:
                usage.put_off += 1
                message = f"the running reports leave no place for {_user(peer.uid)}"
                self._dismiss(peer, _retry_later(message))
                continue
            usage.let_go += 1
            if peer.state is _State.READING and peer.received:
                late = f"no complete request within {REQUEST_TIMEOUT_S:.0f} s"
                self._dismiss(peer, self._service.error("bad_request", late))
            else:
                self._close(peer)

    # -- states ----------------------------------------------------------------------------------

    def _enter(self, peer: _Peer, state: _State, timeout_s: float) -> None:
        peer.state = state
        peer.deadline_s = self._clock_s() + timeout_s
        self._poll.modify(peer.sock, state.value)

    def _dismiss(self, peer: _Peer, why: bytes | str) -> None:
        answer = why if isinstance(why, bytes) else self._service.error("busy", why)
        self._forget(peer)
        _send_and_close(peer.sock, answer)

    def _close(self, peer: _Peer) -> None:
        self._forget(peer)
        peer.sock.close()

    def _forget(self, peer: _Peer) -> None:
        if peer.state is _State.WRITING:
            self._admission.finish(peer)
        del self._peers[peer.sock.fileno()]
        self._poll.unregister(peer.sock)
        self._admission.leave(peer)

    def _poll_ms(self, timeout_s: float | None) -> int | None:
        if timeout_s is None:
            due = [p.deadline_s for p in self._peers.values() if p.state is not _State.RUNNING]
            due += (s for s in (self._acceptor.due_s, self._usage.due_s) if s is not None)
            if not due:
                return None
            timeout_s = max(0.0, min(due) - self._clock_s())
        return int(timeout_s * 1000) + 1 if timeout_s else 0


def _credentials(sock: socket.socket) -> Credentials:
    if sock.family != socket.AF_UNIX:
        return Credentials(0, UID_UNKNOWN, frozenset())
    ucred = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(ucred)
    try:
        packed = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_BYTES_MAX)
    except OSError:  # the peer has more groups: all are ignored
        packed = b""
    return Credentials(pid, uid, frozenset({gid, *struct.unpack(f"{len(packed) // 4}I", packed)}))


def _send_and_close(sock: socket.socket, answer: bytes) -> None:
    """Sends as much of the answer as it can without waiting, then closes the socket."""
    with sock, contextlib.suppress(OSError):
        sock.send(answer)
        # Read what is left: closing a socket with unread data may discard the answer.
        sock.recv(RECEIVED_BYTES)


def _user(uid: int) -> str:
    return "this address" if uid == UID_UNKNOWN else f"user id {uid}"


def _retry_later(message: str) -> str:
    return f"{message}: wait for the answers, then ask again, fewer at a time"
