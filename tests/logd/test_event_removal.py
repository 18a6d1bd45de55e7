"""Removal of events in steps: the sums stay right, and verify still finds every change."""

from __future__ import annotations

import msgpack
import pytest

from logd.batch import Batch, Producer
from logd.clock.event_age import age_ns
from logd.errors import StorageBusy
from logd.maintenance import event_removal, forget, prune, subject_rollups, worker
from logd.storage import erasure_list, job_table
from logd.storage.job_table import FORGET, PRUNE
from logd_wire.wire import Event, producer_seed, unpack_props
from tests.logd.made_up_trail import DAY_NS, TYPES, USERS, Trail

pytestmark = pytest.mark.usefixtures("clocks_from_1970")


def kept(trail: Trail, before: dict[str, int]) -> dict[int, Event]:
    """What a prune must leave of all that was stored so far."""
    return {
        event_id: event
        for event_id, event in trail.stored.items()
        if age_ns(event.ts_ns, trail.stored_ns[event_id]) >= before.get(event.type, 0)
    }


def test_a_prune_takes_the_old_events_of_its_types_and_nothing_else(trail: Trail) -> None:
    trail.fill(600)
    before = {"page_view": 20 * DAY_NS, "quiz_submitted": 10 * DAY_NS}
    job = trail.finish(trail.ask(PRUNE, before=before))
    assert trail.rows() == kept(trail, before)
    gone = 600 - len(trail.rows())
    assert gone > 100
    assert sum(job.outcome.values()) == gone
    assert set(job.outcome) == set(before)
    assert trail.counters()["pruned"] == gone
    assert trail.findings() == []


def test_a_forget_takes_a_persons_events_and_every_mention(trail: Trail) -> None:
    trail.fill(600)
    job = trail.finish(trail.ask(FORGET, users=["3"]))
    left = trail.rows()
    assert set(left) == {n for n, event in trail.stored.items() if event.user != "3"}
    assert job.outcome["events"] == trail.counters()["erased"] == 600 - len(left)
    redacted = [n for n, event in left.items() if event.props != trail.stored[n].props]
    assert job.outcome["redacted"] == len(redacted) > 10
    for event_id, event in left.items():
        before, after = unpack_props(trail.stored[event_id].props), unpack_props(event.props)
        if before.get("params") == {"user": "3"}:
            assert after == {**before, "params": {"user": "(erased)"}}
        else:
            assert after == before
    assert trail.findings() == []
    assert trail.job(job.id).params == {}


@pytest.mark.parametrize(
    "trail",
    [*range(4), *(pytest.param(n, marks=pytest.mark.long(minutes=0.1)) for n in range(4, 24))],
    indirect=True,
)
def test_whatever_goes_in_whatever_order_roll_ups_blocks_and_chain_are_as_the_rest_gives(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events arrive between the steps, and the worker is killed and starts again."""
    rng = trail.rng
    monkeypatch.setattr(event_removal, "STEP_EVENTS_MAX", rng.choice((3, 30, 4000)))
    monkeypatch.setattr(subject_rollups, "REMOVED_MAX", rng.choice((2, 20, 20_000)))
    monkeypatch.setattr(worker, "STEP_S", rng.choice((1e-9, 0.02)))  # one step at a time, or many
    for reader in (prune, forget):
        monkeypatch.setattr(reader, "_READ_ROWS", rng.choice((3, 1000)))
    trail.fill(rng.randrange(1, 400), per_batch=rng.choice((2, 40)))
    before: dict[str, int] = {}
    forgotten: set[str] = set()

    def disturb() -> None:
        if rng.random() < 0.1:
            trail.commit([trail.event() for _ in range(rng.randrange(1, 5))])
        if rng.random() < 0.05:
            trail.worker = trail.new_worker()
            assert trail.findings() == []

    for _ in range(rng.randrange(2, 5)):
        if rng.random() < 0.5:
            kinds = rng.sample(TYPES, rng.randrange(1, 4))
            before = {kind: rng.randrange(32) * DAY_NS for kind in kinds}
            gone = trail.stored.keys() - kept(trail, before).keys()
            trail.finish(trail.ask(PRUNE, before=before), disturb)
        else:
            user = rng.choice(USERS[:-1])
            assert user is not None
            trail.finish(trail.ask(FORGET, users=[user]), disturb)
            forgotten.add(user)
            gone = {n for n, event in trail.stored.items() if event.user in forgotten}
        left = trail.rows()
        assert not gone & left.keys()
        assert left.keys() <= trail.stored.keys()
        for event in left.values():
            params = unpack_props(event.props).get("params", {})
            assert params.get("user") not in forgotten
        assert trail.findings() == []
    counters = trail.counters()
    assert counters["stored"] == len(trail.stored) + counters["own"]
    there = counters["stored"] - counters.get("pruned", 0) - counters.get("erased", 0)
    assert len(trail.rows()) + counters["own"] == there


@pytest.mark.parametrize("events_max", [2, 100])
def test_a_batch_whose_events_are_all_removed_keeps_no_leaves(
    trail: Trail, events_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("STEP_EVENTS_START", "STEP_EVENTS_MAX"):
        monkeypatch.setattr(event_removal, bound, events_max)
    trail.worker = trail.new_worker()
    old = Event("page_view", 1, "1", b"\x80")
    trail.commit([old] * 5)
    trail.commit([old, Event("page_view", 9, "1", b"\x80")])
    trail.finish(trail.ask(PRUNE, before={"page_view": 5}))
    assert trail.store.connection.execute("SELECT event FROM leaf").fetchall() == [(6,)]
    assert trail.findings() == []


def test_an_event_redacted_twice_and_then_pruned_still_verifies(trail: Trail) -> None:
    props = {"users": ["1", "2", "5"]}
    trail.commit([Event("report_read", 3, "4", msgpack.packb(props)), trail.event()], 4)
    for user in ("1", "2"):
        trail.finish(trail.ask(FORGET, users=[user]))
        assert trail.findings() == []
    assert unpack_props(trail.rows()[1].props) == {"users": ["(erased)", "(erased)", "5"]}
    trail.finish(trail.ask(PRUNE, before={"report_read": 5}))
    assert 1 not in trail.rows()
    assert trail.findings() == []


def test_a_redacted_event_gets_another_salt_so_that_its_old_leaf_reveals_nothing(
    trail: Trail,
) -> None:
    trail.commit([Event("report_read", 3, "4", msgpack.packb({"user": "1"}))])
    salt = trail.store.connection.execute("SELECT salt FROM event WHERE id = 1").fetchone()
    trail.finish(trail.ask(FORGET, users=["1"]))
    assert trail.store.connection.execute("SELECT salt FROM event WHERE id = 1").fetchone() != salt


def test_a_cancelled_vacuum_changes_nothing(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logd.storage.wal._VACUUM_STEPS", 1)
    trail.fill(200)
    before = trail.rows()
    assert not trail.store.vacuum(lambda: False)
    assert trail.rows() == before
    assert trail.store.vacuum(lambda: True)
    assert trail.rows() == before
    assert trail.findings() == []
    assert [path.name for path in trail.path.parent.glob("etilqs*")] == []


def test_too_little_space_is_noticed_before_the_vacuum(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd.storage.wal._VACUUM_COPIES", 10**12)
    with pytest.raises(StorageBusy, match="Free some"):
        trail.store.vacuum(lambda: True)


def test_the_worker_rests_as_long_as_it_worked(trail: Trail) -> None:
    trail.fill(2000, per_batch=200)
    now_s = iter(range(10**6))
    made = trail.new_worker(monotonic_s=lambda: next(now_s))
    assert made.due_s == float("inf")
    job_table.add_job(
        trail.store.connection, PRUNE, {"before": dict.fromkeys(TYPES, 20 * DAY_NS)}, 1
    )
    made.poll()
    started_s = made.due_s
    made.step()  # it looks at the clock as it begins, and behind its one step
    assert made.due_s == started_s + 2 + 1


def test_the_head_of_the_store_is_on_disk(trail: Trail) -> None:
    """A step does not flush, so an anchor must not name it before the next flushed commit."""
    trail.commit([Event("login", 1, "1", b"\x80"), Event("login", 9, "1", b"\x80")])
    told = trail.store.head
    event_removal.Steps(trail.store, lambda: 1).remove("pruned", [1], {}, lambda _: None)
    assert trail.store.head == told
    trail.commit([Event("login", 9, "1", b"\x80")])
    assert (trail.store.head.batch, trail.store.head.events) == (told.batch + 2, told.events + 2)


def test_a_removed_list_beside_the_database_is_written_again(trail: Trail) -> None:
    trail.finish(trail.ask(FORGET, users=["3"]))
    listed = erasure_list.read_file(trail.list_file)
    assert len(listed) == 1
    trail.list_file.unlink()
    trail.new_worker()
    assert erasure_list.read_file(trail.list_file) == listed


def test_what_is_to_be_recorded_waits_for_no_other_job(trail: Trail) -> None:
    trail.fill(300)
    trail.ask(FORGET, users=["3"])
    trail.worker.step()
    trail.ask(job_table.RECORD, type="trail_exported", props={"user": "3"})
    exported = "SELECT count(*) FROM event WHERE type = (SELECT id FROM event_type WHERE name = ?)"
    assert trail.store.connection.execute(exported, ("trail_exported",)).fetchone() == (1,)
    assert trail.findings() == []


def test_quarantine_loses_its_excerpts_and_what_its_reasons_quote(trail: Trail) -> None:
    batch = Batch(100, 10**6)
    batch.add_quarantine(1, 2, "malformed: user 'anna': too long", b"anna")
    batch.add_quarantine(1, 2, "oversize datagram", b"anna")
    trail.store.commit(batch, 1)
    job = trail.finish(trail.ask(FORGET, users=["anna"]))
    rows = trail.store.connection.execute("SELECT reason, excerpt, bytes FROM quarantine")
    assert rows.fetchall() == [("malformed", b"", 4), ("oversize datagram", b"", 4)]
    assert job.outcome["quarantine"] == 2


def test_the_chained_record_of_an_erasure_does_not_name_the_person(trail: Trail) -> None:
    trail.fill(100)
    trail.commit([Event("login", 5, "anna-example", b"\x80")])
    trail.finish(trail.ask(FORGET, users=["anna-example"]))
    own = trail.store.connection.execute(
        "SELECT t.name, e.user, e.props FROM event e JOIN event_type t ON t.id = e.type"
        " WHERE t.name = 'person_erased' ORDER BY e.id"
    ).fetchall()
    assert [(kind, user) for kind, user, _ in own] == [("person_erased", None)] * 2
    assert all(b"anna" not in props for _, _, props in own)
    assert unpack_props(own[-1][2]) == {
        "job": 1, "done": True, "events": 1, "redacted": 0, "quarantine": 0,
    }  # fmt: skip


def test_a_person_is_forgotten_again_in_a_database_from_before(trail: Trail) -> None:
    trail.fill(300)
    backup = trail.path.with_name("backup")
    trail.store.connection.execute(f"VACUUM INTO '{backup}'")
    trail.finish(trail.ask(FORGET, users=["3"]))
    trail.store.close()
    for name in ("a.db-wal", "a.db-shm"):
        trail.path.with_name(name).unlink(missing_ok=True)
    backup.rename(trail.path)
    trail.open()
    trail.finish(1)
    left = trail.rows()
    assert set(left) == {n for n, event in trail.stored.items() if event.user != "3"}
    assert not any(unpack_props(e.props).get("params") == {"user": "3"} for e in left.values())
    assert trail.findings() == []
    trail.worker = trail.new_worker()
    assert job_table.next_job(trail.store.connection) is None  # once


def test_a_person_only_mentioned_is_forgotten_again_too(trail: Trail) -> None:
    trail.commit([Event("report_read", 3, "4", msgpack.packb({"user": "anna"}))])
    backup = trail.path.with_name("backup")
    trail.store.connection.execute(f"VACUUM INTO '{backup}'")
    trail.finish(trail.ask(FORGET, users=["anna"]))
    trail.store.close()
    backup.rename(trail.path)
    trail.open()
    trail.finish(1)
    assert unpack_props(trail.rows()[1].props) == {"user": "(erased)"}


def test_a_forget_finds_persons_under_the_keys_that_it_was_asked_with(trail: Trail) -> None:
    """The daemon may not have reloaded logd.toml since."""
    props = {"lent_to": "anna", "student": "anna"}
    trail.commit([Event("page_view", 3, "4", msgpack.packb(props))])
    job = trail.finish(trail.ask(FORGET, users=["anna"], keys=["lent_to"]))
    assert job.outcome["redacted"] == 1
    (event,) = trail.rows().values()
    assert unpack_props(event.props) == {"lent_to": "(erased)", "student": "anna"}
    # What arrives late, too: of a producer that is new, its claimed time decides.
    batch, producer = Batch(10, 10**6), Producer(uid=3, id=7, seed=producer_seed(7), taken=1)
    late = {"lent_to": "anna", "kid": "anna"}
    batch.add(producer, 1, Event("page_view", 3, "5", msgpack.packb(late)), 1)
    trail.store.commit(batch, 46 * DAY_NS)
    (event,) = (event for event in trail.rows().values() if event.user == "5")
    assert unpack_props(event.props) == {"lent_to": "(erased)", "kid": "anna"}
    assert trail.findings() == []
