"""The nightly run finds what a full one finds: what is new at once, the rest in its turn."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logd.audit import page_check, proven
from logd.audit.proven import begin_cycle, from_json, next_part
from logd.audit.recomputed import temporary
from logd.audit.verify_part import PartVerifier
from logd.batch import Batch, Producer
from logd.storage.database import Connection
from logd.storage.job_table import FORGET, PRUNE
from logd.storage.last_verification import path_of, read_verification
from logd_wire.wire import Event, producer_seed
from tests.logd.made_up_trail import DAY_NS, KEY, TYPES, Trail
from tests.logd.test_verify import TAMPERINGS, original
from tests.support.instance import Instance

__all__ = ["original"]  # a fixture

PAGE_BYTES = 4096
PARTS = 3


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hundred events are three parts; and no process is started to read pages."""
    monkeypatch.setattr(proven, "EVENTS_PER_PART_MIN", 100)
    monkeypatch.setattr(page_check, "call_in_process", lambda function, *values: function(*values))


@pytest.fixture
def proven_trail(stored: Instance) -> Instance:
    assert "all is verified" in stored.cli("verify", "--incremental")
    return stored


def change(instance: Instance, sql: str) -> None:
    with instance.database() as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(sql)


def runs_until_found(instance: Instance) -> tuple[int, str]:
    """Runs the nightly run until it finds something; how many runs that took, and what it says."""
    for run in range(1, PARTS + 1):
        code, said = run_incremental(instance)
        if code == 1:
            return run, said
        assert code == 0, said
    raise AssertionError("a whole cycle has found nothing")


def run_incremental(instance: Instance) -> tuple[int, str]:
    try:
        return 0, instance.cli("verify", "--incremental")
    except AssertionError as error:
        return (1 if "not whole" in str(error) else 2), str(error)


def add_events(instance: Instance, count: int = 100) -> None:
    """What a daemon stores on a new day."""
    store = instance.open_store()
    batch = Batch(count, 10**9)
    producer = Producer(uid=1, id=77, seed=producer_seed(77))
    now_ns = 20_000 * DAY_NS
    for _ in range(count):
        producer.taken += 1
        batch.add(producer, producer.taken, Event("page_view", now_ns, "new", b"\x80"), 1)
    store.commit(batch, now_ns)
    store.close()


def test_a_whole_trail_stays_whole_through_the_cycles(proven_trail: Instance) -> None:
    before = read_verification(proven_trail.config.database)
    assert before is not None
    first = from_json(before.proven)
    assert first is not None
    seen = 0
    for run in range(2 * PARTS):
        said = proven_trail.cli("verify", "--incremental")
        assert f"part {run % PARTS + 1} of {PARTS}" in said
        kept = read_verification(proven_trail.config.database)
        assert kept is not None
        seen += kept.events if run < PARTS else 0
    assert seen == 300  # each event once in a cycle
    assert kept is not None
    last = from_json(kept.proven)
    assert last is not None
    assert last.since_ns > first.since_ns


@pytest.mark.parametrize(("sql", "expected"), TAMPERINGS)
def test_each_tampering_is_found_within_a_cycle(
    sql: str, expected: str, proven_trail: Instance
) -> None:
    change(proven_trail, sql)
    runs_until_found(proven_trail)
    # It is not forgotten the next night.
    said = proven_trail.cli("verify", "--incremental", code=1)
    assert "all is verified" in said and expected in said


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE event SET user = 'mallory' WHERE id = 350",
        "DELETE FROM event WHERE id = 350",
        "DELETE FROM event WHERE id > 350",
        "UPDATE batch SET stored_ns = 5 WHERE id = (SELECT max(id) FROM batch)",
        "UPDATE counter SET value = value + 1 WHERE name = 'stored'",
        "UPDATE rollup_day SET events = 7 WHERE user = 'new'",
        "DELETE FROM rollup_day WHERE user = 'new'",
        "INSERT INTO rollup_day SELECT type, day, 'made up', 5 FROM rollup_day WHERE user = 'new'",
        "UPDATE event_block SET last_ts_ns = last_ts_ns + 1 WHERE block = 0",
        "UPDATE event_type SET events = events + 1 WHERE id = 1",
        "UPDATE producer SET watermark = 5 WHERE id = (SELECT max(id) FROM producer)",
    ],
)
def test_a_change_of_what_is_new_is_found_at_once(sql: str, proven_trail: Instance) -> None:
    add_events(proven_trail)
    change(proven_trail, sql)
    assert runs_until_found(proven_trail)[0] == 1


def test_one_changed_byte_anywhere_is_found_within_a_cycle(proven_trail: Instance) -> None:
    path, state = proven_trail.config.database, path_of(proven_trail.config.database)
    kept, numbers = state.read_bytes(), random.Random(15)
    for _ in range(50):
        place = numbers.randrange(PAGE_BYTES, path.stat().st_size)
        flip(path, place)
        runs_until_found(proven_trail)
        flip(path, place)
        state.write_bytes(kept)
    assert "part 1 of" in proven_trail.cli("verify", "--incremental")


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_pages_are_read_in_a_process_of_their_own(
    proven_trail: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert "part 1 of" in proven_trail.cli("verify", "--incremental")


def replaced(instance: Instance) -> None:
    """Another trail in the database's place, with as many batches."""
    change(instance, "UPDATE batch SET hash = zeroblob(32) WHERE id = (SELECT max(id) FROM batch)")


def forged(instance: Instance) -> None:
    path_of(instance.config.database).write_text('{"proven": 5}')


def torn(instance: Instance) -> None:
    state = path_of(instance.config.database)
    state.write_bytes(state.read_bytes().replace(b'"part": 0', b'"part": -1'))


@pytest.mark.parametrize(("damage", "code"), [(replaced, 1), (forged, 0), (torn, 0)])
def test_without_a_state_of_this_trail_all_is_verified(
    damage: Callable[[Instance], None], code: int, proven_trail: Instance
) -> None:
    damage(proven_trail)
    assert "all is verified" in proven_trail.cli("verify", "--incremental", code=code)


def cycle(connection: Connection, state: proven.Proven) -> Iterator[Any]:
    for _ in range(state.parts):
        with temporary(connection):
            verifier = PartVerifier(connection, KEY, lambda _events: None, state, 2)
            verdict, done = verifier.run()
        yield verdict
        state = done.next


@pytest.mark.usefixtures("clocks_from_1970")
@pytest.mark.parametrize("seed", range(4))
def test_removed_and_redacted_events_verify_by_parts(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    trail = Trail(tmp_path, rng)
    trail.fill(900)
    connection = trail.store.connection
    begun = begin_cycle(connection, 1)
    assert begun.parts > PARTS
    trail.finish(trail.ask(FORGET, users=["3"]))
    trail.fill(200)
    trail.finish(trail.ask(PRUNE, before=dict.fromkeys(TYPES, 10 * DAY_NS)))
    for verdict in cycle(connection, begun):
        assert verdict.findings == []
    for verdict in cycle(connection, begin_cycle(connection, 1)):
        assert verdict.findings == []
    trail.store.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE removal SET hash = zeroblob(32) WHERE id = 1",
        "DELETE FROM removal WHERE id = 1",
        "UPDATE removed SET last = last + 1 WHERE first = (SELECT min(first) FROM removed)",
        "UPDATE redacted SET hash = zeroblob(32)",
        "UPDATE leaf SET hash = zeroblob(32)",
        "DELETE FROM rollup_subject WHERE user = '1'",
        "UPDATE rollup_subject SET best_value = 9 WHERE user = '2'",
        "UPDATE rollup_day SET events = 99 WHERE day = 29",
        "DELETE FROM rollup_day WHERE day < 20",
    ],
)
def test_tampering_with_what_is_kept_is_found_within_a_cycle(sql: str, tmp_path: Path) -> None:
    trail = Trail(tmp_path, random.Random(3))
    trail.fill(900)
    trail.finish(trail.ask(FORGET, users=["3"]))
    connection = trail.store.connection
    state = begin_cycle(connection, 1)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute(sql)
    assert any(verdict.findings for verdict in cycle(connection, state))
    trail.store.close()


def test_parts_leave_nothing_out(tmp_path: Path) -> None:
    trail = Trail(tmp_path, random.Random(1))
    trail.fill(1000)
    connection = trail.store.connection
    state = begin_cycle(connection, 1)
    batches, pages, until = 0, 0, state.day_position
    for _ in range(state.parts):
        part = next_part(connection, state)
        assert part.batches.after == batches
        batches, pages = part.batches.upto, part.page
        state = proven.advance(state, part)
        until = part.day
    assert (batches, until) == (state.cycle_batch, None)
    assert pages == connection.execute("PRAGMA page_count").fetchone()[0]
    trail.store.close()
