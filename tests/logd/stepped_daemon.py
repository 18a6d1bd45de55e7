"""A daemon that runs a round only when a test calls it, and outboxes that dead producers left."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack

from logd.errors import StorageBusy
from logd.ingest.outbox_directory import OutboxDirectory
from logd.ingest.receiver import Receiver, bind
from logd.serve.loop import EventLoop
from logd.storage import keyfile
from logd.storage.store import Store
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    RING_BYTES_MIN,
    WORD_CONFIRMED_POSITION,
    aligned,
    outbox_bytes,
    parse_header,
)
from logd_wire.outbox.names import outbox_name
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.wire import RECORD_HEAD, pack_payload
from tests.support.instance import Instance

PRODUCER = 5
GONE_PID = 2**31 - 1  # more than a kernel gives to any process


class Written:
    """An outbox file as a dead producer leaves it, without a lock."""

    def __init__(self, directory: Path, producer_id: int = PRODUCER) -> None:
        self.path = directory / outbox_name(os.getuid(), producer_id)
        self._buffer = bytearray(outbox_bytes(RING_BYTES_MIN))
        self.writer = OutboxWriter(memoryview(self._buffer), producer_id, GONE_PID, now_ns=1)
        self.words = memoryview(self._buffer).cast("Q")  # in the file with the next `write`
        self._payload = pack_payload(msgpack.Packer(), "page_view", 1, None, None)

    def write(self, count: int, confirmed_position: int = 0) -> None:
        for _ in range(count):
            assert self.writer.append(self._payload)
        self.words[WORD_CONFIRMED_POSITION] |= confirmed_position
        with open(self.path, "r+b" if self.path.exists() else "wb") as file:
            file.write(self._buffer)

    def spoil(self, number: int) -> None:
        """Changes a byte of that record, counted from 0; all are of the same size."""
        size = aligned(RECORD_HEAD.size + len(self._payload))
        with open(self.path, "r+b") as file:
            file.seek(HEADER_BYTES + number * size + size - 8)
            file.write(b"?" * 8)

    @property
    def confirmed(self) -> int:
        data = self.path.read_bytes()
        return parse_header(data[:HEADER_BYTES], len(data)).confirmed_sequence


class SteppedDaemon(EventLoop):
    """A daemon in the test's process, with its configuration, store and outbox directory.

    `settings` replace those of the instance. Each round commits, unless they say otherwise.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = lambda: 7,
        worker: Any = None,
        **settings: Any,
    ) -> None:
        self.config = config = replace(instance.config, **{"commit_interval_ms": 0, **settings})
        self.store = Store(
            config.database, keyfile.read(config.key_file), 1, config.quarantine_rows_max
        )
        self.directory = OutboxDirectory(config.outbox_directory)
        self.directory.prepare(str(config.socket))
        receiver = Receiver(bind(config.socket, socket.SOCK_DGRAM, config.socket_mode))
        super().__init__(
            config,
            self.store,
            receiver,
            self.directory,
            clock_ns,
            worker=worker,
            monotonic_s=monotonic_s,
        )

    def ledger(self) -> list[tuple[int, int | None, str]]:
        """Its losses: first and last sequence, and cause."""
        rows = self.store.connection.execute("SELECT first, last, cause FROM loss ORDER BY id")
        return list(rows.fetchall())


def new_daemon(
    instance: Instance, monotonic_s: Callable[[], float] = time.monotonic
) -> SteppedDaemon:
    return SteppedDaemon(instance, monotonic_s=monotonic_s)


def look(daemon: EventLoop) -> None:
    """Runs a round in which polling is due, and more until all files are opened and searched."""
    daemon.delivery.state.poll_due_s = 0.0
    daemon.run_once(timeout_s=0)
    while daemon.delivery.tasks or daemon.delivery.finder.is_listing:
        daemon.run_once(timeout_s=0)


def no_space(*_: object) -> None:
    """Takes the place of `Store.commit` on a full disk."""
    raise StorageBusy("full")
