"""Outboxes that are damaged, forged or given up: bounded work, nothing lost without a row."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logd.audit.verify import verify
from logd.batch import Batch, Producer
from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.ordering import Intake
from logd.status.collect import collect_status
from logd.storage.store import Store
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    RING_BYTES_MIN,
    WORD_CONFIRMED_POSITION,
    WORD_CONFIRMED_SEQUENCE,
    WORD_CREATED_NS,
    WORD_FAREWELL,
    WORD_GIVEN_UP,
    WORD_PID,
    WORD_REFUSED,
    WORD_WRITTEN,
)
from tests.logd.stepped_daemon import PRODUCER, SteppedDaemon, Written, look, no_space
from tests.support.instance import Instance, check_sums

_numbers = st.one_of(
    st.integers(0, 5),
    st.sampled_from([2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1]),
    st.integers(0, 2**64 - 1),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.sampled_from(
            [WORD_PID, WORD_CREATED_NS, WORD_WRITTEN, WORD_FAREWELL, WORD_CONFIRMED_SEQUENCE]
            + [WORD_CONFIRMED_POSITION, WORD_REFUSED, WORD_REFUSED + 1]
        ),
        _numbers,
        max_size=5,
    ),
    st.integers(0, 5),
)
def test_no_words_in_a_strangers_header_end_the_daemon_at_this_start_or_the_next(
    instance: Instance, words: dict[int, int], records: int
) -> None:
    """Totals of `status` stay consistent, and `verify` finds nothing."""
    outbox = Written(instance.config.outbox_directory)
    outbox.write(records)
    with open(outbox.path, "r+b") as file:
        for index, value in words.items():
            file.seek(index * 8)
            file.write(value.to_bytes(8, sys.byteorder))
    for _ in range(2):
        daemon = SteppedDaemon(instance)
        daemon.store.connection.execute("UPDATE producer SET boot_id = 'earlier' WHERE ended = 0")
        try:
            daemon.start()
            for _ in range(6):
                look(daemon)
            assert verify(daemon.store.connection).findings == []
            assert collect_status(instance.config)["lost"] < 2**40
        finally:
            daemon.close()
        outbox.path.unlink(missing_ok=True)


def test_an_outbox_given_up_is_removed_after_the_commit_that_records_its_loss(
    instance: Instance, daemon: SteppedDaemon, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(3)
    with open(outbox.path, "r+b") as file:
        file.seek(HEADER_BYTES)
        file.write(bytes(RING_BYTES_MIN))  # its records are zeros now

    daemon.delivery.opener.open_found(outbox.path.name, os.getuid(), PRODUCER)
    for opened in daemon.delivery.outboxes.values():
        opened.scans_left = 0
    with monkeypatch.context() as context:
        context.setattr(Store, "commit", no_space)
        for _ in range(5):
            look(daemon)
        assert not daemon.delivery.outboxes, "it is given up"
        assert outbox.path.exists()
    look(daemon)
    assert not outbox.path.exists()
    state = instance.status()
    check_sums(state, attempted=3, accepted=3)
    assert (state["stored"], state["lost"], state["pending"]) == (0, 3, 0)


def test_any_number_of_damaged_outboxes_makes_few_lines(
    instance: Instance, daemon: SteppedDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is searched three times and given up: a line for each time would be 200."""
    for producer_id in range(50):
        outbox = Written(instance.config.outbox_directory, producer_id)
        outbox.write(9)
        for number in range(1, 9, 2):
            outbox.spoil(number)
    daemon.start()
    for _ in range(20):
        look(daemon)
    state = instance.status()
    check_sums(state, attempted=450, accepted=450)
    assert state["lost"] > 0
    assert state["quarantined"] == 50
    lines = [record for record in caplog.records if record.levelname == "WARNING"]
    assert 1 <= len(lines) <= 5


@pytest.mark.parametrize(
    ("per_user", "in_all", "any_user", "most"), [(10, 1000, 16, 20), (1000, 30, 16, 30)]
)
def test_refused_outboxes_are_remembered_up_to_a_bound_and_the_others_wait(
    instance: Instance,
    daemon: SteppedDaemon,
    monkeypatch: pytest.MonkeyPatch,
    per_user: int,
    in_all: int,
    any_user: int,
    most: int,
) -> None:
    """Their headers look valid, so that only reading the records shows the damage."""
    monkeypatch.setattr("logd.ingest.refused_files.REFUSED_PER_USER_MAX", per_user)
    monkeypatch.setattr("logd.ingest.refused_files.REFUSED_MAX", in_all)
    monkeypatch.setattr("logd.ingest.refused_files.REFUSED_OF_ANY_USER", any_user)
    spoiled = [Written(instance.config.outbox_directory, n) for n in range(100, 160)]
    for outbox in spoiled:
        outbox.write(1, confirmed_position=8)
    good = Written(instance.config.outbox_directory, 7)
    daemon.start()
    good.write(3)
    for _ in range(4):
        look(daemon)
    assert len(daemon.directory.refused) <= most
    assert instance.status()["quarantined"] <= most
    for outbox in spoiled:
        outbox.path.unlink()
    for _ in range(3):
        look(daemon)
    state = instance.status()
    assert (state["stored"], state["lost"], state["pending"]) == (3, 0, 0)
    assert not daemon.directory.refused
    assert not daemon.directory.refused._of_user  # no public face shows a counter left at 0


@pytest.mark.parametrize("batch_events", [2, 20_000])
def test_readable_records_of_an_outbox_that_is_given_up_are_stored_and_it_is_marked(
    instance: Instance,
    daemon: SteppedDaemon,
    outbox: Written,
    monkeypatch: pytest.MonkeyPatch,
    batch_events: int,
) -> None:
    """Its header contradicts itself: the records after the last stored one are good."""
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    monkeypatch.setattr(
        daemon.delivery.state,
        "new_batch",
        lambda: Batch(batch_events, 10**6, daemon.config.gap_events_max),
    )
    outbox.write(3)
    daemon.start()
    look(daemon)
    assert instance.status()["stored"] == 3
    with open(outbox.path, "rb") as file:
        outbox.words[WORD_CONFIRMED_SEQUENCE] = 1000
        outbox.write(10)
        for _ in range(12):
            look(daemon)
        assert not outbox.path.exists()
        file.seek(WORD_GIVEN_UP * 8)
        assert int.from_bytes(file.read(8), sys.byteorder) == 1
    state = instance.status()
    check_sums(state, attempted=13, accepted=13)
    assert (state["stored"], state["lost"], state["quarantined"]) == (13, 0, 1)


def test_an_outbox_that_is_given_up_is_not_read_for_ever(
    instance: Instance, daemon: SteppedDaemon, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its producer keeps writing good records into it, a batch for each that is read."""
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(3)
    daemon.start()
    look(daemon)
    monkeypatch.setattr(
        daemon.delivery.state, "new_batch", lambda: Batch(200, 10**6, daemon.config.gap_events_max)
    )
    daemon.delivery.state.batch = daemon.delivery.state.new_batch()
    outbox.words[WORD_CONFIRMED_SEQUENCE] = 2**40

    def write(count: int) -> None:
        outbox.words[WORD_CONFIRMED_POSITION] = outbox.writer.bytes_written
        outbox.write(count)

    records = Intake.take_outbox_records

    def and_as_many_more(self: Intake, producer: Producer, payloads: Any, batch: Batch) -> None:
        records(self, producer, payloads, batch)
        if outbox.path.exists():
            write(len(payloads))

    monkeypatch.setattr(Intake, "take_outbox_records", and_as_many_more)
    write(400)
    for _ in range(100):
        look(daemon)
    assert not outbox.path.exists(), "a ring's fill and no more"
    accepted = outbox.writer.written
    check_sums(instance.settle(), attempted=accepted, accepted=accepted)
