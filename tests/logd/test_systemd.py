"""Notifications to systemd: ready, stopping, alive, status line; and levels for the journal."""

from __future__ import annotations

import logging
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd import log_format, systemd
from logd.storage import keyfile, migration_progress, migrations
from logd.storage.database import connect
from logd_wire.outbox.names import outbox_name
from tests.faults.faulty_disk import faulty_disk
from tests.support.instance import ROOT, Instance, check_sums, emitters, until

DEADLINE_S = 20.0
SILENCE_S = 0.8  # several times the interval at which these daemons have to say that they live
WATCHDOG_USEC = "400000"
MARK, END = "mark", "end"  # messages of the manager's own


class Manager:
    """The service manager's end of the notify socket.

    It reads all the time, as systemd does: the kernel keeps few datagrams (10 by default), and with
    that many unread the daemon waits for its manager, or drops what it repeats anyway.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notify"
        self.heard: list[str] = []
        self._unheard: queue.Queue[str] = queue.Queue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self.env = {"NOTIFY_SOCKET": str(self.path)}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while (said := self._socket.recv(4096).decode()) != END:
            self._unheard.put(said)

    def _send(self, text: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), str(self.path))

    def hear(self, timeout_s: float = DEADLINE_S) -> str | None:
        """The next message, or None when none has come by then."""
        try:
            said = self._unheard.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self.heard.append(said)
        return said

    def hears(self, text: str) -> str:
        """Waits for a message that begins so; the message."""
        end_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < end_s:
            said = self.hear()
            if said is not None and said.startswith(text):
                return said
        raise AssertionError(f"never said {text!r}, but {self.heard}")

    def drain(self) -> None:
        """Take the messages sent up to now."""
        self._send(MARK)
        self.hears(MARK)
        self.heard.pop()

    def close(self) -> None:
        self._send(END)
        self._reader.join()
        self._socket.close()


@pytest.fixture
def manager(directory: Path) -> Iterator[Manager]:
    made = Manager(directory)
    yield made
    made.close()


def test_systemd_is_notified_when_it_is_ready_and_when_it_stops(
    instance: Instance, manager: Manager
) -> None:
    instance.start(env=manager.env)
    assert manager.hear() == "READY=1"
    instance.stop()
    assert (
        manager.hears("STOPPING=1") == "STOPPING=1\nSTATUS=storing what has arrived, then stopping"
    )
    assert manager.hears("EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=70000000"
    assert not any("WATCHDOG" in said for said in manager.heard)  # nobody has asked for it


def test_its_status_tells_rate_backlog_and_losses(instance: Instance, manager: Manager) -> None:
    instance.start(env=manager.env)
    assert (
        manager.hears("STATUS=")
        == "STATUS=0 events/s, 0 events waiting, 0 events lost since the start"
    )
    with emitters(instance, count=1, events=500) as (emitter,):
        emitter.finish()
    check_sums(instance.settle(), attempted=500, accepted=500)
    said = manager.hears("STATUS=")
    assert said.endswith(" events/s, 0 events waiting, 0 events lost since the start")
    assert not said.startswith("STATUS=0 ")


def test_an_idle_night_feeds_the_watchdog_however_rarely_outboxes_are_looked_at(
    instance: Instance, manager: Manager
) -> None:
    instance.configure(look_interval_ms=60_000)
    instance.start(env=manager.env | {"WATCHDOG_USEC": WATCHDOG_USEC})
    for _ in range(5):
        manager.hears("WATCHDOG=1")


def test_a_watchdog_of_another_process_is_not_ours_to_feed(
    instance: Instance, manager: Manager
) -> None:
    others = {"WATCHDOG_USEC": WATCHDOG_USEC, "WATCHDOG_PID": str(os.getpid())}
    instance.start(env=manager.env | others)
    manager.hears("STATUS=")
    instance.stop()
    manager.drain()
    assert "WATCHDOG=1" not in manager.heard


def test_a_flush_that_hangs_feeds_no_watchdog(
    instance: Instance, directory: Path, manager: Manager
) -> None:
    with faulty_disk(directory) as disk:
        instance.start(env=manager.env | {"WATCHDOG_USEC": WATCHDOG_USEC} | disk.env)
        manager.hears("WATCHDOG=1")
        before = disk.flushes
        disk.slow_flushes(60_000)
        with emitters(instance, count=1, events=1) as (emitter,):
            emitter.finish()
            until(lambda: disk.flushes > before, "it is in the flush")
            manager.drain()
            assert manager.hear(SILENCE_S) is None, manager.heard
            instance.kill()
        disk.heal()
        instance.start()
    check_sums(instance.settle(), attempted=1, accepted=1)


def test_a_database_that_takes_nothing_is_no_hang_and_reported_in_the_status(
    instance: Instance, manager: Manager
) -> None:
    """As with a full disk: it keeps trying, and logs that."""
    instance.start(env=manager.env | {"WATCHDOG_USEC": WATCHDOG_USEC})
    connection = connect(instance.config.database, keyfile.read(instance.config.key_file))
    try:
        connection.execute("BEGIN IMMEDIATE")
        with emitters(instance, count=1, events=7) as (emitter,):
            emitter.finish()
        said = manager.hears("STATUS=nothing can be stored since 20")
        assert "locked by another program" in said and said.endswith("(7 events waiting)")
        manager.drain()
        for _ in range(3):
            manager.hears("WATCHDOG=1")
        connection.execute("ROLLBACK")
    finally:
        connection.close()
    check_sums(instance.settle(), attempted=7, accepted=7)
    while not manager.hears("STATUS=").endswith(" 0 events waiting, 0 events lost since the start"):
        pass


def test_what_is_sent_again_and_again_is_sent_at_a_bounded_rate(
    directory: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
    monkeypatch.setenv("WATCHDOG_USEC", "8000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    notifier = systemd.Notifier()
    assert notifier.interval_s == 2.0
    for turn in range(100):  # ten a second
        notifier.feed_watchdog(turn / 10)
        notifier.set_status(f"number {turn // 25}", turn / 10)
    manager.drain()
    assert manager.heard.count("WATCHDOG=1") == 5
    assert [said for said in manager.heard if said != "WATCHDOG=1"] == [
        f"STATUS=number {number}" for number in range(4)
    ]
    manager.heard.clear()
    for turn in range(100):
        notifier.set_status(f"ever new {turn}", 10 + turn / 10)
    manager.drain()
    assert len(manager.heard) == 10


def test_a_vacuum_is_no_hang_and_the_watchdog_is_extended(
    instance: Instance, manager: Manager
) -> None:
    instance.start(env=manager.env | {"WATCHDOG_USEC": WATCHDOG_USEC})
    instance.cli("forget", "7", "--yes")
    said = manager.hears("WATCHDOG_USEC=")
    assert int(said.split("\n")[0].split("=")[1]) >= 120 * 10**6
    assert said.endswith("\nWATCHDOG=1")
    assert manager.hears("WATCHDOG_USEC=") == f"WATCHDOG_USEC={WATCHDOG_USEC}\nWATCHDOG=1"


def test_without_a_manager_nothing_is_sent_and_nothing_breaks(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.send("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(directory / "nobody"))
    assert not systemd.send("READY=1")
    systemd.extend_timeout()
    for environ in ({}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}):
        assert systemd.watchdog_interval_s(environ) is None


def test_a_long_migration_asks_for_more_time(
    directory: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
    monkeypatch.setattr(migration_progress, "EXTEND_INTERVAL_S", 0)
    monkeypatch.setattr(migration_progress, "PROGRESS_STEPS", 1)
    connection = connect(directory / "a.db", os.urandom(32))
    try:
        migrations.migrate(connection, 1)
        assert manager.hear() == "EXTEND_TIMEOUT_USEC=120000000"
        assert manager.hear() == "STATUS=bringing the database up to date: schema 1: 1 of 16"
    finally:
        connection.close()


# -- the journal ---------------------------------------------------------------------------------

# As systemd does: its name for our stderr.
_IN_JOURNAL = (
    "sh", "-c", 'JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec "$@"', "sh",
)  # fmt: skip


def test_lines_have_levels_in_the_journal_and_warnings_are_troubles_only(
    instance: Instance,
) -> None:
    instance.daemon = daemon = instance.spawn(prefix=_IN_JOURNAL)
    until(lambda: daemon.says("<6>ready, pid"), "it is ready")
    (instance.config.outbox_directory / outbox_name(os.getuid(), 1)).write_bytes(b"no outbox")
    until(lambda: daemon.says("refused as an outbox"), "a trouble")
    assert instance.stop() == 0
    troubles = [line for line in daemon.lines if not line.startswith("<6>")]
    (trouble,) = troubles
    assert trouble.startswith("<4>") and "refused as an outbox" in trouble
    assert daemon.lines[-1] == "<6>stopped"


def test_what_ends_a_command_is_an_error_in_the_journal(directory: Path) -> None:
    command = [sys.executable, "-m", "logd", "run", "--config", str(directory / "logd.toml")]
    for prefix, begins in ((_IN_JOURNAL, "<3>"), ((), "logd: ")):
        done = subprocess.run(
            [*prefix, *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"{begins}{directory}/logd.toml: no such file")


def test_a_terminal_that_another_journal_stream_is_named_for_gets_no_levels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    assert not log_format.reads_stderr()


def test_each_line_of_a_long_message_has_its_level() -> None:
    assert log_format.format_line(logging.WARNING, "one\ntwo", journal=True) == "<4>one\n<4>two"
    assert log_format.format_line(logging.DEBUG, "", journal=True) == "<7>"
    assert log_format.format_line(logging.CRITICAL, "one", journal=True) == "<2>one"
    assert log_format.format_line(logging.WARNING, "one", journal=False) == "logd: one"
