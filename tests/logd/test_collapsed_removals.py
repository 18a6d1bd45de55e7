"""A removal whose batches are collapsed in part is verified by its hash, as before the collapse."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from logd.audit.verify import verify
from logd.maintenance import collapse, event_removal, worker
from logd.storage import removal_log
from logd.storage.database import Connection, connect
from logd.storage.job_table import PRUNE
from logd.storage.store import Store
from tests.logd.full_disk import full_disk
from tests.logd.made_up_trail import DAY_NS, KEY, TYPES, Trail
from tests.logd.test_collapse import ALL, fill, rows

pytestmark = pytest.mark.usefixtures("clocks_from_1970")

COLUMNS = "id, producer, sequence, ts_ns, type, user, props, salt"


@pytest.fixture
def partly(trail: Trail, directory: Path) -> Trail:
    """A trail with removals of which the first 256 batches are collapsed, and later ones are not.

    What it was before is in the file `before.db`.
    """
    fill(trail, 300)
    trail.store.truncate_wal()
    (directory / "before.db").write_bytes(trail.path.read_bytes())
    trail.finish(trail.ask(PRUNE, before=ALL))
    fill(trail, 5)
    assert trail.findings() == []
    waiting = "SELECT count(*) FROM removal WHERE waiting_events > 0 AND waiting_events < events"
    assert trail.store.connection.execute(waiting).fetchone()[0] >= 1
    assert rows(trail, "collapse") == 1
    return trail


def of_schema_11(connection: Connection) -> None:
    """Deletes what schema 11 would have deleted of each removal."""
    (first,) = connection.execute("SELECT min(first_event) FROM batch WHERE id > 256").fetchone()
    connection.execute(
        "UPDATE removal SET collapsed_events = waiting_events, waiting_events = 0"
        " WHERE waiting_events > 0"
    )
    connection.execute("DELETE FROM removed WHERE last < ?", (first,))
    connection.execute("UPDATE removed SET first = ?1 WHERE first < ?1", (first,))


def put_back(connection: Connection, before: Path, removal: int) -> int:
    """Puts an event of the removal back, from a copy of before; returns its id."""
    (event, last) = connection.execute(
        "SELECT first, last FROM removed WHERE removal = ? ORDER BY first DESC LIMIT 1", (removal,)
    ).fetchone()
    with closing(connect(before, KEY, read_only=True)) as copy:
        row = copy.execute(f"SELECT {COLUMNS} FROM event WHERE id = ?", (event,)).fetchone()
    connection.execute("DELETE FROM removed WHERE first = ?", (event,))
    if last > event:
        connection.execute("INSERT INTO removed VALUES (?, ?, ?)", (event + 1, last, removal))
    blobs = (bytearray(row[6]), bytearray(row[7]))
    connection.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row[:6], *blobs))
    return int(event)


def hide(connection: Connection, removal: int) -> None:
    """Removes the newest event of an application in the removal's name, with its hash kept."""
    (event,) = connection.execute(
        "SELECT max(first_event) FROM batch WHERE events > 1 AND id > 302"
    ).fetchone()
    row = event_removal._rows(connection, [event])
    names = event_removal._Names(connection)
    removal_log.keep_leaves(connection, {event: names.leaf(row[0])})
    connection.execute("DELETE FROM event WHERE id = ?", (event,))
    connection.execute("INSERT INTO removed VALUES (?, ?, ?)", (event, event, removal))


def move(connection: Connection) -> None:
    """Gives a run of one removal to another, and one of that to the first, of the same length."""
    for event, removal in connection.execute(
        "SELECT a.first, b.removal FROM removed a JOIN removed b ON a.last - a.first ="
        " b.last - b.first AND a.removal < b.removal ORDER BY a.first DESC LIMIT 1"
    ).fetchall():
        (of, other) = connection.execute(
            "SELECT a.removal, b.first FROM removed a JOIN removed b ON b.removal = ?"
            " AND a.last - a.first = b.last - b.first WHERE a.first = ?",
            (removal, event),
        ).fetchone()
        connection.execute("UPDATE removed SET removal = ? WHERE first = ?", (removal, event))
        connection.execute("UPDATE removed SET removal = ? WHERE first = ?", (of, other))
        return
    raise AssertionError("no two runs are of the same length")


def test_an_event_that_takes_the_place_of_a_removed_one_is_reported(
    partly: Trail, directory: Path
) -> None:
    """As many events are there and removed as before, and no hash of the tree changes."""
    connection = partly.store.connection
    (removal,) = connection.execute(
        "SELECT removal FROM removed ORDER BY first DESC LIMIT 1"
    ).fetchone()
    assert put_back(connection, directory / "before.db", removal) > 256
    hide(connection, removal)
    assert f"removal {removal}: what it took out was changed" in verify(connection).findings


def test_a_run_that_is_given_to_another_removal_is_reported(partly: Trail) -> None:
    move(partly.store.connection)
    findings = partly.findings()
    assert sum("what it took out was changed" in one for one in set(findings)) == 2, findings


@pytest.mark.parametrize("also", [lambda _: None, move])
def test_a_removal_that_was_not_collapsed_by_schema_11_cannot_be_said_to_be(
    partly: Trail, also: Callable[[Connection], None]
) -> None:
    connection = partly.store.connection
    of_schema_11(connection)
    also(connection)
    expected = "removals lack a part of their runs, collapse 1 recorded 0"
    assert any(expected in one for one in verify(connection).findings)


def test_removals_that_schema_11_collapsed_in_part_are_continued(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their number is recorded from then on; a removal that is complete lacks nothing."""
    fill(trail, 300)
    connection = trail.store.connection
    with monkeypatch.context() as former:
        former.setattr(collapse, "_delete_runs", lambda *_: iter(()))
        append = type(trail.store).append_internal_event

        def drop(store: Any, batch: Any, kind: str, props: dict[str, Any], now_ns: int) -> None:
            append(store, batch, kind, {k: v for k, v in props.items() if k != "former"}, now_ns)

        former.setattr(type(trail.store), "append_internal_event", drop)
        trail.finish(trail.ask(PRUNE, before=ALL))
    of_schema_11(connection)
    assert trail.findings() == []
    (partial,) = connection.execute(removal_log.COUNT_FORMER).fetchone()
    assert partial > 0
    fill(trail, 300)
    assert trail.findings() == []
    trail.finish(trail.ask(PRUNE, before={TYPES[0]: 45 * DAY_NS}))
    assert trail.findings() == []
    trail.finish(trail.ask(PRUNE, before=ALL))
    assert trail.findings() == []
    assert rows(trail, "collapse") > 1
    fill(trail, 300)
    trail.finish(trail.ask(PRUNE, before=ALL))
    assert trail.findings() == []
    assert connection.execute(removal_log.COUNT_FORMER).fetchone() == (0,)


def test_a_kill_while_runs_are_deleted_leaves_a_whole_trail(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every transaction of it is one state that a kill may leave."""
    monkeypatch.setattr(collapse, "REMOVALS_PER_PASS", 2)
    monkeypatch.setattr(collapse, "RUNS_PER_STEP", 50)
    monkeypatch.setattr(worker, "STEP_S", 1e-9)  # one step at a time
    monkeypatch.setattr(event_removal, "STEP_EVENTS_MAX", 60)
    monkeypatch.setattr(event_removal, "STEP_EVENTS_START", 60)
    fill(trail, 520)
    trail.worker = trail.new_worker()
    trail.finish(trail.ask(PRUNE, before=ALL))
    numbers = "SELECT count(*) FROM removal WHERE collapsed_events = events AND events > 0"
    before = trail.store.connection.execute(numbers).fetchone()[0]
    assert before > 3
    fill(trail, 300)
    job = trail.ask(PRUNE, before=ALL)
    found = 0
    while trail.job(job).finished_ns is None:
        trail.worker.step()
        if trail.store.connection.execute(numbers).fetchone()[0] > before + found:
            found += 1
            assert verify(trail.store.connection).findings == []
            trail.worker = trail.new_worker()
    assert found > 3
    assert trail.findings() == []


@pytest.mark.parametrize("step", ["_write", "_keep_as_number"])
def test_a_full_disk_during_a_collapse_leaves_nothing_half_and_it_is_tried_again(
    trail: Trail, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real, seen = getattr(collapse, step), list[list[Any]]()
    tables = ("batch", "node", "removed", "removal", "collapse", "event", "counter")

    def state() -> list[Any]:
        query = trail.store.connection.execute
        return [query(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables]

    def fill_up(store: Store, *arguments: Any) -> None:
        if seen:
            real(store, *arguments)
            return
        seen.append(state())
        with full_disk(store):
            real(store, *arguments)

    monkeypatch.setattr(collapse, step, fill_up)
    fill(trail, 300)
    trail.finish(trail.ask(PRUNE, before={}))
    job, troubles = trail.ask(PRUNE, before=ALL), 0
    while trail.job(job).finished_ns is None:
        trail.worker.step()
        if seen and trail.job(job).trouble is not None and not troubles:
            troubles += 1
            assert "no space left on the device" in str(trail.job(job).trouble)
            assert state() == seen[0]
            assert trail.findings() == []
        if step == "_keep_as_number" and trail.job(job).finished_ns is not None and not seen:
            fill(trail, 300)  # so that the last batches of its removals are in a complete tile
            job = trail.ask(PRUNE, before=ALL)
    assert (len(seen), troubles) == (1, 1)
    assert trail.job(job).trouble is None
    assert trail.findings() == []
    assert rows(trail, "collapse") >= 1
    counters = trail.counters()
    assert counters["stored"] == rows(trail, "event") + counters["pruned"]
