"""After a forget nothing of the person is in the decrypted pages of database and log."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.batch import Batch
from logd.maintenance.forget_preview import preview
from logd.storage import job_table
from logd.storage.mentions import DEFAULT_KEYS
from logd.storage.senders import Person
from logd.storage.store import Store
from logd_wire.wire import Event
from tests.logd.made_up_trail import DAY_NS, KEY, TYPES, Trail
from tests.support import pages

pytestmark = pytest.mark.usefixtures("clocks_from_1970")

NAME, VALUE = "anna-example-4711", "value-of-anna-0815"
VALUES = [NAME.encode(), VALUE.encode()]


def fill(trail: Trail) -> None:
    """Users in a random order, so that pages are split and merged wherever it may be."""
    rng = trail.rng
    users = [f"user-{rng.randrange(10**9)}" for _ in range(rng.choice((5, 60, 300)))]
    share = rng.choice((0.01, 0.1, 0.4))
    left = rng.randrange(1000, 5000)
    while left > 0:
        events = []
        for _ in range(min(left, rng.choice((1, 20, 800)))):
            person = rng.random() < share
            props: dict[str, Any] = {
                "task": f"{VALUE}-{rng.randrange(99)}" if person else rng.randrange(30),
                "quiz": rng.randrange(30),
                "score": rng.random(),
                "pad": "y" * rng.choice((0, 10, 300)),
            }
            if not person and rng.random() < 0.05:
                props["users"] = [NAME, rng.choice(users)]
            user = NAME if person else rng.choice(users)
            ts_ns = rng.randrange(60) * DAY_NS
            events.append(Event(rng.choice(TYPES), ts_ns, user, msgpack.packb(props)))
        trail.commit(events)
        left -= len(events)
    batch = Batch(100, 10**6)
    for _ in range(20):
        batch.add_quarantine(1, 2, f"malformed: {NAME}", VALUE.encode())
    trail.store.commit(batch, 1)
    if rng.random() < 0.5:  # pages are merged as well
        before = dict.fromkeys(rng.sample(TYPES, 2), 20 * DAY_NS)
        trail.finish(trail.ask(job_table.PRUNE, before=before))


def forget(directory: Path, seed: int) -> Trail:
    trail = Trail(directory, random.Random(seed))
    fill(trail)
    assert pages.found(trail.path, KEY, VALUES)
    trail.finish(trail.ask(job_table.FORGET, users=[NAME]))
    return trail


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(n, marks=pytest.mark.long(minutes=0.1)) for n in range(2, 16))]
)
def test_no_page_of_database_and_log_holds_anything_of_a_forgotten_person(
    directory: Path, seed: int
) -> None:
    trail = forget(directory, seed)
    assert pages.found(trail.path, KEY, VALUES) == []
    assert trail.findings() == []
    trail.store.close()
    assert pages.found(trail.path, KEY, VALUES) == []


def test_without_the_vacuum_copies_would_remain(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why a forget ends with that: SQLite overwrites what it deletes, and nothing else."""
    monkeypatch.setattr(Store, "vacuum", lambda *_: True)
    left: list[str] = []
    for seed in range(40):
        place = directory / str(seed)
        place.mkdir()
        trail = forget(place, seed)
        left = pages.found(trail.path, KEY, VALUES)
        trail.store.close()
        if left:
            break
    assert left


def test_what_the_preview_counts_is_what_goes(directory: Path) -> None:
    trail = Trail(directory, random.Random(3))
    fill(trail)
    expected = preview(trail.store.connection, Person(NAME), DEFAULT_KEYS)
    job = trail.finish(trail.ask(job_table.FORGET, users=[NAME]))
    assert job.outcome == expected
    assert all(expected.values())
    trail.store.close()
