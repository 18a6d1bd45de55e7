"""Helpers for tests of anchors: log lines with them, a journal of them, trails that change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logd.audit.anchors import Anchor, parse
from logd.storage.database import Connection
from logd.storage.trail_id import read_trail_id
from logd_wire.schema import INT64_MAX
from tests.logd.trails import emit
from tests.support.instance import Instance, check_sums, short_directory

DAYS = 3


def anchors_in(lines: list[str]) -> list[str]:
    return [line for line in lines if "anchor batch=" in line]


def entries(lines: list[str], unit: str) -> list[str]:
    """Lines as `journalctl` prints them in JSON."""
    return [
        json.dumps(
            {
                "MESSAGE": line,
                "_SYSTEMD_UNIT": unit,
                "__REALTIME_TIMESTAMP": str(1_700_000_000_000_000 + n),
            }
        )
        for n, line in enumerate(lines)
    ]


def journal(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, lines: list[str], end: str = "exit 0"
) -> Path:
    """Puts a program in the place of `journalctl` that prints these lines for any arguments."""
    programs = instance.directory / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "lines").write_text("".join(f"{line}\n" for line in lines))
    program = programs / "journalctl"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >{programs}/asked\ncat {programs}/lines\n{end}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return programs / "asked"


def change(instance: Instance, work: Callable[[Connection], object]) -> None:
    """Changes the database with its key."""
    with instance.database() as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        work(connection)


def batch_id(instance: Instance, last_event: int = INT64_MAX) -> int:
    """The last batch that begins with that event or an earlier one; the last of all without."""
    with instance.database(read_only=True) as connection:
        rows = connection.execute("SELECT max(id) FROM batch WHERE first_event <= ?", (last_event,))
        return int(rows.fetchone()[0])


def logged_anchors(instance: Instance) -> list[Anchor]:
    """The anchors that the daemons logged at each start and stop."""
    said = map(parse, (instance.directory / "anchors.log").read_text().splitlines())
    return [anchor for anchor in said if anchor is not None]


def first_of_day_3(instance: Instance) -> int:
    """The first batch after the anchor at the start of the third day."""
    return logged_anchors(instance)[-2].head.batch + 1


def trail_id(instance: Instance) -> str:
    with instance.database(read_only=True) as connection:
        return str(read_trail_id(connection))


def begin_new_trail(instance: Instance) -> str:
    """Begins a new trail as its message advises; returns the id of the former one."""
    former = trail_id(instance)
    for path in instance.directory.glob("activity.db*"):
        if path.name != "activity.db.verified":
            path.unlink()
    run_for_a_day(instance, "new")
    run_for_a_day(instance, "new again")
    assert trail_id(instance) != former
    return former


def restore(instance: Instance) -> None:
    instance.cli("restore", str(instance.directory / "day1.db"), "--yes")


def run_for_a_day(instance: Instance, user: str) -> None:
    """Starts the daemon, stores an event, stops it; its anchors are added to the others."""
    daemon = instance.start()
    emit(instance, user, 1)
    instance.stop()
    with open(instance.directory / "anchors.log", "a") as log:
        log.write("\n".join(daemon.lines) + "\n")


def look_in_file(instance: Instance, code: int) -> str:
    return instance.cli("verify", "--anchors", str(instance.directory / "anchors.log"), code=code)


@pytest.fixture(scope="module")
def original() -> Iterator[Path]:
    """An instance of three days, each a start, some events and a stop. Their log lines are
    in anchors.log, and there is a backup of the first day.
    """
    directory = short_directory()
    instance = Instance(directory / "i")
    try:
        said: list[str] = []
        for day in range(1, DAYS + 1):
            daemon = instance.start()
            for user in "abc":
                emit(instance, f"{user}{day}", 20)
            instance.stop()
            said += daemon.lines
            if day == 1:
                instance.cli("backup", str(instance.directory / "day1.db"))
        check_sums(instance.status(), attempted=60 * DAYS, accepted=60 * DAYS)
        (instance.directory / "anchors.log").write_text("\n".join(said) + "\n")
        yield instance.directory
    finally:
        instance.close()
        shutil.rmtree(directory)
