"""Reads a producer's outbox from the batch's position on. Pure, apart from `read_at`.

A producer's watermark (shared/PROTOCOL.md, "The state table") is equal to the outbox's confirmed
sequence; or above it, if logd was killed between commit and confirmation; or below it, if the
database was restored from an older backup or the header's claim is false.
"""

from __future__ import annotations

from logd.batch import LOST_CLAIMED, LOST_DAMAGED, LOST_RESTORED, Batch, Capacity, Producer
from logd.ingest.ordering import Intake
from logd_wire.outbox.layout import Header, OutboxError, ReadAt, aligned
from logd_wire.outbox.reader import RecordSearch, read_records
from logd_wire.wire import RECORD_BYTES_MAX, RECORD_HEAD


def ring_events_max(header: Header) -> int:
    """Returns the most events that a ring of that size can hold, whatever its header says."""
    return header.ring_bytes // RECORD_HEAD.size


def check_numbers(header: Header, taken: int) -> None:
    """Raises OutboxError if the header's sequences are not possible for a ring of its size."""
    if header.confirmed_sequence > header.written:
        raise OutboxError("impossible sequence", "more is confirmed than written")
    if taken > header.written:
        raise OutboxError("numbers behind its watermark", f"{header.written}, taken {taken}")
    position_max = header.confirmed_sequence * aligned(RECORD_BYTES_MAX)
    if header.confirmed_position > position_max or header.confirmed_position % 8:
        raise OutboxError("impossible position", f"{header.confirmed_position}")
    waiting = header.written - max(taken, header.confirmed_sequence)
    if waiting > ring_events_max(header):
        raise OutboxError("impossible sequence", f"{waiting} events in {header.ring_bytes} bytes")


class NextRecordSearch:
    """Finds record `taken`+1 in an outbox that was just opened, slice by slice.

    Raises OutboxError, also from `step`, if the outbox does not continue this producer's sequence.
    """

    def __init__(self, producer: Producer, header: Header, read_at: ReadAt) -> None:
        check_numbers(header, producer.taken)
        self._producer, self._header, self._read_at = producer, header, read_at
        # The record after this sequence lies at this position.
        self._after, self._position = header.confirmed_sequence, header.confirmed_position
        self._search: RecordSearch | None = None
        self._search_from = 0

    def step(self, batch: Batch, bytes_max: int) -> bool:
        """Searches about `bytes_max` bytes; returns True once the producer's position is set.

        Between two steps datagrams may advance `taken`.
        """
        if self._producer.taken > self._after:
            return self._skip_stored(bytes_max)
        if self._producer.taken < self._after:
            self._search_missing(batch, bytes_max)
        if self._producer.taken == self._after:
            self._producer.position = self._position
        return self._producer.taken == self._after

    def _skip_stored(self, bytes_max: int) -> bool:
        """Skips records that are stored but not confirmed, since logd was killed before it."""
        page = read_records(
            self._read_at,
            self._header.ring_bytes,
            self._producer.seed,
            self._position,
            after=self._after,
            written=self._producer.taken,
            bytes_max=bytes_max,
        )
        self._after += len(page.payloads)
        self._producer.position = self._position = page.position
        # Damage ends the search too: `read_available` finds it again.
        return page.damage is not None or self._after == self._producer.taken

    def _search_missing(self, batch: Batch, bytes_max: int) -> None:
        """Searches for records that the header confirms and the database lacks."""
        producer, header = self._producer, self._header
        first = producer.taken + 1
        if self._search is None or self._search_from != first:
            self._search_from = first
            self._search = RecordSearch(
                self._read_at, header.ring_bytes, producer.seed, first, header.written
            )
        if not self._search.step(bytes_max):
            return
        found, self._search = self._search.found, None
        if found is not None and found[0] <= self._after:
            position = _position(found, header)
            if not self._is_there(found[0], position):
                return  # the record was overwritten meanwhile: search again
            self._after, self._position = found[0] - 1, position
        producer.taken = self._after
        if producer.taken < first:
            return
        # The client writes the header, so events that the database never had are only claimed.
        known = min(max(producer.replaced, first - 1), producer.taken)
        if known >= first:
            batch.add_loss(producer, first, known, LOST_RESTORED)
        if producer.taken > known:
            batch.add_loss(producer, known + 1, producer.taken, LOST_CLAIMED)

    def _is_there(self, sequence: int, position: int) -> bool:
        page = read_records(
            self._read_at, self._header.ring_bytes, self._producer.seed, position,
            after=sequence - 1, written=sequence, bytes_max=1,
        )  # fmt: skip
        return page.damage is None


def read_available(
    producer: Producer,
    header: Header,
    read_at: ReadAt,
    batch: Batch,
    intake: Intake,
    capacity: Capacity | None = None,
) -> str | None:
    """Takes the records after `taken` from an outbox, up to a capacity, by default the batch's.

    The caller reads `header` after it has checked whether the producer is alive. Returns what is
    wrong with the next record, or None; an invalid record is read twice, since it may be half
    written.
    """
    check_numbers(header, producer.taken)
    damage: str | None = None
    capacity = capacity or batch.capacity()
    for _ in range(2):
        if producer.taken >= header.written or not capacity:
            return None
        page = read_records(
            read_at,
            header.ring_bytes,
            producer.seed,
            producer.position,
            after=producer.taken,
            written=header.written,
            bytes_max=capacity.bytes,
            records_max=capacity.events,
        )
        capacity = Capacity(
            capacity.events - len(page.payloads), capacity.bytes - sum(map(len, page.payloads))
        )
        intake.take_outbox_records(producer, page.payloads, batch)
        producer.position = page.position
        damage = page.damage
        if damage is None:
            break
    return damage


class DamageSkip:
    """Finds the next valid record after damaged ones, slice by slice, and records these as lost."""

    def __init__(self, producer: Producer, header: Header, read_at: ReadAt) -> None:
        self._producer, self._header = producer, header
        self._first = producer.taken + 1
        self._search = RecordSearch(
            read_at, header.ring_bytes, producer.seed, self._first, header.written
        )

    def step(self, batch: Batch, bytes_max: int) -> bool:
        """Searches about `bytes_max` further bytes; returns True once reading can continue."""
        producer, header = self._producer, self._header
        if producer.taken + 1 != self._first:
            return True  # the damaged record has arrived as a datagram, so nothing is lost
        if not self._search.step(bytes_max):
            return False
        found = self._search.found
        if found is None:
            producer.taken = max(producer.taken, header.written)
        else:
            producer.position = _position(found, header)
            producer.taken = found[0] - 1
        if producer.taken >= self._first:
            batch.add_loss(producer, self._first, producer.taken, LOST_DAMAGED)
        return True


def _position(found: tuple[int, int], header: Header) -> int:
    """Returns the position of a record that was found at an offset in the ring."""
    sequence, offset = found
    anchor, ring_bytes = header.confirmed_position, header.ring_bytes
    if sequence > header.confirmed_sequence:
        return anchor + (offset - anchor) % ring_bytes
    position = anchor - ((anchor - offset) % ring_bytes or ring_bytes)
    if position < 0:
        raise OutboxError("impossible position", f"{position}")
    return position
