"""Late events of forgotten persons: which of a batch are checked, erased or redacted."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import msgpack

from logd.batch import Batch, Producer, QuarantineEntry
from logd.storage import late_erasure
from logd.storage.erasure_list import ErasureList
from logd.storage.mentions import DEFAULT_KEYS, ERASED, Value
from logd_wire.wire import Event

OLD, NEW = Producer(1, 1, 0), Producer(1, 2, 0)


@dataclass
class Everybody:
    """Covers user 7 up to sequence 10, whatever the time."""

    until_ns: dict[Producer, int]
    asked: list[tuple[object, ...]] = field(default_factory=list)

    def check_until_ns(self, producer: Producer) -> int:
        return self.until_ns[producer]

    def covers(
        self, name: Value, sender: int, producer: Producer, sequence: int, ts_ns: int
    ) -> bool:
        assert sender == producer.uid
        self.asked.append((name, producer, sequence, ts_ns))
        return name == "7" and sequence <= 10


def split(batch: Batch, forgotten: Everybody) -> tuple[late_erasure.Events, list[int]]:
    return late_erasure.split(batch, cast("ErasureList", forgotten), DEFAULT_KEYS)


def batch_of(*events: tuple[Producer, int, Event]) -> Batch:
    batch = Batch(100, 10_000)
    for producer, sequence, event in events:
        batch.add(producer, sequence, event, 1)
    return batch


def test_an_empty_batch_and_one_made_after_every_forget_are_not_checked() -> None:
    forgotten = Everybody({NEW: -1})
    for batch in (batch_of(), batch_of((NEW, 1, Event("page_view", 0, "7", b"")))):
        events, late = split(batch, forgotten)
        assert events is batch.events
        assert (late, forgotten.asked) == ([], [])


def test_events_up_to_the_latest_time_are_checked_and_later_ones_are_not() -> None:
    forgotten = Everybody({OLD: 0, NEW: -1})
    batch = batch_of(
        (OLD, 1, Event("page_view", 1, "7", b"")),  # a moment too late
        (NEW, 1, Event("page_view", 0, "7", b"")),
        (OLD, 2, Event("page_view", 0, "7", b"")),
        (OLD, 3, Event("page_view", 0, "8", b"")),
        (OLD, 4, Event("page_view", 0, None, b"")),
        (OLD, 11, Event("page_view", 0, "7", b"")),
    )
    events, late = split(batch, forgotten)
    assert late == [2]
    assert events is batch.events
    assert forgotten.asked == [("7", OLD, 2, 0), ("8", OLD, 3, 0), ("7", OLD, 11, 0)]


def test_events_that_mention_a_forgotten_person_are_redacted() -> None:
    props = msgpack.packb({"actor": "7", "n": 1})
    first, second = Event("page_view", 5, "9", props), Event("login", 6, None, props)
    batch = batch_of((OLD, 1, first), (OLD, 12, second), (OLD, 3, second))
    before = list(batch.events)
    events, late = split(batch, Everybody({OLD: 6}))
    assert late == []
    assert batch.events == before, "the batch itself is not changed"
    less = [msgpack.unpackb(event.props) for _, _, event in events]
    assert less[0]["n"] == less[1]["n"] == less[2]["n"] == 1
    assert [one["actor"] for one in less] == [ERASED, "7", ERASED]
    assert [(producer, sequence) for producer, sequence, _ in events] == [
        (OLD, 1),
        (OLD, 12),
        (OLD, 3),
    ]
    assert [(event.type, event.ts_ns, event.user) for _, _, event in events] == [
        ("page_view", 5, "9"),
        ("login", 6, None),
        ("login", 6, None),
    ]


class Boundaries:
    """Input of OLD up to sequence 5 was made before a forget; of NEW none was."""

    def is_before_any(self, producer: Producer, sequence: int | None) -> bool:
        assert sequence is not None
        return producer is OLD and sequence <= 5


def test_of_input_from_before_a_forget_the_excerpt_goes_and_the_rest_stays() -> None:
    forgotten = cast("ErasureList", SimpleNamespace(boundaries=Boundaries()))
    late = QuarantineEntry(1, 2, "bad: anna: b", b"anna", 4, OLD, 5)
    others = [
        QuarantineEntry(1, 2, "bad: anna", b"anna", 4),
        QuarantineEntry(1, 2, "bad: anna", b"anna", 4, OLD, 6),
        QuarantineEntry(1, 2, "bad: anna", b"anna", 4, NEW, 5),
    ]
    assert late_erasure.without_excerpts(others, forgotten) is others
    assert late_erasure.without_excerpts([others[0], late, *others[1:]], forgotten) == [
        others[0], QuarantineEntry(1, 2, "bad", b"", 4, OLD, 5), *others[1:],
    ]  # fmt: skip
