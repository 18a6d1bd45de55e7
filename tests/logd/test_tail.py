"""`tail` and `query`: what they select, and what following survives."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.storage.migrations import MIGRATIONS, migrate
from tests.support.instance import ROOT, Instance, Process, check_sums, until

EMIT = """
import json, sys
from logd_client import Client
client = Client(sys.argv[1])
for number in json.loads(sys.argv[2]):
    assert client.emit("counted", user=str(number % 3), props=dict(n=number, even=number % 2 == 0))
assert sys.argv[3] == "leave" or client.flush(20)
"""


def emit(instance: Instance, *numbers: int, leave: bool = False) -> None:
    """Emits events and waits until they are stored, or leaves them in the outbox."""
    arguments = (instance.socket, json.dumps(numbers), "leave" if leave else "flush")
    subprocess.run([sys.executable, "-c", EMIT, *arguments], cwd=ROOT, check=True)


class Tail:
    """A running `logd tail --follow`; `numbers` are those of the events it has shown."""

    def __init__(self, instance: Instance, *options: str) -> None:
        command = ("-m", "logd", "tail", "--follow", "--json", *options)
        self.process = Process(*command, "--config", str(instance.config.path))
        self._shown = ""
        assert self.process.popen.stdout is not None
        os.set_blocking(self.process.popen.stdout.fileno(), False)

    @property
    def numbers(self) -> list[int]:
        assert self.process.popen.stdout is not None
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.process.popen.stdout.fileno(), 65536):
                self._shown += piece.decode()
        lines = self._shown.split("\n")[:-1]
        return [json.loads(line)["props"]["n"] for line in lines]

    def shows(self, *numbers: int) -> None:
        """Waits until it has shown these, all of them once and in this order, and no other."""
        until(lambda: len(self.numbers) >= len(numbers), f"{numbers} are shown")
        assert self.numbers == list(numbers)

    def close(self) -> None:
        self.process.close()


@contextlib.contextmanager
def tail(instance: Instance, *options: str) -> Iterator[Tail]:
    made = Tail(instance, *options)
    try:
        yield made
    finally:
        made.close()


def put_in_place(instance: Instance, new: Path) -> None:
    """As restore does: the new file is whole, then it takes the old one's name."""
    database = instance.config.database
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    new.replace(database)


def chosen(instance: Instance, *options: str) -> list[int]:
    return [event["props"]["n"] for event in instance.events(*options)]


# -- what is chosen --------------------------------------------------------------------------------


def test_several_types_and_users_are_any_of_them_and_properties_all_of_them(
    instance: Instance,
) -> None:
    instance.start()
    emit(instance, *range(10))
    assert chosen(instance, "--user", "0", "--user", "1") == [0, 1, 3, 4, 6, 7, 9]
    assert chosen(instance, "--type", "counted", "--type", "login", "--user", "2") == [2, 5, 8]
    assert chosen(instance, "--type", "login", "--type", "logout") == []
    assert chosen(instance, "--where", "even=true", "--user", "0") == [0, 6]
    assert chosen(instance, "--where", "even=true", "--where", "n=4") == [4]
    assert chosen(instance, "--where", "even=1") == []
    assert chosen(instance, "--where", "missing=null") == []
    assert chosen(instance, "--where", "even=false", "--limit", "2") == [7, 9]
    check_sums(instance.settle(), attempted=10, accepted=10)


def test_tail_chooses_as_query_does_and_speaks_json(instance: Instance) -> None:
    instance.start()
    emit(instance, *range(10))
    options = ("-n", "3", "--where", "even=true", "--since", "1h")
    lines = instance.cli("tail", "--json", *options).splitlines()
    assert lines == instance.cli("tail", "--format", "jsonl", *options).splitlines()
    assert [json.loads(line)["props"]["n"] for line in lines] == [4, 6, 8]
    assert instance.cli("tail", "--json", "-n", "0") == ""
    check_sums(instance.settle(), attempted=10, accepted=10)


@pytest.mark.parametrize("text", ["task", "=3", ""])
def test_an_invalid_property_is_refused_with_an_example(instance: Instance, text: str) -> None:
    assert "task=12" in instance.cli("query", "--where", text, code=2)


def test_following_shows_only_what_was_chosen(instance: Instance) -> None:
    instance.start()
    emit(instance, 1, 2, 3, 4)
    with tail(instance, "-n", "1", "--where", "even=true", "--user", "1", "--user", "2") as shown:
        shown.shows(4)
        emit(instance, 5, 6, 7, 8, 10)
        shown.shows(4, 8, 10)
    check_sums(instance.settle(), attempted=9, accepted=9)


# -- what following outlives -----------------------------------------------------------------------


def test_following_outlives_a_stop_a_kill_and_a_restart(instance: Instance) -> None:
    instance.start()
    emit(instance, 1)
    with tail(instance) as shown:
        shown.shows(1)
        instance.stop()
        emit(instance, 2, 3, leave=True)
        instance.start()
        shown.shows(1, 2, 3)
        emit(instance, 4)
        instance.kill()
        emit(instance, 5, leave=True)
        instance.start()
        emit(instance, 6)
        shown.shows(1, 2, 3, 4, 5, 6)
    check_sums(instance.settle(), attempted=6, accepted=6)


def test_following_waits_for_the_first_start(instance: Instance) -> None:
    with tail(instance) as shown:
        until(lambda: shown.process.says("waiting: "), "it says what it waits for")
        instance.start()
        emit(instance, 1)
        shown.shows(1)
    check_sums(instance.settle(), attempted=1, accepted=1)


def test_following_waits_for_the_schema_to_be_brought_up_to_date(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("logd.storage.migrations.MIGRATIONS", MIGRATIONS[:1])
        with instance.database() as connection:
            migrate(connection, 1)
    assert "schema 1" in instance.cli("tail", code=75)
    with tail(instance) as shown:
        until(lambda: shown.process.says("the database has schema 1"), "it says so")
        instance.start()
        emit(instance, 1)
        shown.shows(1)
    check_sums(instance.settle(), attempted=1, accepted=1)


def test_following_outlives_a_migration_by_a_newer_program(instance: Instance) -> None:
    """As far as what it reads is still there; it does not open a newer database again."""
    instance.start()
    emit(instance, 1)
    instance.stop()
    with tail(instance) as shown:
        shown.shows(1)
        emit(instance, 2, leave=True)
        instance.start()
        shown.shows(1, 2)
        check_sums(instance.settle(), attempted=2, accepted=2)
        instance.stop()
        with instance.database() as connection:
            connection.execute("CREATE TABLE of_the_future (x)")
            connection.execute(
                "INSERT INTO migration SELECT max(version) + 1, 'x', 1 FROM migration"
            )
            connection.execute(
                "INSERT INTO event SELECT id + 1, producer, sequence + 1, ts_ns, type, user, props,"
                " salt FROM event ORDER BY id DESC LIMIT 1"
            )
        shown.shows(1, 2, 2)
        copy = instance.config.database.with_name("copy")
        with instance.database() as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        put_in_place(instance, copy)
        assert shown.process.popen.wait(20) == 65
        assert shown.process.says("Install the newer logd")


def test_following_continues_in_a_trail_with_a_new_key(instance: Instance) -> None:
    instance.start()
    emit(instance, 1, 2)
    with tail(instance) as shown:
        shown.shows(1, 2)
        emit(instance, 3)
        instance.stop()
        new, new_key = instance.directory / "new.db", secrets.token_bytes(32)
        with instance.database() as connection:
            connection.execute("VACUUM INTO ?", (str(new),))
        with instance.database(new) as connection:
            connection.execute(f"PRAGMA rekey = \"x'{new_key.hex()}'\"")
        put_in_place(instance, new)
        until(lambda: shown.process.says("cannot be decrypted"), "the key is not there yet")
        instance.config.key_file.write_text(new_key.hex() + "\n")
        instance.start()
        emit(instance, 4)
        shown.shows(1, 2, 3, 4)
        assert not any("was replaced" in line for line in shown.process.lines)
    check_sums(instance.settle(), attempted=4, accepted=4)


def test_following_goes_on_in_a_restored_older_trail_from_where_the_two_differ(
    instance: Instance,
) -> None:
    instance.start()
    emit(instance, 1, 2)
    backup = instance.directory / "backup.db"
    with instance.database() as connection:
        connection.execute("VACUUM INTO ?", (str(backup),))
    emit(instance, 3, 4)
    with tail(instance) as shown:
        shown.shows(1, 2, 3, 4)
        check_sums(instance.settle(), attempted=4, accepted=4)
        instance.stop()
        put_in_place(instance, backup)
        instance.start()
        emit(instance, 5, 6, 7)
        shown.shows(1, 2, 3, 4, 5, 6, 7)
        assert shown.process.says("differs from event 3 on")


def test_ctrl_c_ends_it_cleanly(instance: Instance) -> None:
    instance.start()
    emit(instance, 1)
    with tail(instance) as shown:
        shown.shows(1)
        assert shown.process.end(signal.SIGINT) == 0
        assert shown.numbers == [1]
        assert [line for line in shown.process.lines if line] == []
    check_sums(instance.settle(), attempted=1, accepted=1)
