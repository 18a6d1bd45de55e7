"""Everything that untrusted clients can fill is bounded, as logd/README.md lists it."""

from __future__ import annotations

import os
import re
import tracemalloc
from pathlib import Path
from typing import Any, cast

import pytest

from logd.batch import Batch, Producer
from logd.maintenance import event_removal
from logd.maintenance import forget as forgetting
from logd.storage import erasure_list, stored_users
from logd.storage.job_table import Job
from logd.storage.store import Store
from logd_wire import schema
from logd_wire.wire import producer_seed
from tests.project.test_trust_page import all_test_names
from tests.support.instance import ROOT


@pytest.fixture
def store(directory: Path) -> Any:
    made = Store(directory / "a.db", os.urandom(32), 1, quarantine_rows_max=50)
    yield made
    made.close()


def test_every_test_that_the_list_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "logd/README.md").read_text()))
    assert len(named) > 10
    assert named - all_test_names() == set()


def test_every_table_of_the_schema_is_in_the_list(store: Store) -> None:
    listed = set(re.findall(r"`(\w+)`", (ROOT / "logd/README.md").read_text()))
    tables = {
        name
        for (name,) in store.connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'migration'"
        )
    }
    assert tables - listed == set()


def test_quarantine_is_bounded_and_the_counts_are_not(store: Store) -> None:
    producer = Producer(uid=1000, id=1, seed=producer_seed(1))
    for _ in range(5):
        batch = Batch(1000, 10**6)
        for _ in range(30):
            producer.taken += 1
            batch.add_quarantine(1000, 5, "malformed", b"x" * 1000, producer, producer.taken)
        store.commit(batch, 2)
        batch.mark_committed()
    rows, oldest, longest = store.connection.execute(
        "SELECT count(*), min(id), max(length(excerpt)) FROM quarantine"
    ).fetchone()
    assert (rows, oldest, longest) == (50, 101, 256)
    counters = dict(store.connection.execute("SELECT name, value FROM counter").fetchall())
    assert counters == {"quarantined": 150, "quarantined_events": 150}


def test_the_types_known_to_be_in_order_are_bounded_and_let_new_ones_in() -> None:
    for n in range(2500):
        schema.check_event_type(f"invented_{n}")
    # What the three bounds below are of has no public face: it only makes things quicker.
    assert schema.check_event_type("page_view") in schema._known_types
    assert len(schema._known_types) <= 1000


def test_the_names_that_a_removal_has_looked_up_are_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_removal, "_NAMES_MAX", 10)
    store.connection.executemany(
        "INSERT INTO producer VALUES (?, 5, printf('%016x', ?), 1, 0, 1, '', 1, 1, 1)",
        [(n, n) for n in range(1, 101)],
    )
    store.connection.execute("INSERT INTO event_type (id, name) VALUES (1, 'page_view')")
    names = event_removal._Names(store.connection)
    leaves = {names.leaf((1, n, 1, 5, 1, "7", b"\x80", bytes(16))) for n in range(1, 101)}
    assert (len(leaves), len(names._labels)) == (100, 10)


def test_whom_a_list_names_is_found_without_all_users_in_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_users, "PAGE_ROWS", 300)
    store.connection.execute("INSERT INTO event_type (id, name) VALUES (1, 'page_view')")
    store.connection.execute(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)"
        " INSERT INTO rollup_day SELECT 1, 5, printf('invented_%0100d', n), 1 FROM n"
    )
    wanted = f"invented_{'77':0>100}"
    store.erasure_list = erasure_list.ErasureList(b"p" * 32, {})
    params = {"users": [], "tokens": [store.erasure_list.token(wanted)]}
    job = Job(1, "forget", params, 1)
    steps = cast("event_removal.Steps", None)
    beside = forgetting.Surroundings(Path(), None, None)
    tracemalloc.start()
    try:
        for _ in forgetting._find_names(job, store, steps, beside):
            pass
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert job.params["users"] == [wanted]
    assert most < 500_000
