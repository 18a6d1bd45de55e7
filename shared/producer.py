"""A producer: one process's numbered stream of events. Its id, its outbox (or none), its socket."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Mapping

import msgpack

from shared import forks
from shared.outbox_file import OutboxFile
from shared.rendezvous import NoOutbox
from shared.wire import KIND_AWAITED, datagram_head, encode_farewell, producer_seed

RECONNECT_INTERVAL_S = 0.1
HEAL_INTERVAL_S = 5.0


class Producer:
    """Made at a process's first event; a forked child makes its own.

    `sequence_sent` counts what the kernel took, for a producer without an outbox; `forks` tells
    whose it is. Raises Forked in a child that is forked in the middle of this.
    """

    def __init__(self, socket_path: str, directory: str | None, outbox_bytes: int) -> None:
        self.forks = forks.count
        self.pid = os.getpid()
        self.id = secrets.randbits(64)
        self.seed = producer_seed(self.id)
        self.head = datagram_head(self.id)
        self.head_awaited = datagram_head(self.id, KIND_AWAITED)
        self.packer = msgpack.Packer()
        self.sequence_sent = 0  # without an outbox: the last the kernel took
        self.no_outbox_reason: str | None = None
        self.outbox: OutboxFile | None = None
        self.socket: socket.socket | None = None
        self._socket_path = socket_path
        self._connect_after_s = 0.0
        self.heal_after_s = time.monotonic() + HEAL_INTERVAL_S
        try:
            self.outbox = OutboxFile(
                socket_path, directory, self.id, outbox_bytes, now_ns=time.time_ns()
            )
        except NoOutbox as reason:
            self.no_outbox_reason = str(reason)

    @property
    def written(self) -> int:
        """The sequence of the last accepted event."""
        return self.outbox.writer.written if self.outbox else self.sequence_sent

    @property
    def confirmed(self) -> int:
        """The last sequence known to be on disk; without an outbox none ever is."""
        return self.outbox.writer.confirmed if self.outbox else 0

    def send(self, datagram: bytes) -> bool:
        """One send that never waits. False when the kernel did not take it."""
        try:
            # A socket is there unless the daemon was away at the last try.
            (self.socket or self._connect()).send(datagram)
        except BlockingIOError:
            return False  # the daemon's queue is full; it will read the outbox
        except OSError:
            # Refused once, a connected socket stays so for ever, even after a new bind.
            self._disconnect()
            return False
        return True

    def say_farewell(self, refused: Mapping[str, int]) -> None:
        """Without an outbox, last: the numbers used, so that what is missing at the end is known.

        A daemon that was killed with the last events queued leaves its socket dead; that is found
        out only now, and the next daemon's is at the same path. So it gets a second try there.
        """
        datagram = encode_farewell(self.id, self.sequence_sent, refused)
        if not self.send(datagram) and self.socket is None:
            self._connect_after_s = 0.0
            self.send(datagram)

    def _connect(self) -> socket.socket:
        now_s = time.monotonic()
        if now_s < self._connect_after_s:
            raise ConnectionRefusedError
        self._connect_after_s = now_s + RECONNECT_INTERVAL_S
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(self._socket_path)
        except OSError:
            sock.close()
            raise
        self.socket = sock
        return sock

    def _disconnect(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def close(self) -> None:
        """Closes what this process holds of it; the outbox's file stays for the daemon."""
        self._disconnect()
        if self.outbox is not None:
            self.outbox.close()
