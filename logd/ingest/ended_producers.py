"""Records the loss of producers that can send nothing more, and whose outbox is gone."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from itertools import chain

from logd.batch import Producer
from logd.ingest.ordering import Intake
from logd.ingest.step_state import StepState
from logd_wire.outbox.names import outbox_name

RECORD_ENDS_MAX = 1000
# How many producers that may have ended, but have a file, are kept; others wait for the next start.
UNDECIDED_ENDS_MAX = 1000

# A producer's uid and id, and the cause of its loss; None ends a page of rows that were read.
End = tuple[int, int, str] | None


class EndedProducers:
    """Records the ends of unfinished producers in the database, some in each step.

    `may_exist` returns whether an outbox of that name may exist.
    """

    def __init__(self, intake: Intake, state: StepState, may_exist: Callable[[str], bool]) -> None:
        self._intake = intake
        self._state = state
        self._may_exist = may_exist
        self._unfinished: Iterator[End] = iter(())
        self._undecided: list[tuple[int, int, str]] = []

    def begin(self, unfinished: Iterator[End]) -> None:
        """Takes the list of producers that had not ended when this process started."""
        self._unfinished = unfinished

    def record_ended(self) -> None:
        """Records as lost the events that producers without an outbox have not sent.

        Call it only when the datagrams queued at the start have been taken. Farewells among them
        state the same losses with their numbers, which would then be recorded twice.
        """
        state = self._state
        if self._undecided and state.now_s >= state.poll_due_s:
            self._unfinished = chain(self._unfinished, self._undecided)
            self._undecided = []
        for _ in range(RECORD_ENDS_MAX):
            if state.batch.full:
                break
            try:
                end = next(self._unfinished)
            except StopIteration:
                return
            if end is None:
                break  # a whole page of rows was read: the rest is for a later step
            uid, producer_id, cause = end
            if self._may_exist(outbox_name(uid, producer_id)):
                # While the file exists, nothing is lost, readable or not.
                # The next poll checks it again.
                if len(self._undecided) < UNDECIDED_ENDS_MAX:
                    self._undecided.append(end)
                continue
            producer = self._intake.producer(uid, producer_id)
            if not producer.ended:  # the producer may have ended since its row was read
                state.batch.add_loss(producer, producer.taken + 1, None, cause)
                producer.ended = True
        state.work_left = True


def drop_missing(
    producers: Iterable[Producer], opened: Container[Producer], may_exist: Callable[[str], bool]
) -> None:
    """Drops producers whose outboxes disappeared with their directory before they were opened.

    Gaps in their sequences are then recorded as losses, with their numbers.
    """
    for producer in producers:
        if (
            producer.has_outbox
            and producer not in opened
            and not may_exist(outbox_name(producer.uid, producer.id))
        ):
            producer.has_outbox = producer.behind = False
