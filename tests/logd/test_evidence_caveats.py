"""What an evidence sheet says of events that may be missing from its time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest

from logd.batch import LOST_CLAIMED, LOST_TAIL_UNKNOWN, Batch
from logd.clock import readings
from logd.maintenance import stored_times
from logd.reports import evidence_caveats
from logd.runtime_stats import RuntimeStats, WaitingSince
from logd.storage.job_table import FORGET, PRUNE
from tests.logd.evidence_log import HOUR_NS, NOW, Log, caveats, lines, sheet
from tests.logd.made_up_trail import DAY_NS, Trail


@pytest.fixture
def log(directory: Path) -> Iterator[Log]:
    made = Log(directory)
    yield made
    made.store.close()


def hours(since: int, until: int) -> dict[str, int]:
    return {"since_ns": NOW + since * HOUR_NS, "until_ns": NOW + until * HOUR_NS}


def test_a_range_with_a_loss_says_so_and_others_do_not(log: Log) -> None:
    for hour in range(10):
        log.put(NOW + hour * HOUR_NS)
    log.lose(3, NOW + 12 * HOUR_NS)
    for hour in range(11, 20):
        log.put(NOW + hour * HOUR_NS, stored_ns=NOW + max(hour, 12) * HOUR_NS)
    connection = log.store.connection
    (caveat,) = caveats(connection, **hours(0, 20))
    assert caveat == {
        "kind": "loss", "loss": 1, "producer": "1000-0000000000000001", "first": 11, "last": 13,
        "events": 3, "cause": "not received", "from_ns": NOW + 9 * HOUR_NS,
        "to_ns": NOW + 11 * HOUR_NS, "detected_ns": NOW + 12 * HOUR_NS,
    }  # fmt: skip
    for since, until, there in (
        (0, 9, 0),
        (0, 10, 1),
        (10, 11, 1),
        (11, 12, 1),
        (12, 20, 0),
        (30, 40, 0),
    ):
        assert len(caveats(connection, **hours(since, until))) == there, (since, until)
    assert lines(sheet(connection, user="7", **hours(10, 11))["statement"])["caveats"].startswith(
        "1 "
    )


def test_the_neighbours_of_a_loss_are_the_same_producers(log: Log) -> None:
    """Others go on meanwhile, and their times bound nothing."""
    other = log.new(2)
    log.put(NOW)
    for minute in range(1, 50):
        log.put(NOW + minute * HOUR_NS, producer=other)
    log.lose(1, NOW + 50 * HOUR_NS)
    log.put(NOW + 60 * HOUR_NS)
    (caveat,) = caveats(log.store.connection)
    assert (caveat["from_ns"], caveat["to_ns"]) == (NOW, NOW + 60 * HOUR_NS)


def test_a_wrong_clock_beside_a_loss_bounds_nothing(log: Log) -> None:
    log.put(5, stored_ns=NOW)  # a clock that stood in 1970
    log.lose(1, NOW + HOUR_NS)
    log.put(NOW + 40 * DAY_NS, stored_ns=NOW + HOUR_NS)  # and one far ahead
    (caveat,) = caveats(log.store.connection)
    assert (caveat["from_ns"], caveat["to_ns"]) == (NOW - 7 * DAY_NS, NOW + HOUR_NS)


def test_a_loss_without_neighbours_lies_between_what_is_certain(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.lose(4, NOW)  # the first numbers of a producer
    (caveat,) = caveats(log.store.connection)
    assert (caveat["from_ns"], caveat["to_ns"]) == (NOW - 7 * DAY_NS, NOW)
    log.put(NOW)
    log.lose(2, NOW + HOUR_NS)
    monkeypatch.setattr(evidence_caveats, "SEARCHED_ALL_MAX", 0)  # nothing may be searched any more
    newest = caveats(log.store.connection)[-1]
    assert (newest["from_ns"], newest["to_ns"]) == (NOW - 7 * DAY_NS, NOW + HOUR_NS)


def test_a_tail_of_unknown_extent_reaches_until_it_was_noticed(log: Log) -> None:
    log.put(NOW)
    log.lose(None, NOW + 9 * HOUR_NS, LOST_TAIL_UNKNOWN)
    (caveat,) = caveats(log.store.connection)
    assert (caveat["events"], caveat["last"]) == (None, None)
    assert (caveat["from_ns"], caveat["to_ns"]) == (NOW, NOW + 9 * HOUR_NS)
    assert not caveats(log.store.connection, since_ns=NOW + 9 * HOUR_NS + 1)
    assert not caveats(log.store.connection, until_ns=NOW)


def test_what_is_only_claimed_is_told_apart(log: Log) -> None:
    log.put(NOW)
    log.lose(40, NOW + HOUR_NS, LOST_CLAIMED)
    assert [caveat["kind"] for caveat in caveats(log.store.connection)] == ["claimed"]


def test_more_losses_than_are_looked_at_are_not_passed_over(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_caveats, "LOSSES_MAX", 3)
    for hour in range(5):
        log.put(NOW + hour * HOUR_NS)
        log.lose(1, NOW + hour * HOUR_NS)
    found = caveats(log.store.connection)
    assert [caveat["kind"] for caveat in found] == ["loss"] * 3 + ["more_losses"]
    # None of those looked at is in this range, and what the others say is not known.
    found = caveats(log.store.connection, since_ns=NOW + HOUR_NS + 1)
    assert [one["kind"] for one in found] == ["loss"] * 3
    monkeypatch.setattr(evidence_caveats, "LOSSES_MAX", 1)
    found = caveats(log.store.connection, since_ns=NOW + HOUR_NS, until_ns=NOW + 2 * HOUR_NS)
    assert [one["kind"] for one in found][-1] == "more_losses"


def test_losses_with_near_neighbours_have_bounds_however_many_they_are(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_caveats, "SEARCHED_ALL_MAX", 500)
    for hour in range(60):
        log.put(NOW + hour * HOUR_NS)
        log.lose(1, NOW + hour * HOUR_NS)
    log.put(NOW + 60 * HOUR_NS)
    found = caveats(log.store.connection, "loss")
    assert len(found) == 60
    assert all(one["to_ns"] - one["from_ns"] <= HOUR_NS for one in found)


def test_a_producer_that_keeps_no_copy_has_a_tail_that_is_not_known(log: Log) -> None:
    lone = log.new(5)
    lone.has_outbox = False
    log.put(NOW, producer=lone)
    (caveat,) = caveats(log.store.connection, since_ns=NOW, until_ns=NOW + HOUR_NS)
    assert caveat == {"kind": "open_tail", "producers": 1, "from_ns": NOW}
    assert not caveats(log.store.connection, until_ns=NOW)
    lone.ended = True
    log.put(NOW + 1, producer=lone)
    assert not caveats(log.store.connection)


@pytest.mark.parametrize(
    ("since", "until", "told"),
    [(0, 10, True), (5, 6, True), (-9, 2, False), (-9, 3, False), (6, 7, False), (-9, 4, True)],
)
def test_what_waits_in_outboxes_is_told_of_its_time(
    log: Log, since: int, until: int, told: bool
) -> None:
    stats = RuntimeStats(at_ns=NOW + 5, backlog=12, backlog_since_ns=NOW + 3)
    search = evidence_caveats.CaveatSearch(log.store.connection, NOW + since, NOW + until, stats)
    caveat = {"kind": "pending", "events": 12, "from_ns": NOW + 3, "at_ns": NOW + 5}
    assert (caveat in list(search.caveats())) is told


def test_events_wait_since_the_last_sample_by_which_all_was_stored() -> None:
    waiting = WaitingSince(100)
    assert waiting.since_ns(110, 5, 0) == 100  # an outbox that was there before the daemon
    assert waiting.since_ns(120, 8, 4) == 100  # one of the first five still waits
    assert waiting.since_ns(130, 9, 5) == 110
    assert waiting.since_ns(140, 9, 9) == 130
    assert waiting.since_ns(150, 12, 9) == 140
    assert WaitingSince(10**30).since_ns(7, 1, 0) == 7, "a header may say anything"


def test_quarantine_in_the_range_and_in_the_week_after_it_is_told(log: Log) -> None:
    log.put(NOW)
    for hour, reason, sequence in (
        (1, "malformed: of x", 2),
        (2, "checksum", None),
        (30, "checksum", None),
    ):
        batch = Batch(100, 10**6)
        log.producer.taken += sequence is not None
        batch.add_quarantine(
            1000, 5, reason, b"x", None if sequence is None else log.producer, sequence
        )
        log.commit(batch, NOW + hour * HOUR_NS)
    found = caveats(log.store.connection, since_ns=NOW, until_ns=NOW + 10 * HOUR_NS)
    assert found == [
        {"kind": "quarantined", "after": False, "entries": 2, "events": 1,
         "reasons": {"checksum": 1, "malformed": 1}},
        {"kind": "quarantined", "after": True, "entries": 1, "events": 0,
         "reasons": {"checksum": 1}},
    ]  # fmt: skip
    assert not caveats(log.store.connection, since_ns=NOW + 31 * HOUR_NS)
    assert not caveats(log.store.connection, until_ns=NOW - 8 * DAY_NS)


def test_quarantine_that_is_no_longer_kept_is_told(log: Log) -> None:
    batch = Batch(100, 10**6)
    for number in range(30):  # 20 are kept
        batch.add_quarantine(1000, 5, f"reason {number}", b"x")
    log.commit(batch, NOW)
    (caveat,) = caveats(log.store.connection, "quarantine_cut")
    assert caveat == {"kind": "quarantine_cut", "entries": 10, "before_ns": NOW}
    assert not caveats(log.store.connection, "quarantine_cut", since_ns=NOW + 1)


def test_what_clients_refused_is_told_by_cause(log: Log) -> None:
    log.producer.refused = {"outbox_full": 5, "malformed": 2}
    log.put(NOW)
    log.put(NOW + HOUR_NS)
    (caveat,) = caveats(log.store.connection, since_ns=NOW - DAY_NS)
    assert caveat == {
        "kind": "refused", "events": 7, "causes": {"malformed": 2, "outbox_full": 5},
        "from_ns": NOW, "to_ns": NOW + HOUR_NS,
    }  # fmt: skip
    assert not caveats(log.store.connection, since_ns=NOW + 2 * HOUR_NS)
    assert not caveats(log.store.connection, until_ns=NOW - 7 * DAY_NS)


def removed(directory: Path, act: Callable[[Trail], int]) -> tuple[Trail, int]:
    """A trail of thirty days after an act, and how many events it took out."""
    trail = Trail(directory, random.Random(6))
    for day in range(30):
        trail.commit(
            [trail.event()._replace(ts_ns=day * DAY_NS + number) for number in range(20)],
            day * DAY_NS + 100,
        )
    before = len(trail.rows())
    trail.finish(act(trail))
    return trail, before - len(trail.rows())


@pytest.mark.parametrize("how", ["pruned", "erased"])
def test_events_removed_from_the_range_are_told_with_the_act(
    directory: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (readings, stored_times):
        monkeypatch.setattr(module, "EARLIEST_NS", 0)

    def act(trail: Trail) -> int:
        if how == "erased":
            return trail.ask(FORGET, users=["3"])
        return trail.ask(PRUNE, before={"login": 12 * DAY_NS, "page_view": 12 * DAY_NS})

    trail, count = removed(directory, act)
    connection = trail.store.connection
    found = caveats(connection, "removed")
    assert count > 50
    (one,) = found
    assert (one["how"], one["events"]) == (how, count)
    assert (one["redacted"] > 0) is (how == "erased")
    rows = connection.execute(
        "SELECT e.id, e.ts_ns, e.props FROM event e JOIN event_type t ON t.id = e.type"
        " WHERE t.name = ?",
        ("events_pruned" if how == "pruned" else "person_erased",),
    ).fetchall()
    told = [(*row[:2], msgpack.unpackb(row[2])) for row in rows]
    acts = [row[:2] for row in told if "removal" in row[2]]
    assert one["acts"] == len(acts)
    assert (one["first_act"], one["last_act"]) == (min(acts)[0], max(acts)[0])
    assert (one["from_ns"], one["to_ns"]) == (min(a[1] for a in acts), max(a[1] for a in acts))
    # Of a range in which none were stored, that is not said: only that others are gone.
    outside = caveats(connection, since_ns=25 * DAY_NS)
    kept = {caveat["kind"] for caveat in outside}
    if how == "pruned":
        assert kept == {"removed_others", "open_tail"}
        assert [caveat["events"] for caveat in outside if "events" in caveat] == [count]
    assert not sheet(connection, user="3")["events"] or how == "pruned"
    trail.store.close()


def test_the_range_before_the_trail_begins_is_told(log: Log) -> None:
    log.put(NOW)
    assert sheet(log.store.connection, user="7")["caveats"] == [
        f'{{"at_ns":{NOW},"kind":"begins"}}'
    ]
    assert sheet(log.store.connection, user="7", since_ns=NOW)["caveats"] == []
