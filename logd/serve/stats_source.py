"""Collects the statistics that a running daemon publishes once a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from logd.batch import Producer
from logd.config.settings import Config
from logd.ingest.delivery import Delivery
from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.outbox_directory import OutboxDirectory
from logd.ingest.outbox_reader import ring_events_max
from logd.ingest.receiver import Receiver
from logd.runtime_stats import (
    IGNORED_SENDERS_MAX,
    OutboxTotals,
    RuntimeStats,
    WaitingSince,
    WriteRate,
)
from logd.serve.anchor_log import AnchorLog
from logd.storage.database import file_bytes, wal_path


def outbox_totals(
    outboxes: Iterable[tuple[Producer, OpenOutbox]], now_s: float, now_ns: int = 0
) -> OutboxTotals:
    """Adds up the backlogs of the open outboxes."""
    totals = OutboxTotals()
    for producer, outbox in outboxes:
        try:
            written = outbox.written()
        except OSError:
            continue  # the next poll handles the error
        # A header that claims more than its ring can hold is capped.
        waiting = max(0, min(written - producer.stored, ring_events_max(outbox.header)))
        outbox.waiting_since = outbox.waiting_since or WaitingSince(outbox.header.created_ns)
        since_ns = outbox.waiting_since.since_ns(now_ns, written, producer.stored)
        if waiting:
            totals.add_since(since_ns)
        outbox.rate = outbox.rate or WriteRate(now_s, written)
        event_bytes = producer.position / producer.stored if producer.stored else 0.0
        room_bytes = outbox.header.room_bytes
        totals.add(waiting, room_bytes, event_bytes, outbox.rate.per_s(now_s, written))
    return totals


@dataclass(eq=False)
class StatsSource:
    """Takes samples of one daemon's statistics."""

    config: Config
    delivery: Delivery[OpenOutbox]
    directory: OutboxDirectory
    receiver: Receiver
    clock_ns: Callable[[], int]
    monotonic_s: Callable[[], float]
    heads_signed: bool
    anchors: AnchorLog

    def __post_init__(self) -> None:
        self._started_ns = self.clock_ns()

    def sample(self) -> RuntimeStats | None:
        """Returns the daemon's statistics once a second, and None in between."""
        now_s, delivery = self.monotonic_s(), self.delivery
        if not delivery.stats.is_due(now_s):
            return None
        now_ns = self.clock_ns()
        totals = outbox_totals(delivery.outboxes.items(), now_s, now_ns)
        anchor = self.anchors.last
        return replace(
            delivery.stats.sample(now_s, now_ns),
            started_ns=self._started_ns,
            backlog=totals.backlog,
            backlog_since_ns=totals.since_ns,
            room_s=totals.room_s,
            outboxes=len(delivery.outboxes),
            outboxes_bytes=sum(size for _, size in self.directory.usage.values()),
            wal_bytes=file_bytes(wal_path(self.config.database)),
            queue_datagrams=self.receiver.queue_datagrams,
            heads_signed=self.heads_signed,
            anchored_ns=None if anchor is None else anchor.at_ns,
            anchored_batch=0 if anchor is None else anchor.head.batch,
            anchored_root="" if anchor is None else anchor.head.hash.hex(),
            anchored_in_file=anchor is not None and anchor.in_file,
            ignored=tuple(delivery.intake.ignored.senders(IGNORED_SENDERS_MAX)),
        )
