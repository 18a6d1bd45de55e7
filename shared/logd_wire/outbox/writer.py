"""Appends records to a producer's ring. Pure."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet
from zlib import crc32

from logd_wire.forks import Forked, Mark
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    NOTE_BYTES_MAX,
    REFUSAL_CAUSES,
    WATCHED_NS_MAX,
    WORD_CONFIRMED_POSITION,
    WORD_CONFIRMED_SEQUENCE,
    WORD_FAREWELL,
    WORD_GIVEN_UP,
    WORD_GROWTH_BYTES,
    WORD_REFUSED,
    WORD_RETIRED,
    WORD_WATCHED_UNTIL_NS,
    WORD_WRITTEN,
    aligned,
    initialise,
    read_ring,
)
from logd_wire.wire import LENGTH_CRC, RECORD_HEAD, SEQUENCE, producer_seed

_pack_sequence, _pack_length_crc = SEQUENCE.pack, LENGTH_CRC.pack


class OutboxWriter:
    """Appends records to a new outbox over `buffer`: its header page and ring, all zeros.

    It has no lock: the caller lets one thread in at a time. `mark` is the mark of the process that
    the ring belongs to, `follows` the id of the producer before this one in the process (0 for
    none), `growth_bytes` the size of the larger rings that may follow.
    """

    def __init__(
        self,
        buffer: memoryview,
        producer_id: int,
        pid: int,
        now_ns: int,
        mark: Mark = (1,),
        follows: int = 0,
        growth_bytes: int = 0,
    ) -> None:
        self.ring_bytes = ring_bytes = len(buffer) - HEADER_BYTES
        self._mapped = buffer[:HEADER_BYTES].cast("Q")
        self._words: memoryview[int] | list[int] = self._mapped
        self._ring = buffer[HEADER_BYTES:]
        self._ring_bytes = ring_bytes
        self._seed = producer_seed(producer_id)
        # Sequence and position are one tuple, so that one assignment changes both.
        self._tail = (0, 0)
        self._mark = mark
        # The references are weak, so that a reservation ends
        # with its holder, however the holder's call ends.
        self._reservations: WeakSet[Any] = WeakSet()
        # The sequence that `append` was last about to write.
        # A caller sets it to 0 before `append`; if `append` is interrupted,
        # the event is accepted if this is not 0 and not above `written`.
        self.attempted = 0
        self._position_max = ring_bytes
        self._confirmed_position = 0
        initialise(self._mapped, producer_id, ring_bytes, pid, now_ns, follows, growth_bytes)

    def append(self, payload: bytes) -> bytes | None:
        """Writes the next record and returns its bytes; None when the ring has no room for it.

        When it returns, or is interrupted at any point, the event is either wholly accepted or
        not at all: the record is complete before the one store that counts it. Raises Forked
        in a child of the process whose ring it is, before anything is written.
        """
        words = self._words
        sequence, position = self._tail
        if words[WORD_WRITTEN] != sequence:
            # A signal handler raised after the sequence was stored and before the tail was updated.
            sequence, position = self._tail = self._tail_from_ring(sequence, position)
        sequence += 1
        # This does the same as `encode_record`, and saves its call.
        body = _pack_sequence(sequence) + payload
        record = _pack_length_crc(len(payload), crc32(body, self._seed)) + body
        length = len(record)
        position_next = position + ((length + 7) & -8)
        if position_next > self._position_max and not self._reclaim(position, position_next):
            return None
        offset = position % self._ring_bytes
        end = offset + length
        if not self._mark[0]:  # no call follows this check, so no signal handler can fork after it
            raise Forked
        self.attempted = sequence
        if end <= self._ring_bytes:
            self._ring[offset:end] = record
        else:
            first = self._ring_bytes - offset
            self._ring[offset:] = record[:first]
            self._ring[: end - self._ring_bytes] = record[first:]
        words[WORD_WRITTEN] = sequence  # this store accepts the event
        self._tail = (sequence, position_next)
        return record

    def reserve(self, holder: object) -> None:
        """Reserves NOTE_BYTES_MAX bytes until `holder` releases them or is deleted.

        If it is interrupted, it has reserved either all of them or none.
        """
        self._position_max = 0  # with 0, the next `append` counts the reserved bytes again
        self._reservations.add(holder)

    def release_reservation(self, holder: object) -> None:
        """Releases the bytes reserved for `holder`, if there are any."""
        self._reservations.discard(holder)

    @property
    def reserved_bytes(self) -> int:
        """Bytes reserved for notes, which `append` leaves free."""
        return len(self._reservations) * NOTE_BYTES_MAX

    def _reclaim(self, position: int, position_next: int) -> bool:
        confirmed = self._words[WORD_CONFIRMED_POSITION]
        # The daemon writes this word:
        # a position beyond what was written is invalid and frees nothing.
        if confirmed <= position:
            self._confirmed_position = confirmed
        self._position_max = self._confirmed_position + self._ring_bytes - self.reserved_bytes
        return position_next <= self._position_max

    def _tail_from_ring(self, sequence: int, position: int) -> tuple[int, int]:
        written = self._words[WORD_WRITTEN]
        while sequence < written:
            head = read_ring(self._read_own, self._ring_bytes, position, RECORD_HEAD.size)
            position += aligned(RECORD_HEAD.size + LENGTH_CRC.unpack_from(head)[0])
            sequence += 1
        return written, position

    def _read_own(self, offset: int, length: int) -> bytes:
        start = offset - HEADER_BYTES
        return bytes(self._ring[start : start + length])

    @property
    def written(self) -> int:
        """The sequence of the last accepted event; 0 before the first."""
        return self._words[WORD_WRITTEN]

    @property
    def confirmed(self) -> int:
        """The highest sequence that is on disk, with all below it."""
        return int(self._words[WORD_CONFIRMED_SEQUENCE])

    @property
    def room_bytes(self) -> int:
        """Bytes that can be written before the ring is full."""
        return max(0, self._ring_bytes - self.used_bytes - self.reserved_bytes)

    @property
    def bytes_written(self) -> int:
        """Bytes of all records written so far."""
        return self._tail[1]

    @property
    def used_bytes(self) -> int:
        """Bytes of the ring that the daemon has not confirmed."""
        return max(0, int(self._tail[1] - self._words[WORD_CONFIRMED_POSITION]))

    def suppresses_wakeups(self, now_ns: int) -> bool:
        """Whether no datagram is needed, since the daemon polls this outbox after `now_ns`.

        `now_ns` is on the monotonic clock. The answer holds only for records appended before the
        clock was read: the daemon polls once more after the time that it has announced. (virtio
        calls this notification suppression.)
        """
        until_ns = self._words[WORD_WATCHED_UNTIL_NS]
        return now_ns < until_ns <= now_ns + WATCHED_NS_MAX

    def only_unconfirmed(self) -> bytes | None:
        """Returns the last event's payload if it is the only unconfirmed one, else None."""
        words = self._words
        confirmed, position = words[WORD_CONFIRMED_SEQUENCE], words[WORD_CONFIRMED_POSITION]
        if confirmed + 1 != words[WORD_WRITTEN] or position > self._tail[1]:
            return None
        head = read_ring(self._read_own, self._ring_bytes, position, RECORD_HEAD.size)
        length = LENGTH_CRC.unpack_from(head)[0]
        if position + aligned(RECORD_HEAD.size + length) != self._tail[1]:
            return None  # the last record does not begin at the confirmed position
        return read_ring(self._read_own, self._ring_bytes, position + RECORD_HEAD.size, length)

    @property
    def retired(self) -> bool:
        """Whether the daemon has retired this producer.

        Once the file is removed too, the daemon reads nothing past `confirmed`.
        """
        return bool(self._words[WORD_RETIRED])

    @property
    def given_up(self) -> bool:
        """Whether the daemon has given up this outbox, as foreign or damaged."""
        return bool(self._words[WORD_GIVEN_UP])

    @property
    def left_by_daemon(self) -> bool:
        """Whether the daemon no longer uses this outbox, so that a new producer is needed."""
        words = self._words
        return bool(words[WORD_RETIRED] or words[WORD_GIVEN_UP])

    def refused(self, cause: str, count: int) -> None:
        """Reports to the daemon, in the header, how many events were refused for that cause."""
        word = WORD_REFUSED + REFUSAL_CAUSES.index(cause)
        if self._mark[0]:
            self._words[word] = count

    def no_growth(self) -> None:
        """Reports to the daemon, in the header, that no larger ring follows for lack of memory."""
        if self._mark[0]:
            self._words[WORD_GROWTH_BYTES] = 0

    @property
    def refusals(self) -> dict[str, int]:
        """Returns the numbers of refused events that this producer has reported, by cause."""
        words = self._words
        counts = {cause: words[n] for n, cause in enumerate(REFUSAL_CAUSES, start=WORD_REFUSED)}
        return {cause: int(count) for cause, count in counts.items() if count}

    def farewell(self) -> None:
        """Marks the last written sequence as the producer's last."""
        if self._mark[0]:  # false in a forked child, which must not end its parent's producer
            self._words[WORD_FAREWELL] = 1

    def release(self) -> None:
        """Releases the buffer, so that its mapping can be closed; the numbers stay readable.

        Nothing is written after this.
        """
        if self._words is self._mapped:
            self._words = self._mapped.tolist()
        self._ring.release()
        self._mapped.release()
