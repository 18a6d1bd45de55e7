"""Ways of receiving while a commit waits for the disk, as exchangeable daemons.

The daemon that people run is the first; the others are experiments that share all of its parts.
`python -m benchmarks.ingest.ways WAY --config FILE` is `logd run` with that daemon in it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable

from benchmarks.ingest.two_threads import TwoThreads
from logd import log_format
from logd.batch import Capacity, Producer
from logd.config import settings as configuration
from logd.ingest.delivery import QUEUE_DEPTH_MIN
from logd.ingest.drain import Datagram
from logd.ingest.outbox_directory import OpenOutbox
from logd.serve import run as service
from logd.serve.loop import Daemon

COUNTS_MARK = "counts: "
# One turn's read that is called a load, and how long the socket may be left alone under it:
# senders without an outbox have only the socket.
LOAD_EVENTS_MIN = 500
SOCKET_LEFT_ALONE_MAX_S = 0.05


class Counting(Daemon):
    """Mixed in before a daemon: counts what came from outboxes, and says so at the end."""

    from_outboxes = 0

    def _read(self, producer: Producer, outbox: OpenOutbox, alive: bool, room: Capacity) -> None:
        before = producer.taken
        super()._read(producer, outbox, alive, room)
        self.from_outboxes += producer.taken - before

    def close(self) -> None:
        super().close()
        print(COUNTS_MARK + json.dumps({"from_outboxes": self.from_outboxes}), file=sys.stderr)


class OneThread(Counting, Daemon):
    """The daemon as it is: drains, reads outboxes, commits, one after the other."""


class TwoThreadsCounting(Counting, TwoThreads):
    """One thread receives and orders while another one commits."""


class OutboxesUnderLoad(Counting, Daemon):
    """One thread that leaves the socket alone while the outboxes give it enough to do."""

    _socket_read_s = 0.0
    _loaded = False

    def _drain(self, datagrams: Iterable[Datagram]) -> int:
        now_s = time.monotonic()
        if self._loaded and now_s - self._socket_read_s < SOCKET_LEFT_ALONE_MAX_S:
            self._more = False
            return QUEUE_DEPTH_MIN  # as if it had been full: has the outboxes read
        self._socket_read_s = now_s
        return super()._drain(datagrams)

    def _look(self, *, due: bool, closed: set[Producer], watched: bool) -> None:
        before = self.from_outboxes
        super()._look(due=due, closed=closed, watched=watched)
        self._loaded = self.from_outboxes - before >= LOAD_EVENTS_MIN


WAYS: dict[str, type[Daemon]] = {
    "one": OneThread,
    "two": TwoThreadsCounting,
    "outboxes": OutboxesUnderLoad,
}
LABELS = {
    "one": "one thread",
    "two": "two threads",
    "outboxes": "one thread, outboxes first",
}


def main(way: str, config: str) -> None:
    """`logd run` with another daemon."""
    log_format.log_to_stderr()
    setattr(service, "Daemon", WAYS[way])  # noqa: B010 - not its type to mypy
    service.run(configuration.load(config))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
