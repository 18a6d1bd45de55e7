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
# A client without an outbox tries again: soon at first, since a daemon puts back within a second
# what was removed while it runs; then after twice the time, up to this.
OUTBOX_RETRY_FIRST_S = 0.5
OUTBOX_RETRY_INTERVAL_S = 5.0
_ID_TRIES = 3


class Producer:
    """Numbers events, keeps them in an outbox, and sends datagrams.

    A process makes one at its first event; a forked child makes its own. `mark` is that of its
    process (`logd_wire.forks`); `follows` is the id of the producer before it in this process, 0
    for none, and `growth_bytes` what larger rings after it may take. With `ring_bytes` 0 it has no
    outbox, since logd has refused those of this process. `sequence_sent` counts what the kernel
    took, for a producer without an outbox. Raises Forked in a child that is forked in the middle of
    this.
    """

    send_errno = 0  # the last send's error number, 0 where the kernel took the datagram

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
        # Kept, so that socket and outbox are of one daemon even if a link changes later.
        self._socket_path = locate(socket_path)
        self._connect_after_s = 0.0
        self.compare_due_s = 0.0  # see `ProducerSuccession.is_intact`
        self.displaced_since_s: float | None = None
        self._outbox_retry_wait_s = min(OUTBOX_RETRY_FIRST_S, OUTBOX_RETRY_INTERVAL_S)
        self.retry_outbox_after_s = self._monotonic_s() + self._outbox_retry_wait_s
        # The user in file names and datagrams: the process may give up its rights later.
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
                # A child forked by a signal handler right after the id was drawn has the same.
                self.no_outbox_reason = "an outbox of its id exists already"
                continue
            break

    def _draw_id(self) -> None:
        self.id = secrets.randbits(64)
        self.seed = producer_seed(self.id)
        self.head = datagram_head(self.id)
        self.head_awaited = datagram_head(self.id, KIND_AWAITED)
        self.sequence_sent = 0  # without an outbox: the last the kernel took
        self.sequence_tried = 0  # without an outbox: as `OutboxWriter.attempted`
        # Whether the last event was sent: then the next one probably is, and the outbox is checked
        # first.
        self.sends = False

    def postpone_outbox_retry(self, now_s: float) -> None:
        """Doubles the time until the next try: no outbox could be made this time either."""
        self._outbox_retry_wait_s = min(2 * self._outbox_retry_wait_s, OUTBOX_RETRY_INTERVAL_S)
        self.retry_outbox_after_s = now_s + self._outbox_retry_wait_s

    @property
    def label(self) -> str:
        """The producer as the trail names it: uid and id."""
        if self.outbox is not None:
            return f"{self.outbox.uid}-{self.id:016x}"
        # Inside a user namespace the daemon's number for this user is not known.
        return f"{self._uid_here if maps_ids_to_themselves() else '?'}-{self.id:016x}"

    @property
    def written(self) -> int:
        """The sequence of the last accepted event."""
        return self.outbox.writer.written if self.outbox else self.sequence_sent

    @property
    def attempted(self) -> int:
        """The sequence of the event being written, or written last: see `OutboxWriter`."""
        return self.outbox.writer.attempted if self.outbox else self.sequence_tried

    @property
    def confirmed(self) -> int:
        """The last sequence known to be on disk; without an outbox none ever is."""
        return self.outbox.writer.confirmed if self.outbox else 0

    @property
    def intact(self) -> bool:
        """Whether process, user and file are still those that the producer was created with.

        If not, its numbers end: the client continues with another producer.
        """
        return (
            os.getuid() == self._uid_here
            and (self.outbox is None or self.outbox.intact())
            and (self._given_path == self._socket_path or not self._leads_elsewhere())
        )

    def _leads_elsewhere(self) -> bool:
        """Whether the client's socket path leads to another daemon's socket by now."""
        located = locate(self._given_path)
        return located not in (self._socket_path, self._given_path)

    def send(self, datagram: bytes) -> bool:
        """Sends a datagram without waiting; returns whether the kernel took it."""
        try:
            # There is a socket unless the daemon was away at the last try.
            sock = self._checked_socket() or self._connect()
            if not self.mark[0]:
                return False  # in a child: the numbers are the parent's
            sock.send(datagram, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self.send_errno = errno.EAGAIN
            return False  # the daemon's queue is full; it will read the outbox
        except OSError as error:
            # Without an errno it is not the kernel's answer: it is too early for another try.
            self.send_errno = error.errno or self.send_errno
            # Once refused, a connected socket is refused for ever, even after a new bind.
            self._disconnect()
            return False
        self.send_errno = 0
        return True

    @property
    def send_error(self) -> str | None:
        """Why the kernel did not take the last datagram; None where it did."""
        return why_not_sent(self.send_errno, self._given_path) if self.send_errno else None

    def _checked_socket(self) -> socket.socket | None:
        """Returns the socket; None if its descriptor's number names something else by now."""
        sock, identity = self.socket, self._socket_identity
        if sock is None or (identity is not None and identity.matches(sock.fileno())):
            return sock
        self._disconnect()
        self._connect_after_s = 0.0  # at once: the daemon is not away
        return None

    def send_farewell(self, refused: Mapping[str, int]) -> bool:
        """Sends the last sequence used, so that what is missing at the end is known; whether the
        kernel took it. For a producer without an outbox, or one whose outbox is lost.

        A daemon that was killed with the last events queued leaves a dead socket, which is found
        out only now; the next daemon's is at the same path. So it gets a second try there.
        """
        if os.getuid() != self._uid_here:
            return False  # the kernel would name another user: another producer to the daemon
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
            sock.detach()  # the number is the application's: closing it would close something else

    def leave(self) -> None:
        """Ends this producer's numbers: to the daemon it has ended, as the lock goes with the
        descriptor. What is in its outbox is still read and confirmed.
        """
        self._disconnect()
        if self.outbox is not None:
            self.outbox.release_descriptor()

    def close(self) -> None:
        """Closes socket, descriptor and mapping; the outbox's file stays for the daemon."""
        self._disconnect()
        if self.outbox is not None:
            self.outbox.close()
