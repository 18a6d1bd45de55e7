"""An instance with a hundred days of events, those of a person among them, for prune and forget."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from logd.batch import Batch, Producer
from logd.storage import keyfile
from logd_wire.wire import Event, producer_seed
from tests.support import pages
from tests.support.instance import Instance

DAY_NS = 86_400 * 10**9
NAME, VALUE = "anna-example-4711", "value-of-anna-0815"
TYPES = ("page_view", "page_view", "page_view", "login", "task_completed")


def fill(instance: Instance, events: int, per_batch: int = 500) -> dict[str, int]:
    """A hundred days of events, each stored as it was made, in a database without a daemon; how
    many of each kind.
    """
    store = instance.open_store()
    producer = Producer(uid=4000, id=9, seed=producer_seed(9), ended=True)
    now_ns = time.time_ns()
    counts = dict.fromkeys(("old views", "anna", "mentions"), 0)
    per_batch = max(1, min(per_batch, events // 20))  # the last is of this week
    for first in range(0, events, per_batch):
        batch = Batch(per_batch, 10**9)
        age_days = 100 - 100 * min(events, first + per_batch) // events
        made_ns = now_ns - age_days * DAY_NS - DAY_NS // 2
        for number in range(first, min(events, first + per_batch)):
            user = NAME if number % 10 == 3 else f"user-{number % 97}"
            props: dict[str, Any] = {"task": number % 7, "number": number}
            if user == NAME:
                props["note"] = f"{VALUE}-{number}"
            elif number % 50 == 7:
                props["params"] = {"user": NAME}
            kind = TYPES[number % len(TYPES)]
            counts["old views"] += kind == "page_view" and age_days >= 50
            counts["anna"] += user == NAME
            counts["mentions"] += "params" in props
            producer.taken += 1
            event = Event(kind, made_ns, user, msgpack.packb(props))
            batch.add(producer, producer.taken, event, 1)
        store.commit(batch, made_ns)
        batch.mark_committed()
    store.close()
    return counts


def found(instance: Instance) -> list[str]:
    key = keyfile.read(instance.config.key_file)
    return pages.found(instance.config.database, key, [NAME.encode(), VALUE.encode()])


@pytest.fixture
def served(instance: Instance) -> Iterator[Instance]:
    """An instance with retention that closes clean."""
    instance.configure(**{"retention.page_view": "50d"})
    yield instance
    status = instance.settle()
    instance.stop()
    instance.cli("verify")
    assert status["lost"] == 0
