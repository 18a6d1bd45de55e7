"""The values of blocks: bounded, those of the events and of no event that is gone, and made in
turn with everything else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.audit.verify import verify
from logd.errors import StorageBusy
from logd.maintenance.event_removal import Steps
from logd.maintenance.search_index import IDLE_S, NEW_EVENTS, RETRY_S, SHARE, SearchIndex
from logd.storage import block_values
from logd.storage.block_values import (
    BLOCK_BYTES_MAX,
    PATH_BYTES_MAX,
    PATHS_MAX,
    PERSONS,
    TEXTS,
    BlockValues,
    mask_of,
    mask_with,
)
from logd.storage.mentions import DEFAULT_KEYS, PersonKeys, is_person
from logd.storage.removal_log import ERASED, PRUNED
from logd.storage.time_blocks import BLOCK_EVENTS
from logd_wire.wire import Event
from tests.logd.test_reports import Trail
from tests.logd.test_search import index, made_up, put
from tests.support.instance import Instance, check_sums, emitters, until

PART = 256


@pytest.fixture
def trail(directory: Path) -> Iterator[Trail]:
    made = Trail(directory / "a.db")
    yield made
    made.store.close()


def values_of(*props: dict[str, Any]) -> BlockValues:
    values = BlockValues(DEFAULT_KEYS)
    values.add(0, [("t", msgpack.packb(one)) for one in props])
    return values


def rows(values: BlockValues) -> dict[str, block_values.ValueRow]:
    return {row.path: row for row in values.rows()}


# -- what a block's values are


def test_each_value_has_the_parts_that_have_it() -> None:
    values = BlockValues(DEFAULT_KEYS)
    values.add(0, [("login", msgpack.packb({"a": {"b": [1, "x"]}, "user": 7}))])
    values.add(63, [("logout", msgpack.packb({"a": {"b": 1.0}, "user": "7.0"}))])
    found = rows(values)
    b = found[".a.b"]
    assert [mask_of(b.entries, b.masks, one) for one in ("1", "x", "1.0", "true")] == [
        1, 1, 1 << 63, 0
    ]  # fmt: skip
    persons = found[PERSONS]
    assert mask_of(persons.entries, persons.masks, "7") == 1 | 1 << 63
    texts = found[TEXTS]
    for part, mask in (("LOG", 1 | 1 << 63), ("login", 1), ("x", 1), ("user", 1 | 1 << 63)):
        assert mask_with(texts.entries, texts.masks, part.casefold()) == mask, part
    assert mask_with(texts.entries, texts.masks, "nowhere") == 0


def test_a_repeated_key_of_earlier_versions_still_names_its_person() -> None:
    repeated = b"\x82" + (msgpack.packb("user") + msgpack.packb("hidden")) + (
        msgpack.packb("user") + msgpack.packb("shown")
    )  # fmt: skip
    nested = b"\x81" + msgpack.packb("m") + repeated
    for props in (repeated, nested):
        values = BlockValues(DEFAULT_KEYS)
        values.add(0, [("t", props)])
        persons = rows(values)[PERSONS]
        for name in ("hidden", "shown"):
            assert mask_of(persons.entries, persons.masks, name) == 1


@pytest.mark.parametrize("kind", ["values", "paths", "long keys", "persons", "wide", "characters"])
def test_whatever_clients_send_the_values_of_a_block_are_bounded(kind: str) -> None:
    rng = random.Random(3)

    def props(number: int) -> dict[str, Any]:
        if kind == "values":
            return {f"k{at}": f"{number}-{at}-{rng.random()}" for at in range(40)}
        if kind == "paths":
            return {f"k{number}_{at}": at for at in range(40)}
        if kind == "long keys":
            return {f"{number}{'k' * 3000}": 1, "d": {"e" * 200: {"f" * 200: number}}}
        if kind == "persons":
            return {"users": {f"user-{number}-{at}": at for at in range(60)}}
        if kind == "wide":
            return {f"k{at}": f"{'v' * 90}{number % 40}" for at in range(50)}
        return {"t": "".join(map(chr, rng.sample(range(0x4E00, 0x9FFF), 50)))}

    values = BlockValues(DEFAULT_KEYS)
    for part in range(3):
        values.add(part, [("t", msgpack.packb(props(part * PART + at))) for at in range(PART)])
    made = rows(values)
    listed = [row for path, row in made.items() if path not in (TEXTS, PERSONS)]
    assert (
        sum(len(row.entries) + len(row.masks) for row in listed)
        <= BLOCK_BYTES_MAX + 2 * PATHS_MAX * 9
    )
    assert len(listed) <= PATHS_MAX
    assert all(len(row.entries) + len(row.masks) <= PATH_BYTES_MAX + 9 for row in listed)
    assert len(made[PERSONS].entries) <= PATH_BYTES_MAX
    texts = made[TEXTS]
    assert len(texts.entries) + len(texts.masks) <= 2 * (BLOCK_BYTES_MAX + PATH_BYTES_MAX)
    assert len(texts.chars) <= block_values.CHARS_MAX
    if kind == "paths":
        assert values.more
    if kind == "characters":
        assert texts.chars == block_values.ANY_CHAR


# -- verify


TAMPERINGS = [
    "UPDATE block_value SET entries = x'00' || x'6100' WHERE path = '.route'",
    "UPDATE block_value SET masks = zeroblob(length(masks)) WHERE path = 'persons'",
    "UPDATE block_value SET chars = '' WHERE path = 'texts'",
    "UPDATE block_value SET open = 1 - open WHERE path = '.status'",
    "DELETE FROM block_value WHERE path = 'texts'",
    "INSERT INTO block_value VALUES ('.made.up', 0, 0, '', x'00', x'')",
    "INSERT INTO block_value VALUES ('.made.up', 9, 0, '', x'00', x'')",
    "UPDATE block_search SET more = 1 - more WHERE block = 0",
    "UPDATE block_search SET last = last + 1 WHERE block = 0",
    "UPDATE block_search SET last = 10 * 16384 WHERE block = 0",
    "UPDATE block_search SET keys = '[\"route\"]' WHERE block = 0",
    "UPDATE block_search SET keys = 'no list' WHERE block = 0",
    "DELETE FROM block_search WHERE block = 0",
]


@pytest.mark.parametrize("sql", TAMPERINGS)
def test_verify_finds_values_that_are_not_those_of_the_events(trail: Trail, sql: str) -> None:
    """Each could hide events from a search."""
    put(trail, list(islice(made_up(), 1000)))
    index(trail)
    connection = trail.store.connection
    assert verify(connection).findings == []
    connection.execute(sql)
    assert any("block_" in finding for finding in verify(connection).findings)


# -- what is gone is gone


def every_text(trail: Trail) -> str:
    found = trail.store.connection.execute(
        "SELECT path || chars || CAST(entries AS TEXT) || hex(entries) FROM block_value"
    )
    return "".join(text for (text,) in found)


def has(trail: Trail, word: str) -> bool:
    return word in every_text(trail) or word.encode().hex().upper() in every_text(trail)


@pytest.mark.parametrize("way", ["pruned", "erased", "redacted"])
def test_values_of_removed_events_are_gone_at_once_and_do_not_return(
    trail: Trail, way: str
) -> None:
    """Also if the block is being read just then."""
    events = list(islice(made_up(), 6000))
    events[100] = Event("login", 10**15, "zelda", msgpack.packb({"student": "zelda", "n": 1}))
    put(trail, events)
    reading = SearchIndex(trail.store)
    while reading.work():
        pass
    assert has(trail, "zelda") and verify(trail.store.connection).findings == []
    put(trail, list(islice(made_up(2), 3000)))
    for _ in range(5):
        assert reading.work()
    steps = Steps(trail.store)
    if way == "redacted":
        (props,) = trail.store.connection.execute(
            "SELECT props FROM event WHERE id = 101"
        ).fetchone()
        new = DEFAULT_KEYS.redact(props, is_person("zelda"))
        assert new is not None
        steps.redact({101: new}, lambda _: None)
    else:
        steps.remove(PRUNED if way == "pruned" else ERASED, [101], {}, lambda _: None)
    assert not has(trail, "zelda")
    while reading.work():
        assert not has(trail, "zelda")
    assert trail.store.connection.execute("SELECT count(*) FROM block_search").fetchone() == (1,)
    assert verify(trail.store.connection).findings == []


# -- in turn with everything else


def test_the_newest_block_is_read_first_and_the_others_once(trail: Trail) -> None:
    events = made_up()
    for _ in range(3):
        put(trail, list(islice(events, BLOCK_EVENTS)))
    work, order, steps = SearchIndex(trail.store), list[int](), 0
    while work.work():
        steps += 1
        done = {b for (b,) in trail.store.connection.execute("SELECT block FROM block_search")}
        order += sorted(done - set(order))
    assert order == [3, 2, 1, 0]  # ids begin with 1, so that the last event is in a fourth block
    assert steps <= 3 * (BLOCK_EVENTS // PART + 1) + 3, "each part is read once"
    put(trail, list(islice(events, NEW_EVENTS - 300)))
    assert not work.work(), "too few are new"
    put(trail, list(islice(events, 600)))
    steps = 0
    while work.work():
        steps += 1
    assert 0 < steps <= (NEW_EVENTS + 600) // PART + 2, "continued, not begun again"
    assert verify(trail.store.connection).findings == []


def test_a_step_reads_bounded_bytes(trail: Trail) -> None:
    """However large the events are: as much as a step of a job."""
    put(trail, [Event("login", 1, None, msgpack.packb({"n": n, "x": "x" * 30_000}))
                for n in range(600)])  # fmt: skip
    work, taken = SearchIndex(trail.store), []
    add = BlockValues.add

    def adding(self: BlockValues, number: int, events: Any) -> None:
        events = list(events)
        taken.append(sum(len(props) for _, props in events))
        add(self, number, events)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockValues, "add", adding)
        while work.work():
            pass
    assert max(taken) <= block_values.STEP_BYTES_MAX + 30_100
    assert sum(taken) > 500 * 30_000
    assert verify(trail.store.connection).findings == []


def test_a_new_process_reads_what_is_missing_and_other_person_keys_make_it_anew(
    trail: Trail,
) -> None:
    put(trail, list(islice(made_up(), 3000)))
    index(trail)
    assert not SearchIndex(trail.store).work()
    trail.store.person_keys = PersonKeys(["route"])
    assert SearchIndex(trail.store).work()
    index(trail)
    (row,) = trail.store.connection.execute(
        "SELECT entries FROM block_value WHERE path = ?", (PERSONS,)
    )
    assert b"\0/a\0" in row[0]
    assert verify(trail.store.connection).findings == []


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_it_takes_a_small_part_of_the_time_and_none_without_work(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(trail, list(islice(made_up(), 600)))
    clock = Clock()
    work = SearchIndex(trail.store, monotonic_s=clock)
    did = SearchIndex.work

    def slow(self: SearchIndex) -> bool:
        clock.now_s += 0.003
        return did(self)

    monkeypatch.setattr(SearchIndex, "work", slow)
    for _ in range(3):
        work.step()
        assert work.due_s - clock.now_s == pytest.approx(0.003 * (1 / SHARE - 1))
        clock.now_s = work.due_s
    work.step()
    assert work.due_s == clock.now_s + IDLE_S


def test_a_busy_disk_and_changed_data_end_no_daemon(
    trail: Trail, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(trail, list(islice(made_up(), 600)))
    work, clock = SearchIndex(trail.store, monotonic_s=Clock()), 100.0

    def busy(*_: object, **__: object) -> None:
        raise StorageBusy("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(trail.store, "transact", busy)
        for _ in range(5):
            work.step()
        assert work.due_s == clock + RETRY_S
    index(trail)
    block_values.forget(trail.store.connection, [0])
    trail.store.connection.execute("UPDATE event SET props = 5 WHERE id = 300")
    trail.store.connection.execute("PRAGMA foreign_keys = OFF")
    trail.store.connection.execute("UPDATE event SET type = 999 WHERE id = 200")
    work = SearchIndex(trail.store)
    for _ in range(5):
        work.step()
    assert work.due_s == float("inf")
    assert "see logd verify" in caplog.text
    page = trail.ask("events", props=["route=/"], text="PAGE_", about="4")
    assert page.next is None, "searches go on without"
    assert trail.ask("events", props=["route=/"], limit=5, since_ns=1, type="page_view").rows


def test_a_daemon_reads_blocks_beside_its_commits_and_after_a_kill(instance: Instance) -> None:
    """While a job removes events it waits, since that deletes what it has read."""
    instance.start()
    with emitters(instance, count=1, events=3000) as (emitter,):
        emitter.finish()
    last = "SELECT coalesce(max(last), 0) FROM block_search"

    def read_up_to() -> int:
        with instance.database(read_only=True) as connection:
            return int(connection.execute(last).fetchone()[0])

    until(lambda: read_up_to() >= 255, "a part is read")
    instance.kill()
    instance.start()
    with emitters(instance, count=1, events=3000) as (other,):
        other.finish()
    until(lambda: read_up_to() >= 3000, "more is read")
    instance.cli("forget", "7", "--yes")
    until(lambda: read_up_to() >= 3000, "it is read again")
    status = instance.settle()
    accepted, refused = emitter.accepted + other.accepted, emitter.refused + other.refused
    check_sums(status, attempted=accepted + refused, accepted=accepted, refused=refused)
    assert "whole" in instance.cli("verify")
