"""A step takes a bounded part of any flood, and drops no event that is in no outbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, repeat

import msgpack
import pytest

from logd.batch import Batch, Producer
from logd.ingest.drain import Datagram, Drain
from logd.ingest.ordering import Intake
from logd.ingest.step_budget import STEP_BYTES_MAX, STEP_RECORDS_MAX, STEP_S_MAX
from logd_wire.wire import (
    DATAGRAM_BYTES_MAX,
    DATAGRAM_HEAD,
    KIND_AWAITED,
    datagram_head,
    encode_farewell,
    encode_record,
    producer_seed,
)
from tests.logd.test_step_budget import FLOODER, GOOD, Clock

PAYLOAD = msgpack.packb(["a", 1, None, b"\x80"])
RECORD_BYTES = len(encode_record(0, 1, PAYLOAD))
PER_DATAGRAM = (DATAGRAM_BYTES_MAX - DATAGRAM_HEAD.size) // RECORD_BYTES
PID = 77


def records(producer_id: int, sequences: Iterator[int] | range, payload: bytes = PAYLOAD) -> bytes:
    seed = producer_seed(producer_id)
    return b"".join(encode_record(seed, sequence, payload) for sequence in sequences)


def of(uid: int, data: bytes) -> Datagram:
    return data, uid, PID, False


class Steps:
    """An intake and a drain, and the batches that step after step makes of a queue."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.drain = Drain(clock)
        self.intake = Intake(self._introduce, 10**6)
        self.open: set[Producer] = set()
        self.taken: dict[int, list[int]] = {FLOODER: [], GOOD: []}

    def _introduce(self, uid: int, producer_id: int) -> Producer:
        return Producer(uid, producer_id, producer_seed(producer_id))

    def with_outbox(self, uid: int, producer_id: int, taken: int = 0) -> Producer:
        producer = self.intake.producer(uid, producer_id)
        producer.has_outbox = True
        producer.taken = producer.stored = taken
        self.open.add(producer)
        return producer

    def step(self, queue: Iterator[Datagram]) -> Batch:
        batch = Batch(10**6, 10**9)
        self.drain.take(queue, self.intake, batch, self.open)
        for producer, sequence, _ in batch.events:
            self.taken[producer.uid].append(sequence)
        return batch

    @property
    def judged(self) -> int:
        return self.intake.ignored.total


def duplicates() -> Iterator[Datagram]:
    yield of(FLOODER, datagram_head(5) + records(5, range(1, 2)))
    yield from repeat(of(FLOODER, datagram_head(5) + records(5, range(1, 2)) * PER_DATAGRAM))


def early() -> Iterator[Datagram]:
    again = records(6, range(100, 101))
    yield from repeat(of(FLOODER, datagram_head(6) + again * PER_DATAGRAM))


def farewells() -> Iterator[Datagram]:
    yield from repeat(of(FLOODER, encode_farewell(6, 3, {})))


def garbage() -> Iterator[Datagram]:
    yield from repeat(of(FLOODER, b"noise"))


def cut() -> Iterator[Datagram]:
    yield from repeat((b"x" * 200_000, FLOODER, PID, True))


def valid() -> Iterator[Datagram]:
    for first in count(1, PER_DATAGRAM):
        yield of(FLOODER, datagram_head(5) + records(5, range(first, first + PER_DATAGRAM)))


def malformed() -> Iterator[Datagram]:
    for sequence in count(1):
        yield of(FLOODER, datagram_head(5) + records(5, range(sequence, sequence + 1), b"\xc1"))


def awaited() -> Iterator[Datagram]:
    for sequence in count(1):
        again = records(5, range(sequence, sequence + 1))
        yield of(FLOODER, datagram_head(5, KIND_AWAITED) + again)


FLOODS = [duplicates, early, farewells, garbage, cut, valid, malformed, awaited]


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_a_step_takes_a_users_part_of_a_flood_whatever_it_is_made_of(
    flood: Callable[[], Iterator[Datagram]],
) -> None:
    """Duplicates and farewells store nothing: the budget counts what was decoded."""
    steps = Steps()
    if flood in (early, farewells):
        steps.with_outbox(FLOODER, 6)
        steps.open.clear()  # not to be skipped
    batch = steps.step(flood())
    judged = steps.judged + batch.entries
    assert 0 < judged <= STEP_RECORDS_MAX // 2 + 16 * 1024 // RECORD_BYTES + 1
    assert steps.drain.more


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_a_step_takes_a_users_part_of_the_time(flood: Callable[[], Iterator[Datagram]]) -> None:
    clock = Clock()

    def slowly() -> Iterator[Datagram]:
        for datagram in flood():
            clock.now_s += STEP_S_MAX / 100
            yield datagram

    steps = Steps(clock)
    steps.step(slowly())
    assert clock.now_s - 100.0 <= STEP_S_MAX, "half of it, and up to sixteen small datagrams"


def test_large_datagrams_without_end_are_bounded_in_bytes() -> None:
    """A few records of the largest size in each."""
    sizes = []

    def queue() -> Iterator[Datagram]:
        large = msgpack.packb(["a", 1, None, msgpack.packb({"x": "y" * 32_000})])
        for first in count(1, 4):
            data = datagram_head(5) + records(5, range(first, first + 4), large)
            sizes.append(len(data))
            yield of(FLOODER, data)

    Steps().step(queue())
    assert STEP_BYTES_MAX // 4 < sum(sizes) <= STEP_BYTES_MAX // 2 + 2 * DATAGRAM_BYTES_MAX


def test_what_is_in_no_outbox_is_never_dropped_nor_taken_out_of_order() -> None:
    """The rest of a datagram, and of the queue, waits for the next steps."""
    steps = Steps()
    flood = valid()
    first = [next(flood) for _ in range(3)]
    good = [of(GOOD, datagram_head(9) + records(9, range(n, n + 1))) for n in range(1, 4)]
    queue = iter([*first, *good])
    rounds = 0
    while steps.drain.more or not rounds:
        batch = steps.step(queue)
        rounds += 1
        assert batch.entries <= STEP_RECORDS_MAX // 2 + 16 * 1024 // RECORD_BYTES + 1
    assert steps.taken[FLOODER] == list(range(1, 3 * PER_DATAGRAM + 1))
    assert steps.taken[GOOD] == [1, 2, 3]
    assert rounds > 3


def test_what_lies_in_an_outbox_is_passed_over_so_that_a_neighbour_is_reached() -> None:
    steps = Steps()
    flooder = steps.with_outbox(FLOODER, 5, taken=1)
    flood = duplicates()
    queue = [next(flood) for _ in range(6)]
    queue.append(of(GOOD, datagram_head(9) + records(9, range(1, 2))))
    steps.step(iter(queue))
    assert steps.taken[GOOD] == [1], "in the same step"
    assert flooder.behind, "its outbox is read for what may have been in them"
    (row,) = steps.intake.ignored.senders(10)
    assert (row["uid"], row["pid"]) == (FLOODER, PID)
    assert row["skipped"] == 5
    assert row["duplicates"] < 2 * PER_DATAGRAM
