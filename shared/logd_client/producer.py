"""A producer: a process's numbered stream of events, with an id, an outbox (or none), a socket."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Mapping

from logd_client.clock import SYSTEM_CLOCK, Clock
from logd_client.descriptors import Identity
from logd_client.outbox_file import OutboxFile
from logd_client.socket_path import locate, to_connect
from logd_wire import forks
from logd_wire.causes import why_not_sent
from logd_wire.rendezvous import NoOutbox, maps_ids_to_themselves
from logd_wire.wire import KIND_AWAITED, datagram_head, encode_farewell, producer_seed

RECONNECT_INTERVAL_S = 0.1
# Seconds until a client without an outbox tries again: few at first, since a running daemon
# restores what was removed within a second; then twice as many each time, up to the interval.
OUTBOX_RETRY_FIRST_S = 0.5
OUTBOX_RETRY_INTERVAL_S = 5.0
_ID_TRIES = 3


class Producer:
    """Numbers events, keeps them in an outbox, and sends datagrams.

    A process makes one at its first event; a forked child makes its own. `mark` is that of its
    process (`logd_wire.forks`); `follows` is the id of the producer before it in this process, 0
    for none; `growth_bytes` is the size of larger rings that may follow. With `ring_bytes` 0 it has
    no outbox, because logd has refused the outboxes of this process. `sequence_sent` is the last
    sequence that the kernel took from a producer without an outbox. Raises Forked in a child that
    is forked while the producer is made.
    """

    send_errno = 0  # errno of the last send; 0 if the kernel took the datagram

    def __init__(
        self,
        socket_path: str,
        directory: str | None,
        ring_bytes: int,
        follows: int = 0,
        growth_bytes: int = 0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.mark = forks.current().mark
        self._monotonic_s = clock.monotonic_s
        self.no_outbox_reason: str | None = None
        self.outbox: OutboxFile | None = None
        self.socket: socket.socket | None = None
        self._socket_identity: Identity | None = None
        self._given_path = socket_path
        # The located path is kept, so that socket and outbox
        # belong to the same daemon even if a link changes later.
        self._socket_path = locate(socket_path)
        self._connect_after_s = 0.0
        self.compare_due_s = 0.0  # when `ProducerSuccession.is_intact` checks next
        self.displaced_since_s: float | None = None
        self._outbox_retry_wait_s = min(OUTBOX_RETRY_FIRST_S, OUTBOX_RETRY_INTERVAL_S)
        self.retry_outbox_after_s = self._monotonic_s() + self._outbox_retry_wait_s
        # The user id in file names and datagrams: the process may change its user later.
        self._uid_here = os.getuid()
        for _ in range(_ID_TRIES):
            self._draw_id()
            if not ring_bytes:
                self.no_outbox_reason = (
                    "logd has refused this process's outboxes: see `logd quarantine`"
                )
                break
            try:
                self.outbox = OutboxFile(
                    self._socket_path, directory, self.id, ring_bytes, clock.time_ns(), self.mark,
                    follows, growth_bytes,
                )  # fmt: skip
                self.no_outbox_reason = None
            except NoOutbox as reason:
                self.no_outbox_reason = str(reason)
            except FileExistsError:
                # A child that a signal handler forked right
                # after the id was drawn uses the same id.
                self.no_outbox_reason = "an outbox of its id exists already"
                continue
            break

    def _draw_id(self) -> None:
        self.id = secrets.randbits(64)
        self.seed = producer_seed(self.id)
        self.head = datagram_head(self.id)
        self.head_awaited = datagram_head(self.id, KIND_AWAITED)
        self.sequence_sent = 0  # the last sequence that the kernel took (without an outbox)
        self.sequence_tried = 0  # the last sequence given to the kernel (without an outbox)
        # Whether the last event was sent. If so, the next one probably is too,
        # and the outbox is checked before it is written.
        self.sends = False

    def postpone_outbox_retry(self, now_s: float) -> None:
        """Doubles the time until the next try, after a try at which no outbox could be made."""
        self._outbox_retry_wait_s = min(2 * self._outbox_retry_wait_s, OUTBOX_RETRY_INTERVAL_S)
        self.retry_outbox_after_s = now_s + self._outbox_retry_wait_s

    @property
    def label(self) -> str:
        """The producer's name in the trail: uid and id."""
        if self.outbox is not None:
            return f"{self.outbox.uid}-{self.id:016x}"
        # Inside a user namespace, the user id that the daemon sees is not known.
        return f"{self._uid_here if maps_ids_to_themselves() else '?'}-{self.id:016x}"

    @property
    def written(self) -> int:
        """The sequence of the last accepted event."""
        return self.outbox.writer.written if self.outbox else self.sequence_sent

    @property
    def attempted(self) -> int:
        """The sequence of the event written last or being written: see `OutboxWriter`."""
        return self.outbox.writer.attempted if self.outbox else self.sequence_tried

    @property
    def confirmed(self) -> int:
        """The last sequence known to be on disk; without an outbox none ever is."""
        return self.outbox.writer.confirmed if self.outbox else 0

    @property
    def intact(self) -> bool:
        """Whether process, user and file are still those that the producer was created with.

        If not, the client continues with another producer, which starts a new sequence.
        """
        return (
            os.getuid() == self._uid_here
            and (self.outbox is None or self.outbox.intact())
            and (self._given_path == self._socket_path or not self._leads_elsewhere())
        )

    def _leads_elsewhere(self) -> bool:
        """Whether the client's socket path leads to another daemon's socket now."""
        located = locate(self._given_path)
        return located not in (self._socket_path, self._given_path)

    def send(self, datagram: bytes) -> bool:
        """Sends a datagram without waiting; returns whether the kernel took it."""
        try:
            # There is a socket, unless the last attempt to connect or send failed.
            sock = self._checked_socket() or self._connect()
            if not self.mark[0]:
                return False  # a forked child must not use its parent's sequence
            sock.send(datagram, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self.send_errno = errno.EAGAIN
            return False  # the daemon's queue is full; it will read the outbox
        except OSError as error:
            # OSError without an errno is raised by `_connect` when the next attempt is not due yet.
            self.send_errno = error.errno or self.send_errno
            # A connected socket that was refused once stays refused,
            # even if a daemon binds the path again.
            self._disconnect()
            return False
        self.send_errno = 0
        return True

    @property
    def send_error(self) -> str | None:
        """Why the kernel did not take the last datagram; None if it did."""
        return why_not_sent(self.send_errno, self._given_path) if self.send_errno else None

    def _checked_socket(self) -> socket.socket | None:
        """Returns the socket; None if its descriptor's number names something else now."""
        sock, identity = self.socket, self._socket_identity
        if sock is None or (identity is not None and identity.matches(sock.fileno())):
            return sock
        self._disconnect()
        self._connect_after_s = 0.0  # reconnect at once, since the daemon did not refuse
        return None

    def send_farewell(self, refused: Mapping[str, int]) -> bool:
        """Sends the last sequence, which shows a gap at the end; returns whether it was sent.

        Used for a producer without an outbox, or one whose outbox is lost. If a daemon was killed,
        its socket's failure may show only at this send. The next daemon's socket has the same path,
        so a second attempt is made there.
        """
        if os.getuid() != self._uid_here:
            return False  # the datagram would have another uid, and count for another producer
        datagram = encode_farewell(self.id, self.written, refused)
        if self.send(datagram):
            return True
        if self.socket is not None:
            return False
        self._connect_after_s = 0.0
        return self.send(datagram)

    def _connect(self) -> socket.socket:
        now_s = self._monotonic_s()
        if now_s < self._connect_after_s:
            raise ConnectionRefusedError
        self._connect_after_s = now_s + RECONNECT_INTERVAL_S
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(to_connect(self._socket_path, self._given_path))
            self._socket_identity = Identity.of(sock.fileno())
        except OSError:
            sock.close()
            raise
        self.socket = sock
        return sock

    def _disconnect(self) -> None:
        sock, identity = self.socket, self._socket_identity
        self.socket = self._socket_identity = None
        if sock is None:
            return
        if identity is not None and identity.matches(sock.fileno()):
            sock.close()
        else:
            sock.detach()  # the number now names a file of the application, which must stay open

    def leave(self) -> None:
        """Ends this producer's sequence and releases its lock, which shows the daemon its end.

        The daemon still reads and confirms what is in its outbox.
        """
        self._disconnect()
        if self.outbox is not None:
            self.outbox.release_descriptor()

    def close(self) -> None:
        """Closes socket, descriptor and mapping; the outbox's file stays for the daemon to read."""
        self._disconnect()
        if self.outbox is not None:
            self.outbox.close()
