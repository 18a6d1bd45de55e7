"""Erasure by sequence: what was made before a forget goes, what was made after stays, whatever time
either claims.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logd.batch import Producer
from logd.ingest.drain import Datagram
from logd.ingest.open_outbox import OpenOutbox
from logd.maintenance import outbox_survey
from logd.maintenance.outbox_survey import directory_identity, survey
from logd.storage import erasure_list
from logd.storage.boundaries import (
    BOUNDARIES_MAX,
    Boundaries,
    Forget,
    SurveyedOutboxes,
    complete_forgets,
    load,
)
from logd.storage.store import Store
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    WORD_CONFIRMED_SEQUENCE,
    WORD_VERSION,
    WORD_WRITTEN,
)
from logd_wire.outbox.names import outbox_name
from logd_wire.wire import producer_seed
from tests.logd.forgetting_scene import ANNA, KEY, UID, Killed, Made, Scene, Source

FAR = 4 * 10**18


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> list[Scene]:
    """A directory for scenes, in which a producer lives as long as the scene decides."""
    made: list[Scene] = []
    monkeypatch.setattr(
        OpenOutbox, "alive", lambda outbox: any(scene.lives(outbox.name) for scene in made)
    )
    monkeypatch.setattr(outbox_survey, "PAGE_FILES", 2)
    return made


def run(scene: Scene, actions: int) -> Counter[str]:
    """Whatever a machine does, in an order that the seed decides."""
    rng = scene.rng
    for _ in range(rng.randrange(1, 4)):
        scene.new_source(outbox=rng.random() < 0.8)
    forgets_max = rng.choice((1, 1, 2, 4))
    scene.start()
    for _ in range(actions):
        scene.moment += 1
        roll = rng.random()
        if roll < 0.4 and (alive := [source for source in scene.sources if source.alive]):
            source = rng.choice(alive)
            for _ in range(rng.choice((1, 1, 5, 20))):
                scene.emit(source)
        elif roll < 0.45 and len(scene.sources) < 12:
            scene.new_source(outbox=rng.random() < 0.8)
        elif roll < 0.49:
            rng.choice(scene.sources).alive = False
        elif roll < 0.53 and len(scene.forgets) < forgets_max:
            scene.ask()
        elif roll < 0.56 and scene.store is not None:
            scene.end()
        elif scene.store is None and roll < 0.75:
            if scene.forgets and rng.random() < 0.6:
                scene.work_offline()
            else:
                scene.start()
        elif scene.delivery is not None:
            scene.turn()
        elif scene.store is not None:
            scene.work_offline()
    scene.moment += 1
    scene.settle()
    seen = scene.check()
    scene.check_nothing_is_kept()
    return seen


@pytest.mark.parametrize(
    "first",
    [0, *(pytest.param(at, marks=pytest.mark.long(minutes=0.1)) for at in range(8, 400, 8))],
)
def test_any_order_of_events_forgets_and_kills_erases_what_was_made_before_and_nothing_else(
    scenes: list[Scene], first: int
) -> None:
    seen: Counter[str] = Counter()
    for seed in range(first, first + 8):
        place = Path(tempfile.mkdtemp(prefix="logd-", dir="/dev/shm"))  # where a flush is quick
        scene = Scene(place, random.Random(seed))
        scenes.append(scene)
        try:
            seen += run(scene, 120)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        finally:
            scene.close()
            scenes.clear()
    assert seen["before"] > 50
    assert seen["after"] > 50


# -- the rules, one by one


def producer(row: int | None = None, *, key: int = 7, outbox: bool = True) -> Producer:
    return Producer(uid=UID, id=key, seed=producer_seed(key), row=row, has_outbox=outbox)


def forgets(*known: int | None, outboxes: str = "boot dir", surplus: int = -1) -> dict[int, Forget]:
    """One for each: up to which row producers were known."""
    return {
        number: Forget(number, rows, outboxes, frozenset({surplus}))
        for number, rows in enumerate(known, start=1)
    }


def test_a_boundary_parts_before_from_after_and_a_known_producer_without_one_is_past_it() -> None:
    there = Boundaries(forgets(5, 5), {(UID, 7): [(1, 10), (2, 20)]})
    known = producer(row=3)
    of_first = [there.is_before(known, sequence, 1) for sequence in (10, 11, 20, 21)]
    of_second = [there.is_before(known, sequence, 2) for sequence in (10, 11, 20, 21)]
    assert of_first == [True, False, False, False]
    assert of_second == [True, True, True, False]
    assert there.is_before(producer(row=3, key=8), 1, 1) is False
    assert there.is_before(producer(row=6, key=8), 1, 1) is None
    assert there.is_before(known, 1, 0) is None  # known from a list


def test_what_was_made_before_a_later_forget_only_is_not_known_of_an_earlier_one() -> None:
    there = Boundaries(forgets(None, None), {(UID, 7): [(2, 20)]})
    assert there.is_before(producer(row=3), 20, 1) is None
    assert there.is_before(producer(row=3), 21, 1) is False


def test_a_producer_past_the_last_forget_is_past_every_earlier_one() -> None:
    there = Boundaries(forgets(1, 5), {(UID, 8): [(2, 20)]})
    assert there.is_before(producer(row=3), 1, 1) is False
    late = producer(row=3, key=8)
    assert [there.is_before(late, sequence, 1) for sequence in (20, 21)] == [None, False]


def test_of_an_outbox_that_could_not_be_read_the_claimed_time_decides_until_it_can() -> None:
    there = Boundaries(forgets(5, 5), {(UID, 7): [(1, None), (2, 20)]})
    known = producer(row=3)
    assert there.is_before(known, 9, 1) is None
    assert [there.is_before(known, sequence, 2) for sequence in (20, 21)] == [True, False]
    assert there.is_past_all(known) is False


@pytest.mark.parametrize(
    ("listed", "now", "expected"),
    [
        ("boot dir", "boot dir", False),
        ("boot dir", "boot other", None),
        ("boot dir", "later-boot other", False),  # no file in memory outlives a boot
        ("", "boot dir", False),  # it was not there
        ("boot dir", "", None),
    ],
)
def test_a_producer_met_by_an_outbox_that_was_not_listed_made_everything_after(
    listed: str, now: str, expected: bool | None
) -> None:
    there = Boundaries(forgets(5, outboxes=listed), {})
    there.outboxes = now
    assert there.is_before(producer(), 1, 1) is expected
    assert there.is_before(producer(outbox=False), 1, 1) is None
    crowded = Boundaries(forgets(5, outboxes=listed, surplus=UID), {})
    crowded.outboxes = now
    assert crowded.is_before(producer(), 1, 1) is None
    assert crowded.is_before(producer(row=3), 1, 1) is None


@pytest.fixture
def store(directory: Path) -> Iterator[Store]:
    made = Store(directory / "a.db", KEY, 1, 10)
    yield made
    made.close()


def note(store: Store, seen: SurveyedOutboxes, *, complete: bool) -> None:
    there = load(store.connection)

    def act(connection: Any, _batch: object) -> None:
        there.record_forget(connection, seen, complete=complete)

    store.transact(act, 1)


def rows_after(store: Store, written: Iterable[int | None]) -> list[tuple[int, int | None]]:
    """Those of one producer, after a forget for each."""
    key = (UID, 7)
    for sequence in written:
        note(store, SurveyedOutboxes("b d", {key: sequence}, frozenset({key})), complete=False)
    return load(store.connection).rows[key]


def test_forgets_times_producers_is_bounded(store: Store) -> None:
    assert rows_after(store, [5] * 30) == [(1, 5), (30, 5)]
    many = rows_after(store, range(6, 60))
    assert len(many) == BOUNDARIES_MAX
    assert many[-1][1] == 59
    assert [boundary for _, boundary in many] == sorted(boundary or 0 for _, boundary in many)


def test_a_producer_whose_outbox_is_removed_before_a_later_forget_keeps_no_boundary(
    store: Store,
) -> None:
    rows_after(store, [5])
    note(store, SurveyedOutboxes("b d"), complete=True)
    assert load(store.connection).rows == {}


def test_a_forget_without_a_daemon_is_settled_once_and_drops_what_is_stored(store: Store) -> None:
    rows_after(store, [5])
    assert load(store.connection).has_incomplete
    complete_forgets(store.connection)
    assert not load(store.connection).has_incomplete
    assert load(store.connection).rows == {(UID, 7): [(1, 5)]}  # nothing of it is stored


# -- what the directory shows


def seen(scene: Scene, store: Store, *, known: bool = True) -> SurveyedOutboxes:
    looking = survey(scene.outboxes_path, store.connection, known=known)
    while True:
        try:
            next(looking)
        except StopIteration as end:
            found: SurveyedOutboxes = end.value
            return found


@pytest.fixture
def scene(directory: Path, scenes: list[Scene]) -> Iterator[Scene]:
    (directory / "s").mkdir()
    made = Scene(directory / "s", random.Random(1), kill=0)
    scenes.append(made)
    yield made
    made.close()


def made(scene: Scene, source: Source, *, user: str = ANNA, ts_ns: int = FAR) -> None:
    scene.moment += 1
    scene.make(source, Made(scene.moment, user, ts_ns, mention=False))


def patch(scene: Scene, source: Source, word: int, value: int) -> None:
    with (scene.outboxes_path / source.name).open("r+b") as file:
        file.seek(word * 8)
        file.write(value.to_bytes(8, sys.byteorder))


def test_each_outbox_is_seen_as_far_as_it_is_written_and_a_strangers_claims_are_not(
    scene: Scene, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, newer, absurd, absurd_too, empty = (scene.new_source(outbox=True) for _ in range(5))
    for source in (good, newer, absurd, absurd_too):
        made(scene, source)
    patch(scene, newer, WORD_VERSION, 2)
    patch(scene, absurd, WORD_WRITTEN, 2**62)
    patch(scene, absurd_too, WORD_CONFIRMED_SEQUENCE, 2**63)
    (scene.outboxes_path / outbox_name(UID + 1, 5)).write_bytes(b"x" * HEADER_BYTES)
    (scene.outboxes_path / outbox_name(UID, 6)).symlink_to("/etc/hostname")
    found = seen(scene, store)
    assert found.outboxes == directory_identity(scene.outboxes_path)
    unreadable = {(UID, source.id): None for source in (newer, absurd, absurd_too)}
    assert found.written == {(UID, good.id): 1, (UID, 6): None, **unreadable}
    assert (UID, empty.id) in found.keys and (UID + 1, 5) not in found.keys
    monkeypatch.setattr(outbox_survey, "FILES_PER_USER_MAX", 5)
    assert seen(scene, store).surplus == {UID}


def test_without_a_directory_nothing_is_seen_and_whatever_comes_later_came_after(
    directory: Path, store: Store
) -> None:
    looking = survey(directory / "nowhere", store.connection, known=True)
    with pytest.raises(StopIteration) as end:
        next(looking)
    assert end.value.value == SurveyedOutboxes()


# -- moments that a seed seldom finds


def offline(scene: Scene) -> None:
    while scene.forgets[-1].ended is None or scene.store is not None:
        scene.moment += 1
        scene.work_offline()


def test_killed_before_the_list_is_written_a_forget_resumes_with_the_same_boundary(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = scene.new_source(outbox=True)
    made(scene, source)
    scene.start()
    scene.end()
    scene.ask()
    with monkeypatch.context() as dying:

        def die(*_: object) -> None:
            raise Killed

        dying.setattr(erasure_list, "merge_file", die)
        scene.moment += 1
        scene.work_offline()
    assert scene.store is None
    scene.forgets[-1].ended = scene.moment  # its transaction is committed
    made(scene, source, ts_ns=0)
    scene.moment += 1
    scene.settle()
    assert scene.check() == {"before": 1, "after": 1}
    assert erasure_list.read_file(scene.directory / "forgotten")


def test_another_directory_in_its_place_leaves_it_to_the_claimed_time(scene: Scene) -> None:
    scene.start()
    scene.end()
    scene.ask()
    offline(scene)
    moved = scene.new_source(outbox=True)
    made(scene, moved, ts_ns=0)
    scene.start()
    assert scene.store is not None
    scene.store.erasure_list.boundaries.outboxes = "this-boot another"
    scene.store.connection.execute("UPDATE forget SET outboxes = 'this-boot the-first'")
    scene.store.reload_erasure_list()
    scene.settle()
    counters = dict(scene.store.connection.execute("SELECT name, value FROM counter").fetchall())
    assert counters["erased"] == 1


def test_after_a_forget_without_a_daemon_the_next_start_completes_it_for_producers_without_outbox(
    scene: Scene,
) -> None:
    source = scene.new_source(outbox=False)
    made(scene, source, user="bert")
    scene.start()
    scene.turn_all()
    scene.end()
    made(scene, source, ts_ns=0)  # waits in a socket that is held elsewhere
    scene.ask()
    offline(scene)
    scene.settle()
    assert scene.store is not None
    made(scene, source, ts_ns=0)  # made after, by a clock that was not set
    scene.settle()
    assert scene.check() == {"before": 1, "after": 1}


def test_events_already_queued_are_committed_before_a_later_flood_ends(
    scene: Scene,
) -> None:
    scene.start()
    assert scene.delivery is not None
    arrived = scene.delivery.mark_queue(30)
    flood: Datagram = (b"no datagram", UID, 1, False)
    taken = 0

    def endless() -> Iterator[Datagram]:
        nonlocal taken
        while True:
            taken += 1
            yield flood

    while not arrived():
        assert taken < 60
        scene.now_s += 1
        scene.delivery.step(endless(), set(), scene.now_s)
    assert taken >= 30
    assert not scene.delivery.mark_queue(30)()


def test_a_job_in_a_backup_that_its_list_knows_as_done_is_not_done_as_of_today(
    scene: Scene,
) -> None:
    source = scene.new_source(outbox=True)
    scene.start()
    scene.end()
    scene.ask()
    backup = scene.config.database.read_bytes()
    offline(scene)
    for suffix in ("-wal", "-shm"):
        scene.config.database.with_name(scene.config.database.name + suffix).unlink(missing_ok=True)
    made(scene, source, ts_ns=FAR)  # the person is back, by a clock that is right
    scene.config.database.write_bytes(backup)
    scene.settle()
    assert scene.store is not None
    ((until_ns, number),) = scene.store.connection.execute("SELECT until_ns, forget FROM forgotten")
    assert (until_ns, number) == (scene.forgets[0].asked_ns, 0)
    counters = dict(scene.store.connection.execute("SELECT name, value FROM counter").fetchall())
    assert counters.get("erased", 0) == 0


def test_a_longer_time_from_a_list_takes_the_sequences_from_an_entry(store: Store) -> None:
    there = store.erasure_list
    token = there.token(ANNA)
    erasure_list.save(store.connection, {token: 100}, 1)
    for until_ns, number in ((90, 1), (200, 0)):
        erasure_list.save(store.connection, {token: until_ns})
        assert store.connection.execute("SELECT until_ns, forget FROM forgotten").fetchone() == (
            max(100, until_ns), number,
        )  # fmt: skip


def test_the_list_of_a_database_of_an_earlier_schema_can_be_read(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a restore over one does not bring back whom it had forgotten."""
    from logd.storage import migrations

    with monkeypatch.context() as older:
        before = [name for name, _ in migrations.MIGRATIONS].index("boundaries of forgets")
        older.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:before])
        older.setattr(erasure_list, "load", lambda _: erasure_list.ErasureList(b"", {}))
        store = Store(directory / "a.db", KEY, 1, 10)
        store.connection.execute("INSERT INTO forgotten VALUES (x'00', 5)")
        assert erasure_list.entries(store.connection) == {b"\0": 5}
        store.close()
    store = Store(directory / "a.db", KEY, 1, 10)
    assert store.erasure_list.entries == {b"\0": 5}
    store.close()
