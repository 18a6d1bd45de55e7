"""Refusals that producers report: stored, growing, never going back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from logd.batch import Batch
from logd.ingest.open_outbox import OpenOutbox
from logd.storage.store import Store
from logd_wire.outbox.layout import REFUSED_FULL
from tests.logd.stepped_daemon import Written, look, new_daemon
from tests.support.instance import Instance, check_sums


def test_refusals_that_a_producer_reports_never_go_back(directory: Path) -> None:
    """Its outbox is a stranger's, and an older header of it may be read after a newer one."""
    store = Store(directory / "a.db", os.urandom(32), 1, 10)

    def report(refused: dict[str, int]) -> dict[str, int]:
        producer = store.producer(1000, 9)
        producer.refused = dict(refused)
        batch = Batch(10, 10**6)
        batch.touch(producer)
        store.commit(batch, 5)
        return dict(store.connection.execute("SELECT cause, events FROM refusal").fetchall())

    assert report({"malformed": 5, "full": 1}) == {"malformed": 5, "full": 1}
    assert report({"malformed": 3, "full": 2}) == {"malformed": 5, "full": 2}
    assert report({}) == {"malformed": 5, "full": 2}
    assert report({"malformed": 6}) == {"malformed": 6, "full": 2}
    store.close()


def test_what_an_idle_producer_has_refused_is_stored_by_the_look_that_finds_it(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outbox is full, say: no event of it makes a batch, and it goes on counting."""
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox = Written(instance.config.outbox_directory)
    outbox.write(3)
    daemon = new_daemon(instance)
    try:
        daemon.start()
        look(daemon)
        for count in (4, 9):
            outbox.writer.refused(REFUSED_FULL, count)
            outbox.write(0)
            look(daemon)
            state = instance.status()
            assert state["refused_by_clients"] == count
            check_sums(state, attempted=3 + count, accepted=3, refused=count)
    finally:
        daemon.close()


def test_what_used_up_a_number_is_an_event_of_the_sums_and_other_garbage_is_none(
    directory: Path,
) -> None:
    store = Store(directory / "a.db", os.urandom(32), 1, 10)
    producer = store.producer(1000, 9)
    batch = Batch(10, 10**6)
    batch.add_quarantine(1000, 5, "not a datagram of ours", b"x")
    producer.taken = 1
    batch.add_quarantine(1000, 5, "malformed", b"x", producer, producer.taken)
    batch.add_quarantine(1000, 5, "outbox: damaged", b"x", producer)
    store.commit(batch, 5)
    counters = dict(store.connection.execute("SELECT name, value FROM counter").fetchall())
    assert (counters["quarantined"], counters["quarantined_events"]) == (3, 1)
    store.close()
