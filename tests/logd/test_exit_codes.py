"""Exit codes of every command in the worlds that it is run in.

1 means a changed trail or a failed check, and nothing else does.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logd.cli import main
from logd.commands._command import Command
from logd.errors import EXIT_OK, EXIT_USAGE
from logd.maintenance import new_instance
from logd_client import Client
from tests.faults.places import fill, small_disk
from tests.support import forked_cli
from tests.support.instance import Instance, check_sums, short_directory
from tests.support.namespaces import needs_users

# Arguments with which each command has something to do and prints something.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "tail": ("--lines", "100"),  # also the events of logd itself
    "person": ("Łukasz 李",),
    "forget": ("7", "--yes"),
    "backup": ("DIR/backup",),
    "restore": ("DIR/none", "--yes"),
    "conformance": ("DIR/none",),
    "init": ("DIR/new",),
    "prove": ("1",),
}
WITHOUT_CONFIG = ("init", "conformance")
READING = (
    *("query", "tail", "person", "status", "losses", "quarantine", "export", "verify"),
    *("checkpoint", "prove"),
)
# What they do alone: another daemon holds the lock.
ALONE = ("run", "rekey", "restore")
STRANGER, SERVICE = 1000, 65534
OWNERS = ("root", "service")
GONE = {"no key": "logd.key", "no database": "activity.db"}


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    forked_cli.load_commands()


@pytest.fixture(scope="module")
def stored() -> Iterator[Instance]:
    """An instance with three events and a running daemon, which no command here changes."""
    directory = short_directory()
    directory.chmod(0o755)
    instance = Instance(directory / "i")
    instance.start()
    with Client(instance.socket) as client:
        for _ in range(3):
            assert client.emit("page_view", user="Łukasz 李", props={"text": "naïve 😀"})
        assert client.flush(20)
    check_sums(instance.settle(), attempted=3, accepted=3)
    yield instance
    instance.close()
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def stopped() -> Iterator[Path]:
    """The directory of an instance whose daemon is not running."""
    directory = short_directory()
    instance = Instance(directory / "i")
    instance.start()
    with Client(instance.socket) as client:
        assert client.emit("page_view", user="Łukasz 李")
        assert client.flush(20)
    check_sums(instance.settle(), attempted=1, accepted=1)
    instance.stop()
    yield instance.directory
    instance.close()
    shutil.rmtree(directory)


def line(name: str, directory: Path) -> list[str]:
    """The command line of that command for the instance in that directory."""
    arguments = [part.replace("DIR", str(directory)) for part in ARGUMENTS.get(name, ())]
    if name in WITHOUT_CONFIG:
        return [name, *arguments]
    return [name, "--config", str(directory / "logd.toml"), *arguments]


def documented(name: str) -> set[int]:
    """The exit codes that the command's help names, and that of a wrong command line."""
    command = main.load_command(name)
    assert isinstance(command, Command)
    return {*command.exits, EXIT_USAGE}


def check(name: str, done: forked_cli.Done) -> None:
    """The code is one of the command's, and not 1, except of `check`; the error is no traceback."""
    assert "Traceback" not in done.stderr, (name, done)
    assert "internal error" not in done.stderr, (name, done)
    allowed = documented(name) if name == "check" else documented(name) - {1}
    assert done.code in allowed, (name, done)
    if done.code not in (EXIT_OK, EXIT_USAGE):
        assert sum(text.startswith("logd: ") for text in done.stderr.splitlines()) <= 2, done


@pytest.mark.parametrize("name", forked_cli.COMMANDS)
def test_a_full_or_closed_standard_output_is_75_or_74(name: str, stored: Instance) -> None:
    """A command that prints says so by its code; one that has another problem, by that one's."""
    usual = forked_cli.run(line(name, stored.directory))
    check(name, usual)
    if name in ALONE:
        assert usual.code == 75
    (stored.directory / "backup").unlink(missing_ok=True)
    shutil.rmtree(stored.directory / "new", ignore_errors=True)
    for stdout, code in (("/dev/full", 75), (None, 74)):
        done = forked_cli.run(line(name, stored.directory), stdout=stdout)
        check(name, done)
        if name in READING:
            assert done.code == code, (name, done)
            assert "standard output: " in done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
@pytest.mark.parametrize("name", READING)
def test_a_character_that_the_locale_lacks_is_escaped(
    name: str, encoding: str, stored: Instance, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.touch()
    done = forked_cli.run(line(name, stored.directory), stdout=str(out), encoding=encoding)
    assert done.code == EXIT_OK, done
    if name in ("query", "tail", "person"):
        assert "\\u0141ukasz" in out.read_text(encoding)


def test_json_lines_are_valid_in_any_locale(stored: Instance, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.touch()
    for encoding in ("ascii", "latin-1"):
        command = [*line("query", stored.directory), "--format", "jsonl"]
        assert forked_cli.run(command, stdout=str(out), encoding=encoding).code == EXIT_OK
        event = json.loads(out.read_text(encoding).splitlines()[0])
        assert (event["user"], event["props"]) == ("Łukasz 李", {"text": "naïve 😀"})


def test_an_error_that_nobody_foresaw_is_one_line_and_70(
    stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by a test")

    monkeypatch.setattr("logd.storage.opening.open_for_reading", fail)
    done = forked_cli.run(line("verify", stored.directory))
    assert done.code == 70
    assert len(done.stderr.splitlines()) == 1
    assert "internal error: ZeroDivisionError: by a test (test_exit_codes.py, line " in done.stderr
    monkeypatch.setenv("LOGD_TRACEBACK", "1")
    assert "Traceback" in forked_cli.run(line("verify", stored.directory)).stderr


@pytest.mark.parametrize(
    ("lacks", "code"), [("nothing", 0), ("logd.key", 77), ("activity.db", 65), ("both", 73)]
)
@pytest.mark.parametrize("name", [name for name in forked_cli.COMMANDS if name != "run"])
def test_without_daemon_key_or_database(
    name: str, lacks: str, code: int, stopped: Path, tmp_path: Path
) -> None:
    """`both`: a new instance, which has stored nothing yet."""
    directory = tmp_path / "i"
    if lacks == "both":
        new_instance.init(directory)
    else:
        shutil.copytree(stopped, directory, ignore=lambda _, names: {lacks} & set(names))
    done = forked_cli.run(line(name, directory))
    check(name, done)
    if name in READING and (name, lacks) != ("status", "both"):  # it shows what waits
        assert done.code == code, done


@needs_users
@pytest.mark.parametrize("name", sorted(set(forked_cli.COMMANDS) - {*WITHOUT_CONFIG, "genkey"}))
def test_without_permission_it_is_77_with_the_file_and_whom_to_be(
    name: str, stored: Instance
) -> None:
    folder = stored.directory
    os.chown(folder, SERVICE, SERVICE)
    folder.chmod(0o750)
    done = forked_cli.run(line(name, stored.directory), user=STRANGER)
    check(name, done)
    assert done.code == 77, done
    assert f"{folder} is " in done.stderr
    assert "join its group (`usermod -aG " in done.stderr
    # A member of the group gets at the folder, and is refused the key in it.
    done = forked_cli.run(line(name, stored.directory), user=STRANGER, groups=[SERVICE])
    check(name, done)
    if name not in ("check", "metrics", "prune"):  # which report what they cannot read
        assert done.code == 77, done
        assert "run it as root" in done.stderr


# As whom a command is run: the user, and the groups besides the user's own.
PEOPLE: dict[str, tuple[int | None, list[int]]] = {
    "root": (None, []),
    "service": (SERVICE, []),
    "member": (STRANGER, [SERVICE]),
    "stranger": (STRANGER, []),
}
WORLDS: dict[str, dict[str, Any]] = {
    "daemon down": {},
    "no key": {},
    "no database": {},
    "full disk": {},
    "closed stdout": {"stdout": None},
    "latin-1": {"encoding": "latin-1"},
}


@needs_users
@pytest.mark.long(minutes=1)
@pytest.mark.parametrize("people", PEOPLE)
@pytest.mark.parametrize("world", WORLDS)
def test_the_table_of_exit_codes_holds_for_everyone_in_every_world(
    world: str, people: str, stopped: Path, directory: Path
) -> None:
    """With the daemon up it is in the tests above."""
    user, groups = PEOPLE[people]
    directory.chmod(0o755)
    for name in forked_cli.COMMANDS:
        if name == "run" and world not in ("no key", "no database") and people in OWNERS:
            continue  # it would serve
        with small_disk(directory / name, kib=4096) as disk:
            place = disk / "i"
            shutil.copytree(stopped, place)
            for path in (disk, place, *place.iterdir()):
                os.chown(path, SERVICE, SERVICE)
            place.chmod(0o750)
            if world in GONE:
                (place / GONE[world]).unlink()
            if world == "full disk":
                fill(disk)
            done = forked_cli.run(line(name, place), user=user, groups=groups, **WORLDS[world])
            check(name, done)
            if people == "stranger" and name not in WITHOUT_CONFIG:
                assert done.code == 77, (name, done)
            elif people in OWNERS and name in READING:
                expected = {"no key": 77, "no database": 65, "closed stdout": 74}.get(world, 0)
                # A reader needs a file of its own beside the database.
                allowed = {expected, 75} if world == "full disk" else {expected}
                assert done.code in allowed, (name, done)
