"""Bounds that no other test reaches, set low: what is past them waits, is counted or is cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.audit.verify_rows import FINDINGS_MAX, Verdict
from logd.batch import LOST_BEGINNING_UNKNOWN, LOST_NOT_RECEIVED, Batch, Producer
from logd.ingest import inotify
from logd.ingest.inotify import Inotify
from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.ordering import Intake
from logd.ingest.outbox_directory import OutboxDirectory
from logd_wire.outbox.layout import REFUSALS_MAX
from logd_wire.wire import DATAGRAM_BYTES_MAX, Event, encode_farewell, producer_seed
from tests.logd.ordering_parts import (
    ID,
    UID,
    batch_of,
    datagram,
    losses,
    new_intake,
    new_producer,
    sequences,
    whole,
)
from tests.logd.stepped_daemon import SteppedDaemon, Written, look
from tests.logd.test_hostile import sender
from tests.support.instance import Instance, check_sums


def step(daemon: SteppedDaemon) -> None:
    """One step in which the poll is due."""
    daemon.delivery.state.poll_due_s = 0.0
    daemon.run_once(timeout_s=0)


# -- the daemon's steps --------------------------------------------------------------------------


def test_of_many_producers_without_an_end_a_step_books_a_few(
    instance: Instance, daemon: SteppedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd.ingest.ended_producers.RECORD_ENDS_MAX", 3)
    connection = daemon.store.connection
    connection.executemany(
        "INSERT INTO producer VALUES (?, 1, ?, 0, 0, 0, 'an earlier boot', 1, 1, 1)",
        [(number, f"{number:016x}") for number in range(1, 11)],
    )
    daemon.delivery.recover(0.0)
    booked = [0]
    while booked[-1] < 10:
        step(daemon)
        booked += connection.execute("SELECT count(*) FROM loss").fetchone()
        assert booked[-1] - booked[-2] <= 6, "those of `begin` are in the first"
        assert booked[-1] > booked[-2]
    assert instance.status()["unknown_extent"] == 10


def test_a_farewell_before_its_step_is_not_booked_as_an_unknown_end(
    instance: Instance, daemon: SteppedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unfinished producers were read a page at a time; some have ended since."""
    monkeypatch.setattr("logd.ingest.ended_producers.RECORD_ENDS_MAX", 1)
    daemon.store.connection.executemany(
        "INSERT INTO producer VALUES (?, ?, ?, 4, 0, 0, 'an earlier boot', 1, 1, 1)",
        [(number, os.getuid(), f"{number:016x}") for number in (1, 2)],
    )
    daemon.delivery.recover(0.0)
    with sender(instance) as sock:
        sock.send(encode_farewell(2, 4, {}))
        for _ in range(4):
            step(daemon)
    rows = daemon.store.connection.execute("SELECT producer, first, last FROM loss").fetchall()
    assert rows == [(1, 5, None)]


def test_of_many_files_a_step_lists_a_few(
    instance: Instance, daemon: SteppedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd.ingest.outbox_finder.DISCOVER_FILES_MAX", 2)
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    listed = 0
    names = OutboxDirectory.names

    def counted(self: OutboxDirectory) -> Iterator[tuple[str, int, int]]:
        nonlocal listed
        for name in names(self):
            listed += 1
            yield name

    monkeypatch.setattr(OutboxDirectory, "names", counted)
    for number in range(100, 107):
        Written(instance.config.outbox_directory, number).write(1)
    daemon.delivery.recover(0.0)
    assert listed == 2
    before = listed
    while listed < 7:
        step(daemon)
        assert listed - before <= 2
        before = listed
    look(daemon)
    state = instance.status()
    check_sums(state, attempted=7, accepted=7)
    assert state["stored"] == 7


def test_of_one_user_so_many_files_wait_to_be_opened_and_the_rest_is_listed_again(
    instance: Instance, daemon: SteppedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd.ingest.outbox_finder.DISCOVER_QUEUE_MAX", 3)
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    for number in range(100, 110):
        Written(instance.config.outbox_directory, number).write(1)
    daemon.delivery.work_s = daemon.delivery.start_work_s = 0.0
    daemon.delivery.recover(0.0)
    held = []
    for _ in range(40):
        held.append(daemon.delivery.tasks.count(os.getuid()))
        step(daemon)
    assert max(held) == 3
    state = instance.status()
    check_sums(state, attempted=10, accepted=10)
    assert state["stored"] == 10


def test_a_due_look_goes_through_a_few_outboxes_in_a_step_and_through_all_in_some(
    instance: Instance, daemon: SteppedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def alive(self: OpenOutbox) -> bool:
        asked.append(self.name)
        return True

    monkeypatch.setattr(OpenOutbox, "alive", alive)
    written = [Written(instance.config.outbox_directory, number) for number in range(100, 107)]
    for one in written:
        one.write(1)
    daemon.start()
    look(daemon)
    daemon.run_once(timeout_s=0)
    daemon.delivery.state.poll_due_s = float("inf")
    while daemon.delivery.poller.in_round or daemon.delivery.has_backlog:
        daemon.run_once(timeout_s=0)
    monkeypatch.setattr("logd.ingest.outbox_poller.POLL_FILES_MAX", 2)
    asked.clear()
    step(daemon)
    daemon.delivery.state.poll_due_s = float("inf")
    steps = [list(asked)]
    while daemon.delivery.poller.in_round:
        asked.clear()
        daemon.run_once(timeout_s=0)
        steps.append(list(asked))
    assert [len(one) for one in steps] == [2, 2, 2, 1]
    assert {name for one in steps for name in one} == {one.path.name for one in written}


def test_of_files_that_are_no_outboxes_a_few_names_are_kept(directory: Path) -> None:
    watch = Inotify(directory)
    for number in range(3 * inotify.OTHERS_MAX):
        (directory / f"file-{number}").touch()
    assert watch.names() == []
    assert len(watch.others) == inotify.OTHERS_MAX
    watch.close()


# -- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 5], ids=["first heard of", "known"])
def test_a_gap_is_a_loss_by_number_up_to_the_bound_and_past_it_nothing_is_believed(
    taken: int,
) -> None:
    bound = 100
    producer, batch = new_producer(taken), batch_of()
    new_intake(producer, bound).take_datagram(datagram(taken + bound + 1), UID, 5, batch)
    assert losses(batch) == [(taken + 1, taken + bound, LOST_NOT_RECEIVED)]
    assert sequences(batch) == [taken + bound + 1]
    producer, batch = new_producer(taken), batch_of()
    new_intake(producer, bound).take_datagram(datagram(taken + bound + 2), UID, 5, batch)
    if taken:
        assert [refusal.reason for refusal in batch.quarantine_entries] == [
            "sequence jumps: from 5 to 107"
        ]
        assert (losses(batch), sequences(batch), producer.taken) == ([], [], taken)
    else:
        assert losses(batch) == [(1, None, LOST_BEGINNING_UNKNOWN)]
        assert sequences(batch) == [bound + 2]


def test_a_farewell_is_believed_up_to_the_bound_and_past_it_ends_nothing() -> None:
    bound = 100
    producer, batch = new_producer(5), batch_of()
    new_intake(producer, bound).take_datagram(encode_farewell(ID, 5 + bound + 1, {}), UID, 5, batch)
    assert [refusal.reason for refusal in batch.quarantine_entries] == [
        "farewell claims too much: 101 events"
    ]
    assert (losses(batch), producer.taken, producer.ended) == ([], 5, False)
    batch = batch_of()
    new_intake(producer, bound).take_datagram(encode_farewell(ID, 5 + bound, {}), UID, 5, batch)
    assert losses(batch) == [(6, 5 + bound, LOST_NOT_RECEIVED)]
    assert (producer.taken, producer.ended, batch.quarantine_entries) == (5 + bound, True, [])


def test_the_largest_datagram_is_taken_and_one_byte_more_is_not() -> None:
    producer, batch = new_producer(), batch_of()
    intake = new_intake(producer)
    head, size = datagram(1)[:16], len(datagram(1)) - 16
    old = datagram(1)[16:] * ((DATAGRAM_BYTES_MAX - 16) // size)
    # Filled up to the last byte with one longer record, which is not whole.
    largest = (head + old).ljust(DATAGRAM_BYTES_MAX, b"\0")
    assert len(largest) == DATAGRAM_BYTES_MAX
    whole(largest, intake, batch)
    assert sequences(batch) == [1]
    assert not any("oversize" in refusal.reason for refusal in batch.quarantine_entries)
    producer, batch = new_producer(), batch_of()
    whole(largest + b"\0", new_intake(producer), batch)
    assert sequences(batch) == []
    (refusal,) = batch.quarantine_entries
    assert refusal.reason == f"oversize datagram: {DATAGRAM_BYTES_MAX + 1} bytes"


def test_a_loss_has_a_number_up_to_the_bound_and_past_it_none_to_believe() -> None:
    producer, batch = new_producer(), Batch(100, 10**6, loss_events_max=50)
    for last in (50, 51):
        batch.add_loss(producer, 1, last, LOST_NOT_RECEIVED)
    assert [loss.events for loss in batch.losses] == [50, None]
    assert batch.lost(claimed=False) == 50


@pytest.mark.parametrize("kind", ["events", "losses", "quarantine"])
def test_whatever_makes_a_row_fills_a_batch(kind: str) -> None:
    """What senders cause by the thousand must not make a commit of unbounded size."""
    producer, batch = new_producer(), Batch(3, 10**6)
    for count in range(3):
        assert not batch.full and batch.capacity().events == 3 - count
        if kind == "events":
            batch.add(producer, count + 1, Event("page_view", 5, None, b"\x80"), 10)
        elif kind == "losses":
            batch.add_loss(producer, count + 1, None, LOST_NOT_RECEIVED)
        else:
            batch.add_quarantine(UID, 5, "garbage", b"x")
    assert batch.full and not batch.capacity()
    assert batch.bytes > 0


def test_what_a_farewell_claims_to_have_refused_is_bounded() -> None:
    """The sums of all producers stay within what the database can hold."""
    producer, batch = new_producer(), batch_of()
    refused = {"malformed": 2**62, "outbox_full": REFUSALS_MAX, "undelivered": 1}
    new_intake(producer).take_datagram(encode_farewell(ID, 0, refused), UID, 5, batch)
    assert producer.refused == {
        "malformed": REFUSALS_MAX, "outbox_full": REFUSALS_MAX, "undelivered": 1,
    }  # fmt: skip


def test_of_many_producers_those_with_an_open_outbox_are_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loaded again, one would be two: one of them read, the other one confirmed."""
    monkeypatch.setattr("logd.ingest.ordering.PRODUCERS_MAX", 10)
    intake = Intake(lambda uid, n: Producer(uid, n, producer_seed(n)), 10)
    kept = {intake.producer(UID, number) for number in range(100, 115)}
    for number in range(200, 230):
        intake.producer(UID, number)
    intake.trim(batch_of(), keep=kept)
    assert kept <= set(intake.producers.values())
    assert len(intake.producers) == len(kept) + 5


# -- verification --------------------------------------------------------------------------------


def test_of_very_many_findings_the_first_are_listed_and_that_there_are_more() -> None:
    verdict = Verdict()
    for number in range(3 * FINDINGS_MAX):
        verdict.add_finding(f"finding {number}")
    assert verdict.findings[:-1] == [f"finding {number}" for number in range(FINDINGS_MAX)]
    assert verdict.findings[-1] == "and more, not listed"
    assert not verdict.whole
