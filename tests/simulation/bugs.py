"""Bugs that systems like this one have had, to be planted: does the simulation find them?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from logd.delivery import Delivery
from shared.outbox import WORD_WRITTEN, OutboxWriter
from tests.simulation.machine import SimOutbox
from tests.simulation.table import WatchedDelivery
from tests.simulation.web import SimClient, SimProducer, Web


class ConfirmedBeforeCommitted(WatchedDelivery):
    """Tells clients that it is on the disk while it is on its way there."""

    def _commit(self) -> None:
        for producer in self._batch.producers:
            if producer in self._open:
                self._open[producer].confirm(producer.taken, producer.position, 0)
        super()._commit()


class RemovedBeforeCommitted(WatchedDelivery):
    """Removes a dead producer's outbox as soon as all of it is read."""

    def _commit(self) -> None:
        for producer in self._batch.producers:
            if producer.ended and producer in self._open:
                self._outboxes.remove(self._open[producer])
                self._let_go(producer)
        super()._commit()


class WatermarkAdvancedByAFailedCommit(WatchedDelivery):
    """Goes on behind the events of a commit that has failed."""

    def _commit(self) -> None:
        batch = self._batch
        super()._commit()
        if self._stalled is not None:
            batch.settle()
            self._batch = self._new_batch()
            self._stalled = None


class PromiseForgotten(WatchedDelivery):
    """Tells producers that it will look by itself, looks once before that is over, and sleeps."""

    def _look(self, *, due, all_of_them, watched):  # type: ignore[no-untyped-def]
        super()._look(due=due, all_of_them=all_of_them, watched=watched)
        for producer in list(self._open):
            self._watch.end(producer)


class SequenceAdvancedBeforeTheRecord(OutboxWriter):
    """Counts the event, then writes it."""

    def append(self, payload: bytes) -> bytes | None:
        words = self._words
        before = words[WORD_WRITTEN]
        sequence, _position = self._tail
        if before == sequence and self.room_bytes > len(payload) + 32:
            words[WORD_WRITTEN] = sequence + 1
            self._words = _WithoutItsCount(words)  # type: ignore[assignment]
            try:
                return super().append(payload)
            finally:
                self._words = words
        return super().append(payload)


class _WithoutItsCount:
    """The words, as if the next event were not counted yet; counting it has no effect any more."""

    def __init__(self, words: memoryview[int] | list[int]) -> None:
        self._real = words

    def __getitem__(self, index: int) -> int:
        return self._real[index] - (index == WORD_WRITTEN)

    def __setitem__(self, index: int, value: int) -> None:
        if index != WORD_WRITTEN:
            self._real[index] = value


class RetiredWithoutASecondLook(WatchedDelivery):
    """Removes a dead producer's outbox without asking whether something was written since."""

    def _dismiss(self, producer):  # type: ignore[no-untyped-def]
        outbox = self._let_go(producer)
        if outbox is not None:
            self._outboxes.remove(outbox)
        self._intake.forget(producer)


class LivenessAskedAfterTheLastRead(RetiredWithoutASecondLook):
    """What is written between the read and the question stays behind. (The second look before an
    outbox is removed would find it.)
    """

    def _read(self, producer, outbox, alive, room):  # type: ignore[no-untyped-def]
        super()._read(producer, outbox, True, room)
        if not producer.behind and not outbox.alive():
            producer.ended = True
            self._batch.note(producer)


class ForkNotNoticed(SimClient):
    """A child of a fork without hooks continues in its parent's outbox."""

    def forked(self, child: Web, *, hooks: bool) -> SimClient:
        made = super().forked(child, hooks=hooks)
        if not hooks:
            made._mark = self._mark
            if made._producer is not None and self._producer is not None:
                made._producer.mark = self._producer.mark
                if made._producer.outbox is not None and self._producer.outbox is not None:
                    made._producer.outbox.writer._mark = self._producer.outbox.writer._mark
        return made


class DescriptorsNotCompared(SimClient):
    """Writes to an outbox whose lock went with its descriptor, or that has no name any more."""

    def _make_producer(self) -> SimProducer:
        return _Trusting(self.process)


class _Trusting(SimProducer):
    @property
    def intact(self) -> bool:
        return True


class AnyEventTakenForTheCallers(SimClient):
    """Calls an event accepted when anything was, such as the note about an earlier one."""

    def _attempt_accepted(self) -> int:
        return self._producer.written if self._producer is not None else 0


@dataclass(frozen=True)
class Bug:
    """What is exchanged to plant it, and the kind of run that should find it."""

    name: str
    profile: str
    delivery: type[Delivery[SimOutbox]] = WatchedDelivery
    writer: type[OutboxWriter] = OutboxWriter
    client: type[SimClient] = SimClient

    @property
    def parts(self) -> dict[str, Any]:
        """What `schedule.run` takes in place of the real parts."""
        return {"delivery": self.delivery, "writer": self.writer, "client": self.client}


BUGS = [
    Bug("confirmed before committed", "crashes", delivery=ConfirmedBeforeCommitted),
    Bug("outbox removed before its rows are committed", "crashes", delivery=RemovedBeforeCommitted),
    Bug("watermark advanced by a failed commit", "crashes", WatermarkAdvancedByAFailedCommit),
    Bug("liveness asked after the last read", "crashes", delivery=LivenessAskedAfterTheLastRead),
    Bug("a promise to look forgotten", "crashes", delivery=PromiseForgotten),
    Bug("sequence advanced before the record", "crashes", writer=SequenceAdvancedBeforeTheRecord),
    Bug("an ended producer not looked at again", "crashes", delivery=RetiredWithoutASecondLook),
    Bug("a fork not noticed", "crashes", client=ForkNotNoticed),
    Bug("descriptors not compared", "crashes", client=DescriptorsNotCompared),
    Bug("any event taken for the caller's", "crashes", client=AnyEventTakenForTheCallers),
]
