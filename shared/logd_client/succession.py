"""A process's producers: the current one, and the former ones that it has replaced.

A producer is replaced when its outbox, descriptor or user is lost, when its ring is full and a
larger one can be had, and when an outbox can be had where there was none.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakSet

from logd_client.durable import DurableEvent
from logd_client.environment import Environment
from logd_client.former_producers import FormerProducers
from logd_client.growth import Growth, first_ring_bytes
from logd_client.guard import Guard
from logd_client.producer import Producer
from logd_client.refusals import ClientRefusals
from logd_client.waiters import (
    DURABLE_WAITERS,
    ConfirmationWaiters,
    breaker_of_durable_waits,
)
from logd_wire.forks import Forked
from logd_wire.outbox.writer import OutboxWriter

# After this many refused outboxes a process sends its events without one.
REFUSED_OUTBOXES_MAX = 3
# How often descriptors, names and user are compared while events are sent: two system calls.
COMPARE_INTERVAL_S = 0.005
# Seconds until an outbox whose directory was moved is replaced:
# a running daemon moves it back before that.
DISPLACED_S = 2.0


@dataclass(frozen=True)
class OutboxSettings:
    """The path of the daemon's socket, and the place and size of this client's outboxes.

    `durable_waiters` is how many callers wait on while nothing is being confirmed.
    """

    socket_path: str
    outbox_bytes: int
    outbox_directory: str | None
    durable_waiters: int = DURABLE_WAITERS


class ProducerSuccession:
    """Opens and replaces the producers of one process. Called under the client's guard.

    `current` is None before the first event and after `close`; `awaited` are the durable events
    whose callers wait. `refusals` is kept here, since each producer reports a part of the refusals.
    """

    def __init__(self, settings: OutboxSettings, environment: Environment, guard: Guard) -> None:
        self.settings = settings
        self._environment = environment
        self._monotonic_s = environment.clock.monotonic_s
        self._guard = guard
        self.closed = False
        self.reset(forked=True)

    def reset(self, forked: bool) -> None:
        """Resets the succession to no producer, as in a new client."""
        self.refusals = ClientRefusals()
        if forked:
            self.closed = False
        self.current: Producer | None = None
        self.former = FormerProducers(self._close_former, self._environment.former_type)
        self.growth = Growth(self.settings.outbox_bytes)
        self.breaker = breaker_of_durable_waits(self.settings.durable_waiters)
        self._waiters: dict[Producer, ConfirmationWaiters] = {}
        # The references are weak, so that a call interrupted
        # by a signal handler leaves no event behind.
        self.awaited: WeakSet[DurableEvent] = WeakSet()
        self._refused_outboxes = 0

    def release_inherited(self) -> None:
        """Closes the outboxes and sockets that a forked child has inherited from its parent."""
        self.end_waits()
        if self.current is not None:
            self.current.close()
        for former in self.former:
            former.producer.close()

    # -- opening and replacing -------------------------------------------------------------------

    def open_first(self) -> Producer:
        """Opens the process's first producer, when it logs its first event."""
        producer = self.make()
        if not producer.mark[0]:
            raise Forked
        self.current = producer
        self._report(producer)
        return producer

    def make(self, former: Producer | None = None, ring_bytes: int = 0) -> Producer:
        """Makes a producer to follow `former`. It does not become the current one here.

        Its ring has `ring_bytes`, or by default the size that a process begins with.
        """
        settings = self.settings
        ring_bytes = ring_bytes or first_ring_bytes(settings.outbox_bytes)
        follows = taken = 0
        if former is not None and former.outbox is not None:
            follows = former.id
            taken = 0 if former.outbox.removed() else former.outbox.writer.ring_bytes
        taken += self.former.ring_bytes(former)
        growth_bytes = self.growth.left_bytes(ring_bytes, taken)
        if self._refused_outboxes >= REFUSED_OUTBOXES_MAX:
            ring_bytes = 0  # logd refuses all of them, and further ones would fill the memory
        return self._environment.open_producer(
            settings.socket_path,
            settings.outbox_directory,
            ring_bytes,
            follows,
            growth_bytes,
            self._environment.clock,
        )

    def _report(self, producer: Producer) -> None:
        """Logs that a new producer has no outbox, and reports the refusals not reported before."""
        if producer.no_outbox_reason:
            self._guard.warn(
                "no outbox, so events are not kept while logd is away: %s",
                producer.no_outbox_reason,
            )
        self.refusals.report_all(producer)

    def retry_outbox(self, producer: Producer) -> Producer:
        """Tries to make an outbox for a process without one, since the daemon may run by now."""
        successor = self.make()
        if successor.outbox is None:
            successor.close()
            producer.postpone_outbox_retry(self._monotonic_s())
            return producer
        producer.send_farewell({})
        return self.replace_producer(producer, successor)

    def replace_lost(self, producer: Producer) -> Producer:
        """Replaces a producer whose outbox, descriptor or user is lost."""
        if not producer.mark[0]:
            raise Forked  # the outbox is the parent's, and not lost to it
        outbox = producer.outbox
        if outbox is not None and outbox.writer.given_up and not outbox.writer.confirmed:
            self._refused_outboxes += 1
        successor = self.make(producer)
        if producer.displaced_since_s is not None and outbox is not None:
            if successor.outbox is None and producer.intact and not outbox.writer.left_by_daemon:
                # The outbox stays in use:
                # the path may lead into another mount namespace, for example.
                successor.close()
                producer.displaced_since_s = None
                producer.compare_due_s = self._monotonic_s() + DISPLACED_S
                return producer
            outbox.abandon()
        if producer.outbox is None:
            producer.send_farewell({})
        return self.replace_producer(producer, successor)

    def replace_if_removed(self) -> None:
        """Replaces the current producer if no daemon reads its outbox any more."""
        try:
            producer = self.current
            if producer is not None and not producer.intact:
                self.replace_lost(producer)
        except Exception as error:  # noqa: BLE001 - as in `Emitter.accept`; it stays as it was
            self._guard.warn("the outbox is removed, and no other could be made: %r", error)

    def grow(self, producer: Producer, full: OutboxWriter) -> Producer | None:
        """Replaces a producer whose ring is full by one with a larger ring; None if impossible."""
        now_s = self._monotonic_s()
        former_bytes = self.former.ring_bytes(producer)
        ring_bytes = self.growth.ring_bytes(full.ring_bytes, former_bytes, now_s)
        if not ring_bytes:
            return None
        if not producer.mark[0]:
            raise Forked
        successor = self.make(producer, ring_bytes)
        if successor.outbox is None:
            self.growth.failed(successor.no_outbox_reason or "", now_s)
            full.no_growth()
            successor.close()
            return None
        self.growth.succeeded()
        return self.replace_producer(producer, successor, outgrown=True)

    def replace_producer(
        self, producer: Producer, successor: Producer, *, outgrown: bool = False
    ) -> Producer:
        """Makes `successor` the current producer, and ends the former one but keeps its counts."""
        if not (producer.mark[0] and successor.mark[0]):
            raise Forked
        # The former producer is added before it is replaced:
        # if a signal handler raises in between, it is counted once.
        self.former.add(producer, self._monotonic_s(), outgrown=outgrown)
        if not producer.mark[0]:
            raise Forked
        self.current = successor
        for event in list(self.awaited):
            event.move_note_space(successor)
        producer.leave()
        # Former producers are not checked here, since the check
        # could close the one that holds the event being written.
        self._report(successor)
        return successor

    def _close_former(self, producer: Producer) -> None:
        """Closes a former producer, so that later confirmations of its events are not counted."""
        waiters = self._waiters.get(producer)
        if waiters is not None:
            waiters.end(has_successor=not self.closed)
        producer.close()
        self._waiters.pop(producer, None)

    # -- checks ----------------------------------------------------------------------------------

    def is_intact(self, producer: Producer) -> bool:
        """Whether the producer can continue: by its outbox's words, at intervals by system calls.

        A lost descriptor need not be noticed at once: the daemon retires a producer without a lock,
        and reads all that was written until then.
        """
        outbox = producer.outbox
        if outbox is not None and outbox.writer.left_by_daemon:
            return False
        now_s = self._monotonic_s()
        if now_s < producer.compare_due_s:
            return True
        producer.compare_due_s = now_s + COMPARE_INTERVAL_S
        return producer.intact and not self._is_displaced(producer, now_s)

    def _is_displaced(self, producer: Producer, now_s: float) -> bool:
        """Whether the outbox's directory has been moved for DISPLACED_S seconds.

        A running daemon moves it back before that.
        """
        outbox = producer.outbox
        if outbox is None or not outbox.displaced():
            producer.displaced_since_s = None
            return False
        if producer.displaced_since_s is None:
            producer.displaced_since_s = now_s
        return now_s - producer.displaced_since_s >= DISPLACED_S

    # -- waiting ---------------------------------------------------------------------------------

    def waiters_of(self, producer: Producer) -> ConfirmationWaiters:
        """Returns the threads that wait for the given producer's confirmations."""
        waiters = self._waiters.get(producer)
        if waiters is None:
            waiters = self._waiters[producer] = ConfirmationWaiters(producer, self.breaker)
        return waiters

    def is_breaker_open(self) -> bool:
        """Whether durable events are not waited for, as far as the outboxes' words show it now."""
        for waiters in list(self._waiters.values()):
            waiters.poll()
        return self.breaker.is_open

    def end_waits(self) -> None:
        """Ends all waits; each returns the outcome that is known now."""
        for waiters in list(self._waiters.values()):
            waiters.end()
