"""Boundaries of forgets: which sequences of a producer were made before, and the survey of outboxes
that finds them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from logd.batch import Producer
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
from logd.storage.database import connect
from logd.storage.migrations import MIGRATIONS
from logd.storage.store import Store
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    WORD_CONFIRMED_SEQUENCE,
    WORD_VERSION,
    WORD_WRITTEN,
)
from logd_wire.outbox.names import outbox_name
from logd_wire.wire import producer_seed
from tests.logd.forgetting_clients import ANNA, UID, Source
from tests.logd.forgetting_scene import KEY, Scene
from tests.logd.older import older


def producer(row: int | None = None, *, key: int = 7, outbox: bool = True) -> Producer:
    return Producer(uid=UID, id=key, seed=producer_seed(key), row=row, has_outbox=outbox)


def forgets(*known: int | None, outboxes: str = "boot dir", surplus: int = -1) -> dict[int, Forget]:
    """A forget for each row up to which producers were known."""
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
    """The boundaries of one producer after a forget at each of these sequences."""
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


def patch(scene: Scene, source: Source, word: int, value: int) -> None:
    with (scene.outboxes_path / source.name).open("r+b") as file:
        file.seek(word * 8)
        file.write(value.to_bytes(8, sys.byteorder))


def test_each_outbox_is_seen_as_far_as_it_is_written_and_a_strangers_claims_are_not(
    scene: Scene, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, newer, absurd, absurd_too, empty = (scene.new_source(outbox=True) for _ in range(5))
    for source in (good, newer, absurd, absurd_too):
        scene.make(source)
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


# -- the list


def test_a_longer_time_from_a_list_takes_the_sequences_from_an_entry(store: Store) -> None:
    there = store.erasure_list
    token = there.token(ANNA)
    erasure_list.save(store.connection, {token: 100}, 1)
    for until_ns, number in ((90, 1), (200, 0)):
        erasure_list.save(store.connection, {token: until_ns})
        assert store.connection.execute("SELECT until_ns, forget FROM forgotten").fetchone() == (
            max(100, until_ns), number,
        )  # fmt: skip


def test_the_list_of_a_database_of_an_earlier_schema_can_be_read(directory: Path) -> None:
    """A restore over such a database must not bring back the persons it had forgotten."""
    before = [name for name, _ in MIGRATIONS].index("boundaries of forgets")
    older(directory / "a.db", KEY, before, [])
    with closing(connect(directory / "a.db", KEY)) as connection:
        connection.execute("INSERT INTO forgotten VALUES (x'00', 5)")
        assert erasure_list.entries(connection) == {b"\0": 5}
    store = Store(directory / "a.db", KEY, 1, 10)
    assert store.erasure_list.entries == {b"\0": 5}
    store.close()
