"""The counts that `Client.stats` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from logd_client.clock import Clock
from logd_client.session import ProducerSession
from logd_client.succession import ProducerSuccession
from logd_client.tracker import DurableTracker


@dataclass(eq=False)
class ClientStats:
    """Reads the counts, and the rate of events since they were last read."""

    producers: ProducerSuccession
    session: ProducerSession
    tracker: DurableTracker
    clock: Clock

    def __post_init__(self) -> None:
        self.reset(forked=True)

    def reset(self, forked: bool) -> None:  # noqa: ARG002 - as in every part
        """Restarts the measurement of the rate."""
        self._rate_mark = (self.clock.monotonic_s(), 0)

    def read(self, nested: bool) -> dict[str, Any]:
        """Returns the counts as `Client.stats` documents them."""
        if not nested:
            self.session.close_former_producers()
        producers = self.producers
        producer, refusals = producers.current, producers.refusals
        refused = refusals.total
        accepted, confirmed, unconfirmable = producers.former.counts(producer)
        mark_s, mark_accepted = self._rate_mark
        now_s = self.clock.monotonic_s()
        self._rate_mark = (now_s, accepted)
        outbox: dict[str, Any] = {"reason": producer.no_outbox_reason if producer else None}
        if producer is not None and producer.outbox is not None:
            writer = producer.outbox.writer
            rate = (accepted - mark_accepted) / max(now_s - mark_s, 1e-9)
            # The average size is that of the events in this outbox, which is where the room is.
            event_bytes = writer.bytes_written / max(writer.written, 1)
            former_bytes = producers.former.ring_bytes(producer)
            room_bytes = writer.room_bytes + producers.growth.room_bytes(
                writer.ring_bytes, former_bytes
            )
            outbox |= {
                "used_bytes": writer.used_bytes + producers.former.used_bytes(producer),
                "room_bytes": room_bytes,
                "room_s": room_bytes / event_bytes / rate if rate and event_bytes else None,
            }
        return {
            "producer": f"{producer.id:016x}" if producer else None,
            "attempted": accepted + refused,
            "accepted": accepted,
            "refused": refused,
            "refused_by_cause": dict(refusals.by_cause),
            "confirmed": confirmed,
            "pending": accepted - confirmed - unconfirmable,
            "unconfirmable": unconfirmable,
            "durable_unknown": self.tracker.unknown_count,
            "unsettled": len(self.tracker.unresolved.events),
            "durable_breaker": {
                "open": producers.is_breaker_open(),
                "skipped": self.tracker.skipped_count,
            },
            "outbox": outbox,
            "send_error": producer.send_error if producer else None,
        }
