"""The emitters of the benchmarks and their events."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from typing import Any

import msgpack

from benchmarks.harness.emitter import Load, drive
from benchmarks.harness.events import events
from benchmarks.ingest.run import (
    flat_out,
)
from logd_wire.schema import check_event_type, check_props, check_user


def test_events_are_valid_and_no_two_are_the_same() -> None:
    packer = msgpack.Packer()
    seen, types = set(), Counter[str]()
    for event_type, user, props in itertools.islice(events(1), 3000):
        check_event_type(event_type)
        check_user(user)
        check_props(props)
        seen.add(packer.pack(props))
        types[event_type] += 1
    assert len(seen) == 3000
    assert set(types) == {"page_view", "task_completed", "quiz_submitted"}
    assert types["page_view"] > 2000


def test_events_are_the_same_for_the_same_seed_only() -> None:
    def some(seed: int) -> list[str]:
        return [repr(event) for event in itertools.islice(events(seed), 50)]

    assert some(1) == some(1)
    assert not set(some(1)) & set(some(2))


def test_a_refused_event_is_retried_and_the_first_refusal_is_recorded() -> None:
    offered: list[str] = []

    def call(_event_type: str, *, user: str, props: dict[str, Any]) -> bool:
        offered.append(props["request_id"])
        return len(offered) != 2

    load = Load(emitters=1, events=3, refused_wait_s=0.0)
    driven = drive(call, load, 0, time.monotonic())
    assert len(driven.calls_ns) == 3
    assert offered[1] == offered[2]
    assert len(set(offered)) == 3
    assert driven.full_ns is not None


def test_all_outboxes_together_have_the_same_size() -> None:
    assert {flat_out(count, 1).outbox_bytes * count for count in (1, 4, 64)} == {8 * 1024 * 1024}
