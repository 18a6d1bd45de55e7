"""Order per producer: what of the bytes that arrived is next, old, early, or nothing of ours.

Pure: bytes in, batch out. `introduce` brings in what is known of a producer at its first record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from logd.batch import LOST_BEGINNING_UNKNOWN, LOST_NOT_RECEIVED, Batch, Producer
from shared.outbox import REFUSAL_CAUSES, REFUSALS_MAX, aligned
from shared.schema import Malformed
from shared.wire import (
    DATAGRAM_BYTES_MAX,
    DATAGRAM_HEAD,
    KIND_AWAITED,
    KIND_FAREWELL,
    RECORD_HEAD,
    Event,
    WireError,
    decode_farewell,
    decode_head,
    decode_record,
    producer_seed,
    unpack_payload,
)

PRODUCERS_MAX = 10_000

Introduce = Callable[[int, int], Producer]


class Intake:
    """Takes datagrams and outbox records into the batch at hand, each sequence at most once."""

    def __init__(self, introduce: Introduce, gap_events_max: int) -> None:
        self._introduce = introduce
        self._gap_events_max = gap_events_max
        self.producers: dict[tuple[int, int], Producer] = {}
        self._uid_of_outbox: dict[int, int] = {}

    def producer(self, uid: int, producer_id: int) -> Producer:
        """The one record of this producer, introduced at first sight."""
        key = (uid, producer_id)
        known = self.producers.get(key)
        if known is None:
            known = self.producers[key] = self._introduce(uid, producer_id)
            if known.has_outbox:
                self._uid_of_outbox[producer_id] = uid
        return known

    def forget(self, producer: Producer) -> None:
        """Drops a producer that has ended; its watermark stays in the database."""
        self.producers.pop((producer.uid, producer.id), None)
        if self._uid_of_outbox.get(producer.id) == producer.uid:
            del self._uid_of_outbox[producer.id]

    def trim(self, batch: Batch, keep: Collection[Producer] = ()) -> None:
        """Forgets idle producers past a bound, but those in the batch at hand.

        Strangers may invent producers without end, or repeat what ended ones have sent; what is on
        disk can be introduced again. Those to `keep` are the ones whose outbox is held open.
        """
        if len(self.producers) < PRODUCERS_MAX + len(keep):
            return
        busy = batch.producers
        idle = [
            p
            for p in self.producers.values()
            if p.taken == p.stored and p not in busy and p not in keep
        ]
        for producer in idle[PRODUCERS_MAX // 2 :]:
            self.forget(producer)

    def datagram(self, data: bytes, uid: int, pid: int, batch: Batch) -> None:
        """One datagram from the process `pid` of user `uid`, both by the kernel's word."""
        try:
            if len(data) > DATAGRAM_BYTES_MAX:
                raise WireError("oversize datagram", f"{len(data)} bytes")
            kind, producer_id = decode_head(data)
            if pid == 0:
                # Queued before credentials were asked for: whose it is, nobody can say.
                raise WireError("sender unknown")
            known = self.producers.get((uid, producer_id))
            owner = self._uid_of_outbox.get(producer_id, uid)
            # Who was heard of before stays heard, whatever file somebody names after its id.
            if owner != uid and known is None:
                raise WireError("another user's producer id", f"it has an outbox of uid {owner}")
            seed = known.seed if known is not None else producer_seed(producer_id)
            if kind == KIND_FAREWELL:
                last, refused = decode_farewell(data, seed)
                self._farewell(self.producer(uid, producer_id), last, refused, batch)
                return
            if kind == KIND_AWAITED:
                batch.awaited = True
            offset = DATAGRAM_HEAD.size
            if offset == len(data):
                raise WireError("datagram without a record")
            while offset < len(data):
                sequence, payload, offset = decode_record(data, offset, seed)
                producer = self.producer(uid, producer_id)
                producer.pid = pid
                self.offer(producer, sequence, payload, batch)
        except WireError as error:
            batch.refuse(uid, pid, str(error), data)

    def offer(self, producer: Producer, sequence: int, payload: bytes, batch: Batch) -> None:
        """A record that arrived by itself: taken if it is the next, else judged by its number.

        Raises WireError when its number is beyond all sense: the rest of its datagram is as well.
        """
        taken = producer.taken
        if sequence <= taken:
            batch.duplicates += 1
            return
        if sequence > taken + 1:
            if producer.has_outbox:
                # All of it lies in the outbox, this record too, and is read from there in order.
                producer.behind = True
                return
            far = sequence - taken - 1 > self._gap_events_max
            if far and taken:
                raise WireError(f"sequence jumps from {taken} to {sequence}")
            if far:
                # Never heard of: an old client of a new database. How much of this is missing
                # here was perhaps stored in the former one.
                batch.lose(producer, 1, None, LOST_BEGINNING_UNKNOWN)
            else:
                batch.lose(producer, taken + 1, sequence - 1, LOST_NOT_RECEIVED)
        self._take(producer, sequence, payload, batch)

    def records(self, producer: Producer, payloads: Iterable[bytes], batch: Batch) -> None:
        """Records read from the producer's outbox: `taken`+1 and those that follow it.

        Where the next one lies is for the caller to say.
        """
        sequence, size = producer.taken, 0
        events: list[tuple[Producer, int, Event]] = []
        take, unpack = events.append, unpack_payload
        for payload in payloads:
            sequence += 1
            try:
                take((producer, sequence, unpack(payload)))
                size += len(payload)
            except Malformed as error:
                self._refuse(producer, sequence, payload, batch, error)
        producer.taken = sequence
        batch.extend(producer, events, size)

    def _take(self, producer: Producer, sequence: int, payload: bytes, batch: Batch) -> None:
        try:
            event = unpack_payload(payload)
        except Malformed as error:
            self._refuse(producer, sequence, payload, batch, error)
        else:
            batch.add(producer, sequence, event, len(payload))
        producer.taken = sequence
        producer.position += aligned(RECORD_HEAD.size + len(payload))

    def _refuse(
        self, producer: Producer, sequence: int, payload: bytes, batch: Batch, error: Malformed
    ) -> None:
        batch.refuse(producer.uid, producer.pid, f"malformed: {error}", payload, producer, sequence)

    def _farewell(
        self, producer: Producer, last: int, refused: dict[str, int], batch: Batch
    ) -> None:
        """The end of a producer without an outbox: what is missing now will never come."""
        if producer.has_outbox:
            return  # its outbox says so itself, and cannot be forged by another user
        missing = last - producer.taken
        if missing > self._gap_events_max:
            batch.refuse(producer.uid, producer.pid, f"farewell claims {missing} events", b"")
            return
        if not (last or refused or producer.row or producer in batch.producers):
            producer.ended = True
            self.forget(producer)  # nothing came of it: not even a row
            return
        if missing > 0:
            batch.lose(producer, producer.taken + 1, last, LOST_NOT_RECEIVED)
            producer.taken = last
        producer.refused = {
            cause: min(refused[cause], REFUSALS_MAX) for cause in REFUSAL_CAUSES if cause in refused
        }
        producer.ended = True
        batch.note(producer)
