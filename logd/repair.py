"""Reading a producer's outbox from where the batch at hand stands. Pure but for `read_at`.

The three places a watermark can stand at (shared/PROTOCOL.md, "The state table"): with the outbox's
confirmation, past it (killed between commit and confirmation), or before it (the database was
restored from an older backup).
"""

from __future__ import annotations

from logd.batch import LOST_DAMAGED, LOST_RESTORED, Batch, Producer, Room
from logd.intake import Intake
from shared.outbox import Header, OutboxError, ReadAt, aligned
from shared.ring import READ_BYTES_MAX, find_record, read_records
from shared.wire import RECORD_BYTES_MAX, RECORD_HEAD


def check_numbers(header: Header, taken: int) -> None:
    """Raises OutboxError for numbers that no ring of that size can hold."""
    if header.confirmed_sequence > header.written:
        raise OutboxError("impossible sequence", "more is confirmed than written")
    if taken > header.written:
        raise OutboxError("numbers behind its watermark", f"{header.written}, taken {taken}")
    position_max = header.confirmed_sequence * aligned(RECORD_BYTES_MAX)
    if header.confirmed_position > position_max or header.confirmed_position % 8:
        raise OutboxError("impossible position", f"{header.confirmed_position}")
    waiting = header.written - max(taken, header.confirmed_sequence)
    if waiting > header.ring_bytes // RECORD_HEAD.size:
        raise OutboxError("impossible sequence", f"{waiting} events in {header.ring_bytes} bytes")


def align(producer: Producer, header: Header, read_at: ReadAt, batch: Batch) -> None:
    """Finds where record `taken`+1 lies, when an outbox is first seen by this process.

    Raises OutboxError when the outbox cannot be this producer's continuation.
    """
    check_numbers(header, producer.taken)
    confirmed = header.confirmed_sequence
    producer.position = header.confirmed_position
    if producer.taken == confirmed:
        return
    if producer.taken > confirmed:
        while confirmed < producer.taken:
            page = read_records(
                read_at,
                header.ring_bytes,
                producer.seed,
                producer.position,
                after=confirmed,
                written=producer.taken,
                bytes_max=READ_BYTES_MAX,
            )
            producer.position = page.position
            confirmed += len(page.payloads)
            if page.damage is not None:
                break  # before it, where reading on will find it
        return
    lost_from = producer.taken + 1
    found = find_record(read_at, header.ring_bytes, producer.seed, lost_from, header.written)
    if found is not None and found[0] <= confirmed:
        producer.taken = found[0] - 1
        producer.position = _position(found, header)
    else:
        producer.taken = confirmed
    if producer.taken >= lost_from:
        batch.lose(producer, lost_from, producer.taken, LOST_RESTORED)


def read_on(
    producer: Producer,
    header: Header,
    read_at: ReadAt,
    batch: Batch,
    intake: Intake,
    room: Room | None = None,
) -> str | None:
    """Takes what the outbox holds past `taken`, as far as there is room: by default, in the batch.

    `header` must have been read after the producer was last asked whether it lives. Returns what
    is damaged at the next record, or None; a torn read of a live ring is repeated first.
    """
    check_numbers(header, producer.taken)
    damage: str | None = None
    room = room or batch.room()
    for _ in range(2):
        if producer.taken >= header.written or not room:
            return None
        page = read_records(
            read_at,
            header.ring_bytes,
            producer.seed,
            producer.position,
            after=producer.taken,
            written=header.written,
            bytes_max=room.bytes,
            records_max=room.events,
        )
        room = Room(room.events - len(page.payloads), room.bytes - sum(map(len, page.payloads)))
        intake.records(producer, page.payloads, batch)
        producer.position = page.position
        damage = page.damage
        if damage is None:
            break
    return damage


def resynchronise(
    producer: Producer, header: Header, read_at: ReadAt, written: int, batch: Batch
) -> bool:
    """Goes on behind damaged records, booked as lost. False when nothing readable follows."""
    lost_from = producer.taken + 1
    found = find_record(read_at, header.ring_bytes, producer.seed, lost_from, written)
    if found is None:
        producer.taken = max(producer.taken, written)
    else:
        producer.taken = found[0] - 1
        producer.position = _position(found, header)
    if producer.taken >= lost_from:
        batch.lose(producer, lost_from, producer.taken, LOST_DAMAGED)
    return found is not None


def _position(found: tuple[int, int], header: Header) -> int:
    """A record's position from its offset in the ring, which is the position modulo its size."""
    sequence, offset = found
    anchor, ring_bytes = header.confirmed_position, header.ring_bytes
    if sequence > header.confirmed_sequence:
        return anchor + (offset - anchor) % ring_bytes
    position = anchor - ((anchor - offset) % ring_bytes or ring_bytes)
    if position < 0:
        raise OutboxError("impossible position", f"{position}")
    return position
