"""Bugs that systems like this one have had, to be planted: does the simulation find them?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from logd.batch import Batch, Capacity, Producer
from logd.ingest.delivery import Delivery
from logd.ingest.drain import Datagram
from logd.ingest.ordering import Intake
from logd_client.producer import Producer as ClientProducer
from logd_wire.outbox.layout import WORD_WRITTEN
from logd_wire.outbox.writer import OutboxWriter
from tests.simulation.client import SimClient
from tests.simulation.machine import SimOutbox
from tests.simulation.table import WatchedDelivery, WatchedOpener
from tests.simulation.web import Web
from tests.simulation.world import exchange
from tests.support import client_parts as parts


class ConfirmedBeforeCommitted(WatchedDelivery):
    """Confirms to clients what is not on disk yet."""

    def commit(self) -> None:
        for producer in self.state.batch.producers:
            outbox = self.outboxes.get(producer)
            if outbox is not None:
                outbox.confirm(producer.taken, producer.position, 0)
        super().commit()


class RemovedBeforeCommitted(WatchedDelivery):
    """Removes a dead producer's outbox as soon as all of it is read."""

    def commit(self) -> None:
        for producer in self.state.batch.producers:
            outbox = self.outboxes.get(producer)
            if producer.ended and outbox is not None:
                self._directory.remove(outbox)
                self.outboxes.take_out(producer)
        super().commit()


class WatermarkAdvancedByAFailedCommit(WatchedDelivery):
    """Continues after the events of a commit that has failed."""

    def commit(self) -> None:
        batch = self.state.batch
        super().commit()
        if self._stalled is not None:
            batch.mark_committed()
            self.state.batch = self.state.new_batch()
            self._stalled = None


class PromiseForgotten(WatchedDelivery):
    """Suppresses wake-ups, polls once before the suppression ends, and sleeps."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        poll = self.poller.poll

        def forgetful(**how: Any) -> None:
            poll(**how)
            for producer in list(self.outboxes):
                self.outboxes.wakeups.end(producer)

        exchange(self.poller, "poll", forgetful)


class ConfirmUnguarded(WatchedDelivery):
    """Ends where a confirmation cannot be written, as into a hole on a full tmpfs."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)

        def confirm(producer: Producer) -> None:
            outbox = self.outboxes.get(producer)
            if outbox is not None and producer not in self.outboxes.searches:
                outbox.confirm(producer.stored, producer.position, 0)

        exchange(self.lifecycle, "confirm", confirm)


class RemovalUnguarded(WatchedDelivery):
    """Ends where a file cannot be closed or removed."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        exchange(self.state, "attempt", lambda act, outbox: act(outbox))


class ShortageTakenForTheFilesFault(WatchedDelivery):
    """Gives up a good outbox, since this process was out of memory or descriptors."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        give_up = self.lifecycle.give_up
        exchange(
            self.lifecycle,
            "handle_error",
            lambda producer, outbox, error: give_up(producer, outbox, str(error)),
        )


class NotLookedAtTakenForGone(WatchedDelivery):
    """Records as gone what a start has not come to yet."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        exchange(
            self.opener,
            "may_exist",
            lambda name: any(outbox.name == name for outbox in self.outboxes.values()),
        )


class _Everything:
    def __contains__(self, _: object) -> bool:
        return True


class DroppedWithoutAnOutbox(WatchedDelivery):
    """Under a flood drops the datagrams of producers that have nothing else."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        take = self.drain.take

        def take_all(
            datagrams: Iterable[Datagram], intake: Intake, batch: Batch, _readable: object
        ) -> int:
            return take(datagrams, intake, batch, _Everything())

        exchange(self.drain, "take", take_all)


class HeldForgotten(WatchedDelivery):
    """Forgets what a step has received and not finished."""

    def step(self, datagrams: Iterable[Datagram], closed: Iterable[str], now_s: float) -> None:
        if self.stalled is None:
            self.drain.held = None
        super().step(datagrams, closed, now_s)


class OnlyWhatIsStoredCounts(WatchedDelivery):
    """Bounds a step by what it takes into the batch."""

    def recover(self, now_s: float) -> None:
        exchange(self.drain._budget, "charge", lambda *_: None)
        super().recover(now_s)


class SequenceAdvancedBeforeTheRecord(OutboxWriter):
    """Counts the event, then writes it."""

    def append(self, payload: bytes) -> bytes | None:
        words = self._words
        before = words[WORD_WRITTEN]
        sequence, _position = self._tail
        if before == sequence and self.room_bytes > len(payload) + 32:
            words[WORD_WRITTEN] = sequence + 1
            self._words = _WithoutItsCount(words)  # type: ignore[assignment] # stands in for them
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

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)

        def retire(producer: Producer) -> None:
            outbox = self.outboxes.take_out(producer)
            if outbox is not None:
                self._directory.remove(outbox)
            self.intake.drop(producer)

        exchange(self.lifecycle, "retire", retire)


class LivenessAskedAfterTheLastRead(RetiredWithoutASecondLook):
    """What is written between the read and the question is left unread. (The second look before an
    outbox is removed would find it.)
    """

    def read(self, producer: Producer, outbox: SimOutbox, alive: bool, capacity: Capacity) -> None:
        super().read(producer, outbox, True, capacity)
        if not producer.behind and not outbox.alive():
            producer.ended = True
            self.state.batch.touch(producer)


class ForkNotNoticed(SimClient):
    """A child of a fork without hooks continues in its parent's outbox."""

    def forked(self, child: Web, *, hooks: bool) -> SimClient:
        made = super().forked(child, hooks=hooks)
        if not hooks:
            parts.guard(made).mark = parts.guard(self).mark
            own, parents = parts.current(made), parts.current(self)
            if own is not None and parents is not None:
                own.mark = parents.mark
                if own.outbox is not None and parents.outbox is not None:
                    own.outbox.writer._mark = parents.outbox.writer._mark
        return made


class RetiredNotNoticed(OutboxWriter):
    """Does not see that the daemon has taken this producer for ended."""

    @property
    def retired(self) -> bool:
        return False


class LostLockNotNoticed(SimClient):
    """Writes to an outbox whose lock went with its descriptor, or that has no name any more."""

    def __init__(self, process: Web) -> None:
        super().__init__(process)
        exchange(parts.producers(self), "is_intact", _always)


def _always(producer: ClientProducer) -> bool:
    return True


class AnyEventTakenForTheCallers(SimClient):
    """Calls an event accepted when anything was, such as the note about an earlier one."""

    def __init__(self, process: Web) -> None:
        super().__init__(process)
        exchange(parts.session(self), "accepted_sequence", self._last_written)

    def _last_written(self) -> int:
        producer = parts.current(self)
        return producer.written if producer is not None else 0


class FormerForgotten(SimClient):
    """Follows a full ring with a larger one, and counts no more what the former holds."""

    def __init__(self, process: Web) -> None:
        super().__init__(process)
        producers = parts.producers(self)
        replace = producers.replace_producer

        def replace_and_forget(
            producer: ClientProducer, successor: ClientProducer, *, outgrown: bool = False
        ) -> ClientProducer:
            if not outgrown:
                return replace(producer, successor)
            producers.current = successor
            producer.leave()
            return successor

        exchange(producers, "replace_producer", replace_and_forget)


class _UnheldOpener(WatchedOpener):
    def _hold_for_predecessor(self, producer: Producer, follows: int) -> None:
        pass


class SuccessorReadFirst(WatchedDelivery):
    """Reads an outbox without a look at the one that it follows."""

    opener_type = _UnheldOpener


class _OneAtATimeOpener(WatchedOpener):
    def _open_predecessor(self, producer: Producer, follows: int) -> None:
        pass


class SuccessorOpenedFirst(WatchedDelivery):
    """Holds a successor only where what it follows is open already."""

    opener_type = _OneAtATimeOpener


class SuccessorHeldForEver(WatchedDelivery):
    """Keeps waiting when the outbox that another follows is read."""

    def recover(self, now_s: float) -> None:
        exchange(self.outboxes.succession, "release", lambda: False)
        super().recover(now_s)


@dataclass(frozen=True)
class Bug:
    """What is exchanged to plant it, and the kind of run that should find it.

    `seed` has found it before, and is tried first.
    """

    name: str
    profile: str
    seed: int
    delivery: type[Delivery[SimOutbox]] = WatchedDelivery
    writer: type[OutboxWriter] = OutboxWriter
    client: type[SimClient] = SimClient

    @property
    def parts(self) -> dict[str, Any]:
        """What `schedule.run` takes in place of the real parts."""
        return {"delivery": self.delivery, "writer": self.writer, "client": self.client}


BUGS = [
    Bug("confirmed before committed", "crashes", 0, delivery=ConfirmedBeforeCommitted),
    Bug(
        "outbox removed before its rows are committed",
        "crashes",
        0,
        delivery=RemovedBeforeCommitted,
    ),
    Bug(
        "watermark advanced by a failed commit",
        "crashes",
        1,
        delivery=WatermarkAdvancedByAFailedCommit,
    ),
    Bug("liveness asked after the last read", "crashes", 4, delivery=LivenessAskedAfterTheLastRead),
    Bug("a promise to look forgotten", "crashes", 2, delivery=PromiseForgotten),
    Bug("confirm unguarded", "broken outboxes", 3, delivery=ConfirmUnguarded),
    Bug("removal unguarded", "broken outboxes", 6, delivery=RemovalUnguarded),
    Bug("a shortage given up for", "broken outboxes", 9, delivery=ShortageTakenForTheFilesFault),
    Bug("not looked at taken for gone", "crashes", 0, delivery=NotLookedAtTakenForGone),
    Bug("dropped though there is no outbox", "containers", 61, delivery=DroppedWithoutAnOutbox),
    Bug("received, and forgotten", "containers", 11, delivery=HeldForgotten),
    Bug("only what is stored counts", "strangers", 12, delivery=OnlyWhatIsStoredCounts),
    Bug(
        "sequence advanced before the record", "crashes", 0, writer=SequenceAdvancedBeforeTheRecord
    ),
    Bug("an ended producer not looked at again", "crashes", 45, delivery=RetiredWithoutASecondLook),
    Bug("a fork not noticed", "crashes", 10, client=ForkNotNoticed),
    Bug(
        "a lost lock not noticed",
        "crashes",
        36,
        writer=RetiredNotNoticed,
        client=LostLockNotNoticed,
    ),
    Bug("any event taken for the caller's", "crashes", 7, client=AnyEventTakenForTheCallers),
    Bug("a former ring forgotten", "crashes", 9, client=FormerForgotten),
    Bug("a successor read before its predecessor", "crashes", 0, delivery=SuccessorReadFirst),
    Bug("a successor opened before its predecessor", "crashes", 82, delivery=SuccessorOpenedFirst),
    Bug("a successor held for ever", "crashes", 0, delivery=SuccessorHeldForEver),
]
