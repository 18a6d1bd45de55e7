"""A full run shared among processes finds what one process finds, of one moment."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from logd.audit import verify_processes, verify_sequences
from logd.audit.recomputed import temporary
from logd.audit.verify_processes import Helpers
from logd.audit.verify_sequences import Sequences
from logd.batch import Batch, Producer
from logd.errors import EXIT_TEMPORARY
from logd_wire.wire import Event, producer_seed
from tests.logd.test_verify import original
from tests.support.instance import ROOT, Instance, check_sums, emitters

DAMAGED_PAGES = 8

__all__ = ["original"]  # a fixture


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_processes, "EVENTS_PER_PROCESS_MIN", 1)


def findings(said: str) -> list[str]:
    return [line for line in said.splitlines() if not line.startswith("took ")]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "UPDATE event SET user = 'mallory' WHERE id IN (5, 150, 290)",
        "DELETE FROM batch WHERE id = (SELECT max(id) / 2 FROM batch)",
        "UPDATE rollup_day SET events = events + 1; DELETE FROM event_block",
        "INSERT INTO event SELECT id + 1000, producer, 1, ts_ns, type, user, props, salt"
        " FROM event WHERE id = 1",
        "UPDATE event SET sequence = 1 WHERE id = 290",
        "UPDATE producer SET watermark = 5",
        "INSERT INTO loss SELECT 1, 2, 1, 5, 6, 'made up', 1",
        "INSERT INTO loss SELECT 1, 99, 1, 5, 6, 'made up', 1",
    ],
)
def test_more_processes_find_the_same(sql: str, stored: Instance) -> None:
    with stored.database() as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        for statement in sql.split(";"):
            connection.execute(statement)
    code = 0 if sql == "SELECT 1" else 1
    alone = stored.cli("verify", "--processes", "1", code=code)
    shared = stored.cli("verify", "--processes", "2", code=code)
    assert "by 1 process" in alone and "by 2 processes" in shared
    assert findings(alone) == findings(shared)


def test_a_process_that_is_ended_is_no_finding(
    stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Helpers.start

    def kill(helpers: Helpers, *values: object) -> None:
        helpers._processes[1].kill()
        helpers._processes[1].join()
        start(helpers, *values)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(Helpers, "start", kill)
    said = stored.cli("verify", "--processes", "2", code=EXIT_TEMPORARY)
    assert "not checked: a process of the verification was ended" in said


def test_processes_agree_on_a_moment_while_events_are_stored(instance: Instance) -> None:
    instance.start()
    with emitters(instance, count=2, events=3000) as running:
        for _ in range(4):
            assert "whole" in instance.cli("verify", "--processes", "2")
        for emitter in running:
            emitter.finish()
    refused = sum(emitter.refused for emitter in running)
    check_sums(instance.settle(), attempted=6000 + refused, accepted=6000, refused=refused)
    instance.stop()


@pytest.mark.parametrize("in_memory", [1, 100])
def test_sequences_are_compared_however_many_producers_there_are(
    in_memory: int, stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with producers in turn, when each event moves another one's row to the table."""
    monkeypatch.setattr(verify_sequences, "PRODUCERS_IN_MEMORY", in_memory)
    for order, expected in (
        ([(1, 1), (2, 1), (1, 2), (2, 2)], 0),
        ([(1, 1), (2, 1), (1, 3), (2, 2), (1, 2)], 1),
        ([(1, 5), (2, 1), (1, 5), (2, 2), (1, 6)], 0),  # twice, in order
    ):
        with stored.database() as connection, temporary(connection):
            sequences = Sequences(connection)
            for producer, sequence in order:
                sequences.add(producer, sequence)
            sequences.flush()
            assert sequences.disorder.events == expected
            assert bool(sequences.disorder.suspects) == (len(order) == 5)


def test_what_is_stored_twice_is_counted(stored: Instance) -> None:
    """In bounded memory: by a bitmap, of a few producers."""
    with stored.database() as connection:
        connection.execute("UPDATE event SET sequence = 2 WHERE id IN (1, 3, 4)")
    assert "3 sequences are stored twice" in stored.cli("verify", code=1)


MEASURE = """
import resource, sys
from contextlib import closing
from logd.audit.verify import verify
from logd.config import settings
from logd.storage.opening import open_for_reading
with closing(open_for_reading(settings.load(sys.argv[1]))) as connection:
    assert verify(connection).findings == []
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def most_memory_mib(instance: Instance) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(instance.config.path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((".", "shared"))},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_memory_does_not_grow_with_the_sums(instance: Instance) -> None:
    """A sum by day, a sum by subject and a producer for each event."""
    few, many = 2000, 62_000
    fill(instance, 1, few)
    before = most_memory_mib(instance)
    fill(instance, few + 1, many)
    assert most_memory_mib(instance) - before <= 24  # 75 of Python's own before


def fill(instance: Instance, first: int, last: int) -> None:
    store = instance.open_store()
    for start in range(first, last + 1, 2000):
        batch = Batch(4000, 10**9)
        for number in range(start, min(last + 1, start + 2000)):
            producer = Producer(uid=1, id=number, seed=producer_seed(number), taken=1, ended=True)
            event = Event("task_completed", number * 10**9, f"user-{number}", b"\x81\xa4task\x01")
            batch.add(producer, 1, event, 1)
        store.commit(batch, last * 10**9)
        batch.mark_committed()
    store.close()


def test_without_room_for_a_working_file_it_is_not_checked(
    stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(stored.directory / "none"))
    for processes in ("1", "2"):
        said = stored.cli("verify", "--processes", processes, code=EXIT_TEMPORARY)
        assert "not checked: no working file can be made" in said


def test_damage_is_found_by_several_processes_wherever_it_is(stored: Instance) -> None:
    path = stored.config.database
    content = path.read_bytes()
    pages = random.Random(16).sample(range(1, len(content) // 4096), DAMAGED_PAGES)
    for place in (4096 * page + 2000 for page in pages):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert "not whole" in stored.cli("verify", "--processes", "2", code=1), place
