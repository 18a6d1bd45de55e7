"""The producers that a client had before its current one, and what became of their events.

What a former producer has accepted stays this client's: it is counted, and `flush` waits for it,
until all of it is confirmed or nothing more can be learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from logd_client.producer import Producer

FORMER_PRODUCERS_MAX = 8
# A daemon that has a removed file open reads and confirms its events within this time.
REMOVED_WAIT_S = 5.0
CHECK_INTERVAL_S = 0.1


@dataclass(slots=True, eq=False)
class Former:
    """A producer that the client replaced at `left_s`, on the monotonic clock.

    `moved`: the daemon did not read its last event, so that event was written to the successor too,
    and counts there. `outgrown`: it was replaced by one with a larger ring, and kept its lock until
    then, so that the daemon reads all of it.
    """

    producer: Producer
    left_s: float
    outgrown: bool = False
    moved: bool = False
    farewell_sent: bool = False

    @property
    def accepted(self) -> int:
        """Number of events that count as this producer's."""
        return self.producer.written - self.moved

    @property
    def is_confirmed(self) -> bool:
        """Whether all events that count as this producer's are on disk."""
        return self.producer.outbox is not None and self.producer.confirmed >= self.accepted

    @property
    def ring_bytes(self) -> int:
        """Bytes of memory that this producer's ring takes; 0 once its file is removed."""
        outbox = self.producer.outbox
        return 0 if outbox is None or outbox.removed() else outbox.writer.ring_bytes

    def unread(self) -> bytes | None:
        """Returns the payload of the event that the daemon missed when it retired this producer.

        Returns None if it missed none.

        The daemon retires a producer that has lost its lock, and then reads no more. The client
        notices with the next event that it sends, so at most one event is missed.
        """
        outbox = self.producer.outbox
        if outbox is None or self.is_confirmed or not outbox.writer.retired:
            return None
        if outbox.writer.given_up:
            return None  # it is recorded as lost, and would count twice if written again
        # `retired` is read again after the removal,
        # since another daemon that opened the file clears it.
        if not outbox.removed() or not outbox.writer.retired:
            return None
        return outbox.writer.only_unconfirmed()

    def mark_moved(self) -> None:
        """Stops counting the unread event here, since it counts where it is written again."""
        self.moved = True


@dataclass(frozen=True, slots=True)
class _Closed:
    """Totals of closed producers: accepted, confirmed and unconfirmable events."""

    accepted: int = 0
    confirmed: int = 0
    unconfirmable: int = 0


class FormerProducers:
    """Keeps former producers while confirmations may still arrive, and their counts for good.

    `end` is called with each producer that is to be closed. It has no lock: the caller lets one
    thread in at a time.
    """

    def __init__(self, end: Callable[[Producer], None], former_type: type[Former] = Former) -> None:
        self._end = end
        self._former_type = former_type
        # Totals and producers are one tuple:
        # a signal handler that raises in between counts nothing twice.
        self._state: tuple[_Closed, tuple[Former, ...]] = (_Closed(), ())
        self._check_due_s = 0.0
        # `any`: there are former producers; `urgent`: some were replaced for another reason than
        # a larger ring. Each emit reads both.
        self.any = self.urgent = False

    def __iter__(self) -> Iterator[Former]:
        return iter(self._state[1])

    def counts(self, current: Producer | None) -> tuple[int, int, int]:
        """Returns how many events of all producers are accepted, confirmed, and unconfirmable.

        `current` is included. Events that no outbox held are unconfirmable.
        """
        closed, kept = self._state
        accepted, confirmed, unconfirmable = (
            closed.accepted, closed.confirmed, closed.unconfirmable,
        )  # fmt: skip
        for former in kept:
            if former.producer is not current:
                accepted += former.accepted
                confirmed += min(former.producer.confirmed, former.accepted)
        if current is not None:
            accepted += current.written
            confirmed += min(current.confirmed, current.written)
            if current.outbox is None:
                unconfirmable += current.written
        return accepted, confirmed, unconfirmable

    @property
    def unconfirmed(self) -> int:
        """Number of accepted events of closed producers that were not confirmed."""
        closed = self._state[0]
        return closed.accepted - closed.confirmed

    def ring_bytes(self, current: Producer | None) -> int:
        """Returns the bytes that the rings of all producers but `current` still take."""
        return sum(former.ring_bytes for former in self if former.producer is not current)

    def used_bytes(self, current: Producer | None) -> int:
        """Returns the bytes in the rings of all producers but `current` that are not confirmed."""
        return sum(
            outbox.writer.used_bytes
            for former in self
            if former.producer is not current
            and (outbox := former.producer.outbox) is not None
            and not outbox.removed()
        )

    def add(self, producer: Producer, now_s: float, *, outgrown: bool = False) -> None:
        """Adds a producer that the client has replaced, unless it is kept already."""
        closed, kept = self._state
        self.any = True
        self.urgent = self.urgent or not outgrown
        if all(former.producer is not producer for former in kept):
            self._state = (closed, (*kept, self._former_type(producer, now_s, outgrown)))
        self._check_due_s = 0.0

    def is_check_due(self, now_s: float) -> bool:
        """Whether an emit must check the former producers.

        Outgrown ones are checked at intervals.
        """
        return self.urgent or now_s >= self._check_due_s

    def of(self, producer: Producer) -> Former | None:
        """Returns the entry of the given producer, or None if it is not a former one."""
        for former in self:
            if former.producer is producer:
                return former
        return None

    def close_finished(self, now_s: float, current: Producer | None) -> None:
        """Closes former producers whose counts are final. Runs a few times a second at most.

        A former producer that is `current` is removed from the former ones: a signal handler raised
        before its successor took over. Of more than FORMER_PRODUCERS_MAX whose events may still be
        confirmed, the oldest are closed, and their unconfirmed events count as pending for good.
        """
        if now_s < self._check_due_s:
            return
        self._check_due_s = now_s + CHECK_INTERVAL_S
        closed, kept = self._state
        former = self.of(current) if current is not None else None
        if former is not None:
            kept = tuple([other for other in kept if other is not former])
            self._state = (closed, kept)
        self.any = bool(kept)
        self.urgent = len([former for former in kept if former.outgrown]) < len(kept)
        for former in self:
            if self._is_final(former, now_s):
                self.close(former)
        kept = self._state[1]
        for former in kept[: max(0, len(kept) - FORMER_PRODUCERS_MAX)]:
            self.close(former)

    def _is_final(self, former: Former, now_s: float) -> bool:
        outbox = former.producer.outbox
        if outbox is None or former.is_confirmed:
            return True
        if not outbox.writer.given_up:
            if not outbox.removed():
                return False  # a daemon will read the file
            if outbox.writer.retired:
                return former.unread() is None
        # The file has lost its name, or the daemon has given it up.
        # In case that no daemon has it open, a farewell sends the last
        # sequence and the refusals, which is all that can still be reported.
        if not former.farewell_sent:
            former.farewell_sent = former.producer.send_farewell(outbox.writer.refusals)
        return former.farewell_sent and now_s >= former.left_s + REMOVED_WAIT_S

    def close(self, former: Former) -> None:
        """Closes a former producer, so that later confirmations of its events are not counted."""
        # The producer is ended before its totals are added: if a signal handler interrupts this,
        # it is closed again later, and its numbers can still be read.
        self._end(former.producer)
        closed, kept = self._state
        if former in kept:
            self._state = (
                _plus(closed, former.producer, former.accepted),
                tuple(other for other in kept if other is not former),
            )

    def close_all(self, now_s: float) -> None:
        """Closes all former producers, at the client's end."""
        self._check_due_s = 0.0
        self.close_finished(now_s, None)
        for former in self:
            self.close(former)


def _plus(closed: _Closed, producer: Producer, accepted: int) -> _Closed:
    return _Closed(
        closed.accepted + accepted,
        closed.confirmed + min(producer.confirmed, accepted),
        closed.unconfirmable + (accepted if producer.outbox is None else 0),
    )
