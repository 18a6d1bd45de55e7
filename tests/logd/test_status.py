"""The status of an instance: as JSON for programs, as text, by exit code."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time

import pytest

from logd import instance_lock
from logd.reports.ledger_queries import CAUSES
from logd.status.disk import DAY_S, Disk, measure_disk, with_growth
from logd.status.trail import STATUS_LOSSES_MAX
from logd.storage import last_verification
from logd_wire.wire import datagram_head, encode_record, producer_seed
from tests.faults.steady import Steady
from tests.logd.made_status import NS, ZEROS
from tests.support.instance import Instance, check_sums, emitters, until
from tests.support.namespaces import needs_users
from tests.support.tally import Tally


def test_the_sender_of_duplicates_is_in_the_status_as_text_and_json(
    instance: Instance,
) -> None:
    """Also once the daemon is gone: as it last reported."""
    assert json.loads(instance.cli("status", "--json"))["duplicate_senders"] == []
    instance.start()
    head = datagram_head(5)
    record = encode_record(producer_seed(5), 1, b"\x94\xa1x\x01\xc0\xc4\x01\x80")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(instance.socket)
        sock.send(head + record)
        sock.send(head + record * 100)
    expected = {
        "uid": os.getuid(), "pid": os.getpid(),
        "duplicates": 100, "early": 0, "farewells": 0, "skipped": 0, "closings": 0,
    }  # fmt: skip
    until(lambda: instance.status()["duplicate_senders"] == [expected], "the sender is named")
    until(lambda: instance.status()["duplicates_ignored"] == 100, "it is committed")
    state = json.loads(instance.cli("status", "--json"))
    check_sums(state, attempted=1, accepted=1)
    assert (state["duplicate_senders"], state["duplicates_ignored"]) == ([expected], 100)
    assert instance.stop() == 0
    line = f"of user {os.getuid()}, pid {os.getpid()}: 100 duplicates"
    assert line in instance.cli("status")


def skip_numbers(instance: Instance, gaps: int) -> None:
    """A client without an outbox, of which every second event never arrives."""
    producer_id = secrets.randbits(64)
    head, seed = datagram_head(producer_id), producer_seed(producer_id)
    payload = b"\x94\xa1x\x01\xc0\xc4\x01\x80"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(instance.socket)  # it waits where the queue is full
        for n in range(gaps + 1):
            sock.send(head + encode_record(seed, 2 * n + 1, payload))


def test_the_ledger_of_a_daemon_is_in_its_status_as_text_and_json(
    instance: Instance, tally: Tally
) -> None:
    gaps = STATUS_LOSSES_MAX + 5
    before = json.loads(instance.cli("status", "--json"))
    assert (before["losses"], before["losses_entries"], before["lost"]) == ([], 0, 0)
    assert before["losses_by_cause"] == dict.fromkeys(CAUSES, ZEROS)
    instance.start()
    assert instance.cli("losses").strip() == "0 entries: no event is known to be lost"
    skip_numbers(instance, gaps)
    until(lambda: instance.status()["stored"] == gaps + 1, "all that was sent is stored")

    state = json.loads(instance.cli("status", "--json"))
    assert (state["lost"], state["losses_entries"]) == (gaps, gaps)
    assert len(state["losses"]) == STATUS_LOSSES_MAX
    assert [entry["first"] for entry in state["losses"]] == [
        2 * (gaps - n) for n in range(STATUS_LOSSES_MAX)
    ]
    assert set(state["losses"][0]) == {
        "id", "producer", "first", "last", "events", "cause", "detected_ns",
    }  # fmt: skip
    assert state["losses_by_cause"]["not received"] == {
        "entries": gaps, "events": gaps, "unknown_extent": 0,
    }  # fmt: skip
    text = instance.cli("status")
    assert f"lost         {gaps} events; losses of unknown extent: 0" in text
    assert text.count(state["losses"][0]["producer"]) == STATUS_LOSSES_MAX
    assert "and 5 more: logd losses --config" in text

    everything = instance.cli("losses").splitlines()
    assert len(everything) == gaps
    assert everything[:STATUS_LOSSES_MAX] == [
        line.strip() for line in text.splitlines() if state["losses"][0]["producer"] in line
    ]
    rows = [json.loads(line) for line in instance.cli("losses", "--format", "jsonl").splitlines()]
    for row in rows:
        del row["detected_time"]  # the same as text
    assert rows[:STATUS_LOSSES_MAX] == state["losses"]
    assert [row["first"] for row in rows] == [2 * n for n in range(gaps, 0, -1)]
    sent = 2 * gaps + 1
    tally.account(instance.status(), instance.events(), attempted=sent, accepted=sent)


def test_status_exits_with_0_whatever_the_daemon_does_unless_asked(
    instance: Instance,
) -> None:
    for code, options in ((0, ()), (3, ("--exit-code",)), (3, ("--exit-code", "--json"))):
        instance.cli("status", *options, code=code)
    instance.start()
    instance.cli("status", "--exit-code")
    with instance.database() as connection:
        connection.execute("BEGIN IMMEDIATE")
        with emitters(instance, count=1, events=5) as (emitter,):
            emitter.finish()
            until(lambda: instance.status()["trouble"], "it has trouble")
            instance.cli("status", "--exit-code", code=75)
            assert "since" in instance.cli("status")
    check_sums(instance.settle(), attempted=5, accepted=5)


def test_the_time_until_outboxes_of_a_dead_daemon_are_full_follows_from_what_waits(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.start()
    with Steady(instance, outbox_bytes=64 * 1024) as client:
        client.emit_stored(100)
        until(lambda: instance_lock.read_runtime_stats(instance.config.lock_file), "figures")
        instance.kill()
        assert instance.status()["room_s"] is None  # nobody has emitted since
        client.emit(100)
        found = instance_lock.read_runtime_stats(instance.config.lock_file)
        assert found is not None
        later_ns = found.at_ns + 100 * NS
        monkeypatch.setattr(time, "time_ns", lambda: later_ns)
        state = instance.status()
        assert state["pending"] == 100
        # One a second, and room for many more of them.
        assert 100 < state["room_s"] < 2000
    monkeypatch.undo()
    instance.start()
    check_sums(instance.settle(), attempted=200, accepted=200)


def test_what_verify_found_is_kept_for_the_status(instance: Instance) -> None:
    instance.start()
    with emitters(instance, count=1, events=5) as (emitter,):
        emitter.finish()
    instance.settle()
    assert instance.status()["integrity"] is None
    instance.cli("verify")
    found = instance.status()["integrity"]
    assert (found["whole"], found["events"], found["findings"]) == (True, 5, 0)
    assert "whole when verified" in instance.cli("status")
    assert last_verification.path_of(instance.config.database).stat().st_mode & 0o777 == 0o600
    # Whole in itself, and not the trail that was anchored.
    anchored = instance.directory / "anchored"
    anchored.write_text(f"anchor batch=1 events=5 head={'ab' * 32}\n")
    assert "whole: 5 events" in instance.cli("verify", "--anchors", str(anchored), code=1)
    found = instance.status()["integrity"]
    assert (found["whole"], found["events"], found["findings"]) == (False, 5, 1)
    assert "NOT WHOLE when verified" in instance.cli("status")
    anchored.write_text("")
    instance.cli("verify", "--anchors", str(anchored), code=75)
    found = instance.status()["integrity"]
    assert (found["whole"], found["answer"], found["findings"]) == (True, "not_proven", 0)
    assert "not proven when verified" in instance.cli("status")
    metrics = instance.cli("metrics")
    assert "logd_trail_whole 1.0" in metrics and "logd_trail_not_proven 1.0" in metrics
    instance.cli("verify")
    assert instance.status()["integrity"]["whole"] is True
    with instance.database() as connection:
        connection.execute("UPDATE event SET user = 'x' WHERE id = 3")
    instance.cli("verify", code=1)
    assert "NOT WHOLE when verified" in instance.cli("status")
    assert "logd_trail_whole 0.0" in instance.cli("metrics")
    path = last_verification.path_of(instance.config.database)
    earlier = json.loads(path.read_text())  # as an earlier version wrote it
    assert earlier.pop("answer") == "not_whole"
    path.write_text(json.dumps(earlier))
    assert instance.status()["integrity"]["answer"] == "not_whole"
    for torn in ("", "{", "[]", '{"from": "tomorrow"}'):
        last_verification.path_of(instance.config.database).write_text(torn)
        assert instance.status()["integrity"] is None


@needs_users
def test_what_root_verified_is_the_databases_owners_to_read(instance: Instance) -> None:
    instance.start()
    instance.stop()
    os.chown(instance.config.database, 65534, 65534)
    instance.cli("verify")
    assert last_verification.path_of(instance.config.database).stat().st_uid == 65534


# -- growth ----------------------------------------------------------------------------------------


def test_growth_is_reported_from_a_day_of_events_on_and_never_guessed() -> None:
    disk = Disk(database_bytes=10_000_000, wal_bytes=0, free_bytes=5_000_000, total_bytes=None)
    assert with_growth(disk, 0, rows=999, events=999, window_s=2 * DAY_S) == disk
    assert with_growth(disk, 0, rows=10_000, events=10_000, window_s=DAY_S - 1) == disk
    two_days = with_growth(disk, 0, rows=10_000, events=4000, window_s=2 * DAY_S)
    assert two_days.growth_bytes_per_day == 2_000_000
    assert two_days.days_left == pytest.approx(2.5)
    # What was pruned is filled first, and is no part of what an event takes.
    pruned = with_growth(disk, 5_000_000, rows=10_000, events=4000, window_s=2 * DAY_S)
    assert pruned.growth_bytes_per_day == 1_000_000
    assert pruned.days_left == pytest.approx(10)
    quiet = with_growth(disk, 0, rows=10_000, events=0, window_s=2 * DAY_S)
    assert (quiet.growth_bytes_per_day, quiet.days_left) == (0, None)


@pytest.mark.parametrize("days", [3, 30])
def test_the_growth_of_a_trail_is_of_its_last_seven_days(instance: Instance, days: int) -> None:
    instance.start()
    with Steady(instance) as client:
        client.emit_stored(1900)
        client.emit_stored(100)
    check_sums(instance.settle(), attempted=2000, accepted=2000)
    instance.stop()
    with instance.database() as connection:
        batches, events = connection.execute("SELECT count(*), sum(events) FROM batch").fetchone()
        assert batches > 1
        now_ns = 100 * DAY_S * NS
        first, last = now_ns - days * DAY_S * NS, now_ns - 2 * DAY_S * NS
        connection.execute("UPDATE batch SET stored_ns = ?", (first,))
        connection.execute("UPDATE batch SET stored_ns = ? WHERE id = ?", (last, batches))
        (newest,) = connection.execute(
            "SELECT events FROM batch WHERE id = ?", (batches,)
        ).fetchone()
        found = measure_disk(instance.config, connection, 2000, now_ns)
    lately, over = (events, 3) if days == 3 else (newest, 2)
    assert found.growth_days == pytest.approx(over)
    assert found.growth_bytes_per_day == pytest.approx(
        found.database_bytes / 2000 * lately / over, rel=0.02
    )
