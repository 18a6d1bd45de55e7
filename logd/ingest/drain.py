"""Takes datagrams into the batch, within a step's budget. Pure: the clock is passed in.

There is one queue in the kernel for all senders, so one user's flood delays all. A datagram of a
user over its share of the step is dropped undecoded if its producer's outbox can be read instead.
What is in no outbox is never dropped: then the step ends, and the queue keeps the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from itertools import chain

from logd.batch import Batch, Producer
from logd.ingest.ordering import Intake
from logd.ingest.step_budget import StepBudget

# Datagrams take at most one part in this many of a batch, so that a flood leaves room for outboxes.
DATAGRAMS_PART = 4
# Small datagrams are charged sixteen at a time, since a charge takes half as long as a datagram.
CHARGE_DATAGRAMS = 16
CHARGE_BYTES_MIN = 4096

# A datagram's data, the sender's uid and pid from the kernel, and whether the data was cut.
Datagram = tuple[bytes, int, int, bool]


class Drain:
    """Takes datagrams in a step; `more` is set if the step ended before the queue was empty."""

    charge_datagrams = CHARGE_DATAGRAMS

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._budget = StepBudget(monotonic_s)
        # A datagram taken only up to an offset, for the next step.
        self.held: tuple[Datagram, int] | None = None
        self.more = False

    def take(
        self,
        datagrams: Iterable[Datagram],
        intake: Intake,
        batch: Batch,
        readable: Container[Producer],
    ) -> int:
        """Takes datagrams into the batch, first one held from the last step; returns their number.

        `readable` are the producers whose outbox is open.
        """
        budget, every, offset = self._budget, self.charge_datagrams, 0
        if self.held is not None:
            first, offset = self.held
            datagrams, self.held = chain((first,), datagrams), None
        self.more = False
        budget.begin()
        over, drained = budget.over, 0
        judged = batch.entries + intake.ignored.total
        for datagram in datagrams:
            data, uid, pid, cut = datagram
            drained += 1
            while True:
                began = offset
                if over and uid in over:
                    if not intake.skip(data, uid, pid, readable):
                        self.held, self.more = (datagram, offset), True
                        return drained
                    offset = 0
                elif cut:
                    batch.add_quarantine(uid, pid, "oversize datagram", data)
                else:
                    offset = intake.take_datagram(data, uid, pid, batch, offset)
                large = len(data) >= CHARGE_BYTES_MIN
                if large or not drained % every:
                    before, judged = judged, batch.entries + intake.ignored.total
                    size = (offset or len(data)) - began if large else every * len(data)
                    budget.charge(uid, judged - before, size)
                if batch.is_filled_to(1 / DATAGRAMS_PART) or budget.exhausted:
                    self.held = (datagram, offset) if offset else None
                    self.more = True
                    return drained
                if not offset:
                    break
        return drained
