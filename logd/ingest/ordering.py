"""Per-producer ordering: classifies each record as next, duplicate, gap or invalid.

Pure: bytes in, batch out. `load_producer` loads a producer's stored state at its first record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable

from logd.batch import LOST_BEGINNING_UNKNOWN, LOST_NOT_RECEIVED, Batch, Producer
from logd.ingest.ignored import Ignored
from logd_wire.outbox.layout import REFUSAL_CAUSES, REFUSALS_MAX, aligned
from logd_wire.schema import PAYLOAD_BYTES_MAX, REPORT_READ, Malformed, Reserved
from logd_wire.wire import (
    DATAGRAM_BYTES_MAX,
    DATAGRAM_HEAD,
    KIND_AWAITED,
    KIND_FAREWELL,
    RECORD_HEAD,
    SEQUENCE_MAX,
    Event,
    WireError,
    decode_farewell,
    decode_head,
    decode_record,
    producer_seed,
    unpack_payload,
)

PRODUCERS_MAX = 10_000
# A large datagram is taken in slices, since the largest has 5,000 records:
# the caller checks its budget between them.
SLICE_BYTES = 16 * 1024
_HEAD_BYTES = DATAGRAM_HEAD.size

LoadProducer = Callable[[int, int], Producer]


class Intake:
    """Takes datagrams and outbox records into the batch at hand, each sequence at most once."""

    slice_bytes = SLICE_BYTES

    def __init__(
        self, load_producer: LoadProducer, gap_events_max: int, own_uid: int | None = None
    ) -> None:
        self._load_producer = load_producer
        self._own_uid = own_uid  # logd's own uid: only it may log `report_read`
        self._gap_events_max = gap_events_max
        self.producers: dict[tuple[int, int], Producer] = {}
        self._uid_of_outbox: dict[int, int] = {}
        self.ignored = Ignored()

    def producer(self, uid: int, producer_id: int) -> Producer:
        """Returns the producer's state, loaded from the database at its first record."""
        key = (uid, producer_id)
        known = self.producers.get(key)
        if known is None:
            known = self.producers[key] = self._load_producer(uid, producer_id)
            if known.has_outbox:
                self._uid_of_outbox[producer_id] = uid
        return known

    def drop(self, producer: Producer) -> None:
        """Forgets a producer that has ended; its watermark stays in the database."""
        self.producers.pop((producer.uid, producer.id), None)
        if self._uid_of_outbox.get(producer.id) == producer.uid:
            del self._uid_of_outbox[producer.id]

    def trim(self, batch: Batch, keep: Collection[Producer] = ()) -> None:
        """Drops idle producers past a bound, except those in the batch at hand.

        Senders may invent any number of producers, or repeat what ended ones have sent. A stored
        producer can be loaded again. Producers to `keep` have an open outbox.
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
            self.drop(producer)

    def take_datagram(self, data: bytes, uid: int, pid: int, batch: Batch, offset: int = 0) -> int:
        """Takes a datagram, or its next slice; returns the offset of the following slice, or 0.

        `uid` and `pid` are the sender's, as the kernel gives them.
        """
        try:
            size = len(data)
            if size > DATAGRAM_BYTES_MAX:
                raise WireError("oversize datagram", f"{size} bytes")
            kind, producer_id = decode_head(data)
            if pid == 0:
                # The datagram was queued before the socket asked
                # for credentials, so its sender is unknown.
                raise WireError("sender unknown")
            producer = self.producers.get((uid, producer_id))
            owner = self._uid_of_outbox.get(producer_id, uid)
            # A known producer's datagrams are accepted,
            # even if another user names a file after its id.
            if owner != uid and producer is None:
                raise WireError("another user's producer id", f"it has an outbox of uid {owner}")
            seed = producer.seed if producer is not None else producer_seed(producer_id)
            if kind == KIND_FAREWELL:
                last, refused = decode_farewell(data, seed)
                producer = self.producer(uid, producer_id)
                if producer.has_outbox or (producer.ended and last <= producer.taken):
                    self.ignored.farewells.add(uid, pid)
                # A producer with an outbox ends in the outbox,
                # which no other user can forge. Its farewell datagram is ignored.
                if not producer.has_outbox:
                    self._farewell(producer, last, refused, batch)
                return 0
            offset = offset or _HEAD_BYTES
            if offset == size:
                raise WireError("datagram without a record")
            end = size if size <= self.slice_bytes else min(size, offset + self.slice_bytes)
            while offset < end:
                sequence, payload, offset = decode_record(data, offset, seed)
                if producer is None:
                    producer = self.producer(uid, producer_id)
                producer.pid = pid
                if (
                    not self.take_datagram_record(producer, sequence, payload, batch)
                    and offset < end
                ):
                    offset = self._pass_over(data, offset, end, producer, batch)
                if kind == KIND_AWAITED and (producer.taken > producer.stored or producer.behind):
                    batch.awaited.add(uid)  # a commit is forced unless the event is on disk already
            return offset if offset < size else 0
        except WireError as error:
            batch.add_quarantine(uid, pid, str(error), data)
            return 0

    def skip(self, data: bytes, uid: int, pid: int, readable: Container[Producer]) -> bool:
        """Skips a datagram without decoding it, if its producer's outbox is open."""
        try:
            _, producer_id = decode_head(data)
        except WireError:
            return False
        producer = self.producers.get((uid, producer_id))
        if producer is None or producer not in readable:
            return False
        producer.behind = True
        self.ignored.skipped.add(uid, pid)
        return True

    def take_datagram_record(
        self, producer: Producer, sequence: int, payload: bytes, batch: Batch
    ) -> bool:
        """Takes a record of a datagram if it is the next, else classifies it by its sequence.

        Returns whether it changed the batch. Raises WireError for an absurd sequence; then the rest
        of the datagram is not read.
        """
        taken = producer.taken
        if sequence <= taken:
            batch.duplicates += 1
            self.ignored.duplicates.add(producer.uid, producer.pid)
            return False
        if sequence > taken + 1 or producer.held:
            if producer.has_outbox:
                # The missing records and this one are in the outbox, and are read from it in order.
                producer.behind = True
                self.ignored.early.add(producer.uid, producer.pid)
                return False
            far = sequence - taken - 1 > self._gap_events_max
            if far and taken:
                raise WireError("sequence jumps", f"from {taken} to {sequence}")
            if far:
                # A new producer that begins with a high sequence is a client of a
                # former database, in which the earlier events may have been stored.
                batch.add_loss(producer, 1, None, LOST_BEGINNING_UNKNOWN)
            else:
                batch.add_loss(producer, taken + 1, sequence - 1, LOST_NOT_RECEIVED)
        self._take(producer, sequence, payload, batch)
        return True

    def _pass_over(
        self, data: bytes, offset: int, end: int, producer: Producer, batch: Batch
    ) -> int:
        """Skips records that would be ignored, by their heads alone; returns the offset after them.

        This takes a fifth of the time of taking them. Their CRC is not checked: a sender that
        forges a head loses its own events.
        """
        head, head_bytes, size = RECORD_HEAD.unpack_from, RECORD_HEAD.size, len(data)
        taken = producer.taken
        early_from = taken + 2 if producer.has_outbox else SEQUENCE_MAX + 1
        duplicates = early = 0
        while offset < end and offset + head_bytes <= size:
            length, _crc, sequence = head(data, offset)
            behind = offset + head_bytes + length
            if length > PAYLOAD_BYTES_MAX or behind > size:
                break
            if 0 < sequence <= taken:
                duplicates += 1
            elif early_from <= sequence <= SEQUENCE_MAX:
                early += 1
            else:
                break
            offset = behind
        if duplicates:
            batch.duplicates += duplicates
            self.ignored.duplicates.add(producer.uid, producer.pid, duplicates)
        if early:
            producer.behind = True
            self.ignored.early.add(producer.uid, producer.pid, early)
        return offset

    def take_outbox_records(
        self, producer: Producer, payloads: Iterable[bytes], batch: Batch
    ) -> None:
        """Takes records read from the producer's outbox, the first of them with sequence `taken`+1.

        The caller sets the producer's position.
        """
        sequence, size = producer.taken, 0
        events: list[tuple[Producer, int, Event]] = []
        take, unpack = events.append, unpack_payload
        for payload in payloads:
            sequence += 1
            try:
                event = unpack(payload)
            except Malformed as error:
                judged = self._judge(producer, sequence, payload, batch, error)
                if judged is None:
                    continue
                event = judged
            take((producer, sequence, event))
            size += len(payload)
        producer.taken = sequence
        batch.extend(producer, events, size)

    def _take(self, producer: Producer, sequence: int, payload: bytes, batch: Batch) -> None:
        event: Event | None
        try:
            event = unpack_payload(payload)
        except Malformed as error:
            event = self._judge(producer, sequence, payload, batch, error)
        if event is not None:
            batch.add(producer, sequence, event, len(payload))
        producer.taken = sequence
        producer.position += aligned(RECORD_HEAD.size + len(payload))

    def _judge(
        self, producer: Producer, sequence: int, payload: bytes, batch: Batch, error: Malformed
    ) -> Event | None:
        """Quarantines a malformed event, unless it is logd's own record of a report.

        Report processes of earlier versions logged such events, and may have left them in an
        outbox.
        """
        if isinstance(error, Reserved) and producer.uid == self._own_uid:
            try:
                return unpack_payload(payload, (REPORT_READ,))
            except Malformed as other:
                error = other
        batch.add_quarantine(
            producer.uid, producer.pid, f"malformed: {error}", payload, producer, sequence
        )
        return None

    def _farewell(
        self, producer: Producer, last: int, refused: dict[str, int], batch: Batch
    ) -> None:
        """Records the farewell of a producer without an outbox: events still missing are lost."""
        missing = last - producer.taken
        if missing > self._gap_events_max:
            reason = f"farewell claims too much: {missing} events"
            batch.add_quarantine(producer.uid, producer.pid, reason, b"")
            return
        if not (last or refused or producer.row or producer in batch.producers):
            producer.ended = True
            self.drop(producer)  # a producer that sent nothing gets no row
            return
        if missing > 0:
            batch.add_loss(producer, producer.taken + 1, last, LOST_NOT_RECEIVED)
            producer.taken = last
        producer.refused = {
            cause: min(refused[cause], REFUSALS_MAX) for cause in REFUSAL_CAUSES if cause in refused
        }
        producer.ended = True
        batch.touch(producer)
