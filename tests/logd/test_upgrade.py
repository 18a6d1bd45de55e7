"""A newer program over an older trail, and the other way round."""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgpack
import pytest

from logd import cli
from logd.audit.verify import verify
from logd.storage import keyfile, migration_progress
from logd.storage.database import connect
from logd.storage.migrations import MIGRATIONS, schema_version
from logd.storage.store import Store
from logd_wire.wire import Event
from tests.logd.older import older
from tests.logd.test_blocks import made_up
from tests.support.instance import Instance, check_streams, check_sums, emitters, until
from tests.support.progress import Progress

EVENTS = 20_000
FEW_EVENTS = 3_000
SUBJECTS_EVERY = 7
NEWEST = len(MIGRATIONS)
OLDER = range(1, NEWEST)
BY_STORING = range(1, [name for name, _ in MIGRATIONS].index("latest in time") + 1)


def mixed() -> Iterator[Event]:
    """Events that were not stored in order of time, with quizzes and tasks among them."""
    rng = random.Random(2)
    for number, event in enumerate(made_up()):
        if number % SUBJECTS_EVERY or event.user is None:
            yield event
            continue
        kind, props = rng.choice(
            [
                ("task_completed", {"task": rng.randrange(3)}),
                ("quiz_submitted", {"quiz": "q", "score": rng.random(), "attempt": number % 5}),
                ("quiz_submitted", {"quiz": rng.choice([None, 1]), "score": "none"}),
            ]
        )
        yield event._replace(type=kind, props=msgpack.packb(props))


def upgrade(instance: Instance, schema: int, events: int, emitted: int) -> float:
    """Starts the daemon on an older trail while two emitters emit; how many seconds until it was
    ready. Every sum is checked.
    """
    older(
        instance.config.database,
        keyfile.read(instance.config.key_file),
        schema,
        islice(mixed(), events),
    )
    assert f"whole: {events:,} events" in instance.cli("verify"), "before, too"
    with emitters(instance, count=2, events=emitted) as running:
        until(lambda: all(e.accepted for e in running), "events")
        began_s = time.monotonic()
        daemon = instance.start()
        took_s = time.monotonic() - began_s
        for emitter in running:
            emitter.finish()
        refused = sum(e.refused for e in running)
    said = f"bringing the database from schema {schema} to {NEWEST}"
    assert any(said in line for line in daemon.lines)
    status = instance.settle()
    accepted = events + 2 * emitted
    check_sums(status, attempted=accepted + refused, accepted=accepted, refused=refused)
    assert (status["stored"], status["lost"], status["schema"]) == (accepted, 0, NEWEST)
    assert f"whole: {accepted:,} events" in instance.cli("verify")
    return took_s


@pytest.mark.parametrize("schema", OLDER)
def test_an_older_trail_is_brought_up_to_date_and_what_comes_meanwhile_is_stored(
    instance: Instance, schema: int
) -> None:
    """Of more events than a block from the first schema; the long form does so from each."""
    stored = EVENTS if schema == 1 else FEW_EVENTS
    upgrade(instance, schema, stored, 2000)
    events = instance.events()
    streams = sorted(check_streams(events).values())
    assert streams[-1] == stored
    assert sum(streams) == stored + 2 * 2000, "in one ring each, or in a larger one as well"
    instance.stop()
    again = instance.start()
    assert not any("bringing" in line for line in again.lines), "once"


@pytest.mark.long(minutes=3)
def test_1000000_events_of_each_older_schema_are_brought_up_to_date(
    instance: Instance, progress: Progress
) -> None:
    for schema in progress(OLDER, "schemas"):
        took_s = upgrade(instance, schema, 1_000_000, 20_000)
        progress.note = f"from schema {schema} in {took_s:.1f} s"
        instance.stop()
        for path in instance.directory.glob("activity.db*"):
            path.unlink()


def killed_while_it_says(path: Path, key: bytes, number: int) -> bool:
    """Opens the database as a start does, in a fork that kills itself when it says so for the
    `number`th time how far it is; whether it came to that.
    """
    pid = os.fork()
    if pid == 0:

        class Dying(logging.Handler):
            said = 0

            def emit(self, record: logging.LogRecord) -> None:
                self.said += 1
                if self.said == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        logging.getLogger("logd").addHandler(Dying())
        logging.getLogger("logd").setLevel(logging.INFO)
        migration_progress.PROGRESS_INTERVAL_S = 0.0
        migration_progress.PROGRESS_STEPS = 5000
        try:
            Store(path, key, 2, 10)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.fixture(scope="module")
def key() -> bytes:
    return os.urandom(32)


@pytest.mark.parametrize("schema", [1, BY_STORING[-1]])  # before those that read all events
def test_killed_in_the_middle_of_it_the_next_start_brings_it_up_to_date(
    key: bytes, directory: Path, schema: int
) -> None:
    """At a later and later moment, until it is done before that."""
    path, kills, number = directory / "a.db", 0, 1
    older(path, key, schema, islice(mixed(), EVENTS))
    while killed_while_it_says(path, key, number):
        kills += 1
        number *= 2
        connection = connect(path, key, read_only=True)
        assert schema <= schema_version(connection) <= NEWEST
        verdict = verify(connection)
        assert (verdict.findings, verdict.events) == ([], EVENTS)
        connection.close()
    assert kills > 4
    store = Store(path, key, 3, 10)
    assert store.schema == NEWEST
    assert verify(store.connection).findings == []
    store.close()


@pytest.mark.parametrize("schema", BY_STORING)
def test_a_roll_up_by_storing_becomes_one_by_time_and_loses_nothing_of_events_not_there(
    key: bytes, directory: Path, schema: int
) -> None:
    """The row of "gone" has what a removed event had; no version of logd leaves such a row."""
    path, day = directory / "a.db", 86_400 * 10**9
    attempts = [
        (ts * day, msgpack.packb({"quiz": "q", "score": score, "attempt": attempt}))
        for ts, score, attempt in ((3, 0.5, 1), (5, 1.0, 2), (5, 0.25, 1), (1, 0.0, None))
    ]
    events = [Event("quiz_submitted", ts, u, p) for u in ("1", "gone") for ts, p in attempts]
    older(path, key, schema, events)
    columns = "user, events, first_ts_ns / 86400000000000, last_ts_ns / 86400000000000"
    select = f"SELECT {columns}, last_value, best_value FROM rollup_subject ORDER BY user"
    connection = connect(path, key)
    assert connection.execute(select).fetchone() == ("1", 4, 3, 1, 0.0, 1.0), "by storing"
    connection.execute(
        "UPDATE rollup_subject SET events = 5, first_ts_ns = 0, last_ts_ns = ?, last_value = 0.75"
        " WHERE user = 'gone'",
        (9 * day,),
    )
    connection.close()
    store = Store(path, key, 1, 10)
    assert store.connection.execute(select).fetchall() == [
        ("1", 4, 1, 5, 1.0, 1.0),
        ("gone", 5, 0, 9, 0.75, 1.0),
    ]
    store.close()


def test_a_trail_of_before_ids_gets_the_same_one_in_each_of_its_copies(
    key: bytes, directory: Path
) -> None:
    """A backup from before the migration continues the trail when it is restored."""

    def upgraded(name: str) -> str | None:
        store = Store(directory / name, key, 1, 10)
        store.close()
        return store.trail_id

    older(directory / "a.db", key, 1, islice(made_up(), 100))
    shutil.copy(directory / "a.db", directory / "b.db")
    ids = [upgraded(name) for name in ("a.db", "b.db", "new.db", "other.db")]
    assert ids[0] == ids[1]
    assert len({*ids}) == 3 and all(re.fullmatch("[0-9a-f]{16}", str(one)) for one in ids)
    assert upgraded("new.db") == ids[2], "it stays"


# They open no trail, or say of each thing how it stands and go on.
COMMANDS = {name for part in cli.SECTIONS.values() for name in part}
NEED_NONE = {"init", "genkey", "check", "metrics", "conformance"}
ARGUMENTS = {
    "forget": ("7", "--yes"),
    "person": ("7",),
    "restore": ("{newer}", "--yes"),
    "tail": ("-n", "1"),
    "prove": ("1",),
}


@pytest.mark.parametrize("command", sorted(COMMANDS - NEED_NONE))
def test_an_older_program_refuses_a_newer_trail_whatever_it_is_asked(
    instance: Instance, command: str
) -> None:
    with open(instance.config.path, "a") as file:
        file.write('retention.page_view = "1d"\n')
    database = instance.config.database
    instance.open_store().close()
    with instance.database() as connection:
        connection.execute("INSERT INTO migration VALUES (99, 'from the future', 1)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    newer = shutil.copy(database, instance.directory / "newer.db")
    before = database.read_bytes()
    arguments = [argument.format(newer=newer) for argument in ARGUMENTS.get(command, ())]
    said = instance.cli(command, *arguments, code=65)
    assert "schema 99" in said and "Install the newer logd" in said
    assert "Nothing was changed" in said
    assert database.read_bytes() == before
    names = {path.name for path in instance.directory.iterdir()}
    assert names <= {
        *(
            "logd.toml",
            "logd.key",
            "logd-signing.key",
            "logd.sock.outboxes",
            "newer.db",
            "newer.db-wal",
        ),
        *("activity.db", "activity.db-wal", "activity.db-shm", "activity.db.lock", "newer.db-shm"),
        "activity.db.runs",  # that the backup or prune failed
    }, "and nothing was left"
