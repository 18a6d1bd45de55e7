"""Answers bounded requests on a stream socket: one thread for all sockets, few for the answers.

Whoever connects is a stranger: it may say nothing, say a byte at a time, ask without reading the
answer, or connect in a loop. Each state of a connection therefore has one deadline in all, a
connection costs a descriptor and a buffer but no thread, and `Admission` shares what is scarce by
user. What is asked and answered is the `Service`'s.
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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from logd.log_limit import ThrottledLog
from logd.serve.admission import Admission
from logd.serve.usage import Usage, UserUsage

REQUEST_TIMEOUT_S = 1.0  # from the connection, or the last answer, to a whole request
WAIT_TIMEOUT_S = 5.0  # for a running place
ANSWER_TIMEOUT_S = 5.0  # for the peer to take all of its answer
PUBLISH_INTERVAL_S = 1.0
MISTAKE_INTERVAL_S = 60.0
ACCEPTED_AT_ONCE = 64
ACCEPT_PAUSE_S = 0.1  # while no further descriptor can be had
RECEIVED_BYTES = 64 * 1024
SO_PEERGROUPS = 59  # not in Python's socket module; the same on every common architecture
GROUPS_BYTES_MAX = 1024  # as much as Python reads of an option: 256 groups
UID_UNKNOWN = -1  # of a peer over TCP

_log = logging.getLogger("logd.reports")
_UCRED = struct.Struct("iII")
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL
_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(frozen=True)
class Credentials:
    """Who connected, by the kernel."""

    pid: int
    uid: int
    gids: frozenset[int]


class Service(Protocol):
    """The protocol spoken over the connections."""

    def take_request(self, received: bytearray, *, ended: bool) -> bytes | None:
        """Removes one request from what was received; None: it is not whole yet.

        What can never become a request, or is cut short by the stream's end, counts as one: it is
        for `answer` to refuse. Nothing is left of it then, and at the end nothing at all: None.
        """

    def refusal(self, credentials: Credentials) -> bytes | None:
        """The answer to whoever may not ask; None: may ask."""

    def answer(self, request: bytes, credentials: Credentials) -> tuple[bytes, bool]:
        """The answer, and whether the connection stays open. Runs in a thread."""

    def problem(self, code: str, message: str) -> bytes:
        """The answer to who cannot be served just now: `code` is "busy" or "bad_request"."""


class _State(enum.Enum):
    READING = select.POLLIN
    WAITING = 0  # poll reports a hang-up nevertheless
    RUNNING = -1  # not polled
    WRITING = select.POLLOUT


class _Peer:
    """A connection that has a seat."""

    def __init__(self, sock: socket.socket, credentials: Credentials, deadline_s: float) -> None:
        self.sock = sock
        self.credentials = credentials
        self.uid = credentials.uid
        self.state = _State.READING
        self.deadline_s = deadline_s
        self.received = bytearray()
        self.ended = False  # it will send no more
        self.request = b""
        self.unsent = memoryview(b"")
        self.started_s = 0.0
        self.stays = True


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
        listener.setblocking(False)
        self._listener = listener
        self._service = service
        self._clock_s = clock_s
        self._publish = publish
        self._publish_due_s = clock_s()
        self._usage = Usage()
        self._used = False  # since it was published
        # A user's question may be what causes a mistake, again and again.
        self._mistakes = ThrottledLog(_log, clock_s, MISTAKE_INTERVAL_S)
        self._admission: Admission[_Peer] = Admission(seats_max, running_max)
        self._peers: dict[int, _Peer] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._accept_again_s: float | None = None
        self._answered: collections.deque[tuple[_Peer, bytes | None, bool]] = collections.deque()
        self._woken, self._waker = socket.socketpair()
        for sock in (self._woken, self._waker):
            sock.setblocking(False)
        self._poll.register(self._woken, select.POLLIN)
        self._lifeline_fd: int | None = None

    def serve(self, lifeline_fd: int) -> None:
        """Answers until the lifeline ends."""
        self._lifeline_fd = lifeline_fd
        self._poll.register(lifeline_fd, select.POLLIN)
        while self.run_once(None):
            pass

    def run_once(self, timeout_s: float | None) -> bool:
        """Waits for what happens next, and does all of it; False: the lifeline has ended."""
        connected = False
        for fd, events in self._poll.poll(self._poll_ms(timeout_s)):
            if fd == self._lifeline_fd:
                if not os.read(fd, 1):
                    return False
            elif fd == self._woken.fileno():
                self._woken.recv(RECEIVED_BYTES)
            elif fd == self._listener.fileno():
                connected = True
            else:
                self._advance(self._peers[fd], events)
        if connected:
            # Last: a new connection may get the descriptor of one that has just gone, and what
            # was reported of that is not its own.
            self._accept()
        while self._answered:
            self._send(*self._answered.popleft())
        self._expire()
        while (peer := self._admission.start_next()) is not None:
            self._run(peer)
        self._publish_usage()
        return True

    def close(self) -> None:
        """Every connection gone; the listener is the caller's."""
        for sock in (*(peer.sock for peer in self._peers.values()), self._woken, self._waker):
            sock.close()

    # -- what happens ----------------------------------------------------------------------------

    def _accept(self) -> None:
        # Some of a long backlog, and then what else has happened.
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                # Whether it waits is a flag of the socket's, not of this process's: systemd clears
                # it each time that it hands the socket to a service, to logd-hold.service too.
                self._listener.setblocking(False)
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS:
                    self._poll.unregister(self._listener)
                    self._accept_again_s = self._clock_s() + ACCEPT_PAUSE_S
                    return
                continue  # of that connection: it has gone already
            sock.setblocking(False)
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        credentials = _credentials(sock)
        uid = credentials.uid
        idle = self._admission.make_room(uid)
        if idle is not None:
            self._use(idle.uid).let_go += 1
            message = f"{_user(idle.uid)} has other connections, and this one was idle"
            self._dismiss(idle, f"{message}: ask at once when you have connected")
        if not self._admission.has_room(uid):
            self._use(uid).put_off += 1
            message = f"{_user(uid)} has as many questions open as it may have"
            _send_off(sock, self._service.problem("busy", _ask_again(message)))
            return
        peer = _Peer(sock, credentials, self._clock_s() + REQUEST_TIMEOUT_S)
        self._peers[sock.fileno()] = peer
        self._admission.seat(peer)
        self._poll.register(sock, peer.state.value)
        self._receive(peer)  # an honest peer's request has mostly come with it

    def _advance(self, peer: _Peer, events: int) -> None:
        if peer.state is _State.READING:
            self._receive(peer)
        elif events & _GONE:
            self._close(peer)  # nobody is there to hear the answer
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
        self._look_for_request(peer)

    def _look_for_request(self, peer: _Peer) -> None:
        request = self._service.take_request(peer.received, ended=peer.ended)
        if request is None:
            if peer.ended:
                self._close(peer)
            return
        refusal = self._service.refusal(peer.credentials)
        if refusal is not None:
            self._dismiss(peer, refusal)
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
        except RuntimeError:  # no further thread can be had
            self._finish(peer, None, False)

    def _answer(self, peer: _Peer, request: bytes) -> None:
        """In a thread of its own."""
        answer, stays = None, False
        try:
            answer, stays = self._service.answer(request, peer.credentials)
        except Exception:  # noqa: BLE001 - a mistake costs that answer only
            self._mistakes.exception("an answer could not be made")
        finally:
            self._finish(peer, answer, stays)

    def _finish(self, peer: _Peer, answer: bytes | None, stays: bool) -> None:
        """From any thread: the answer is there to be sent."""
        self._answered.append((peer, answer, stays))
        with contextlib.suppress(OSError):  # woken already, or closed
            self._waker.send(b"\0")

    def _send(self, peer: _Peer, answer: bytes | None, stays: bool) -> None:
        if answer is None:  # a mistake of ours, whose traceback was logged, or no thread
            answer = self._service.problem("busy", "no answer could be made now: ask again later")
        usage = self._use(peer.uid)
        usage.questions += 1
        usage.running_s += self._clock_s() - peer.started_s
        peer.unsent, peer.stays = memoryview(answer), stays
        self._poll.register(peer.sock, 0)
        self._enter(peer, _State.WRITING, ANSWER_TIMEOUT_S)
        self._write(peer)

    def _write(self, peer: _Peer) -> None:
        # The running place is kept until the answer has gone: unread ones take memory.
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
        self._look_for_request(peer)  # it may have come already

    def _expire(self) -> None:
        now_s = self._clock_s()
        if self._accept_again_s is not None and now_s >= self._accept_again_s:
            self._accept_again_s = None
            self._poll.register(self._listener, select.POLLIN)
        for peer in [peer for peer in self._peers.values() if peer.deadline_s <= now_s]:
            if peer.state is _State.RUNNING:
                continue
            usage = self._use(peer.uid)
            if peer.state is _State.WAITING:
                usage.put_off += 1
                message = f"the reports that run leave no place for {_user(peer.uid)}"
                self._dismiss(peer, _ask_again(message))
                continue
            usage.let_go += 1
            if peer.state is _State.READING and peer.received:
                late = f"no whole request within {REQUEST_TIMEOUT_S:.0f} s"
                self._dismiss(peer, self._service.problem("bad_request", late))
            else:
                self._close(peer)

    # -- who asks --------------------------------------------------------------------------------

    def _use(self, uid: int) -> UserUsage:
        self._used = True
        return self._usage.of(uid)

    def _publish_usage(self) -> None:
        now_s = self._clock_s()
        if self._publish is not None and self._used and now_s >= self._publish_due_s:
            self._publish_due_s = now_s + PUBLISH_INTERVAL_S
            self._used = False
            self._publish(self._usage.rows())

    # -- states ----------------------------------------------------------------------------------

    def _enter(self, peer: _Peer, state: _State, timeout_s: float) -> None:
        peer.state = state
        peer.deadline_s = self._clock_s() + timeout_s
        self._poll.modify(peer.sock, state.value)

    def _dismiss(self, peer: _Peer, why: bytes | str) -> None:
        answer = why if isinstance(why, bytes) else self._service.problem("busy", why)
        self._forget(peer)
        _send_off(peer.sock, answer)

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
            if self._accept_again_s is not None:
                due.append(self._accept_again_s)
            if self._publish is not None and self._used:
                due.append(self._publish_due_s)
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
    except OSError:  # more groups than that: none of them counts
        packed = b""
    return Credentials(pid, uid, frozenset({gid, *struct.unpack(f"{len(packed) // 4}I", packed)}))


def _send_off(sock: socket.socket, answer: bytes) -> None:
    """As much of the answer as goes without waiting, then the end."""
    with sock, contextlib.suppress(OSError):
        sock.send(answer)
        # What is closed unread is a reset to the peer, which may cost it the answer.
        sock.recv(RECEIVED_BYTES)


def _user(uid: int) -> str:
    return "this address" if uid == UID_UNKNOWN else f"user id {uid}"


def _ask_again(message: str) -> str:
    return f"{message}: wait for their answers, then ask again, fewer at a time"
