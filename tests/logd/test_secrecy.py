"""Who cannot read: a thief of the disk, another program without the key, the web process."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import sqlcipher3

from tests.support.instance import ROOT, Instance, check_sums, until

MARK = "a-name-nobody-would-find-by-chance"


@pytest.fixture
def marked(instance: Instance) -> Instance:
    """An instance whose running daemon has stored events that hold the mark everywhere."""
    instance.start()
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\nfrom logd_client import Client\nc = Client(sys.argv[1])\n"
            "assert all(c.emit('page_view', user=sys.argv[2], props={sys.argv[2]: sys.argv[2]})"
            " for _ in range(500))\nassert c.flush(20)\n",
            instance.socket,
            MARK,
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    status = instance.settle()
    check_sums(status, attempted=500, accepted=500)
    assert status["stored"] == 500
    return instance


def test_no_file_on_a_disk_holds_plain_text_of_an_event(marked: Instance) -> None:
    """Neither beside a running daemon (its log included), nor after kill -9, nor after a stop."""

    def files_with_mark() -> list[str]:
        return [
            path.name
            for path in marked.directory.rglob("*")
            if path.is_file() and MARK.encode() in path.read_bytes()
        ]

    names = {path.name for path in marked.directory.iterdir()}
    assert "activity.db-wal" in names
    assert files_with_mark() == []
    assert marked.daemon is not None
    open_files = {
        os.path.realpath(fd)
        for fd in Path(f"/proc/{marked.daemon.popen.pid}/fd").iterdir()
        if os.path.realpath(fd).startswith("/")
    }
    on_disk = {name for name in open_files if not name.startswith(("/dev/", "/proc/"))}
    assert on_disk <= {str(path) for path in marked.directory.iterdir()}, "and nowhere else"
    marked.kill()
    assert files_with_mark() == []
    marked.start(loads_reports=True)
    marked.stop()
    assert files_with_mark() == []
    assert MARK in marked.cli("query", "--limit", "1"), "with the key it is there"


PAGE = 4096
LOG_HEADER, FRAME_HEADER = 32, 24  # of SQLite's log, in plain text in any case


def pages(database: Path) -> list[bytes]:
    """Every page of the database's file, and of its log if there is one."""
    data = database.read_bytes()
    found = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
    log = database.with_name(database.name + "-wal")
    if log.exists():
        frames, size = log.read_bytes()[LOG_HEADER:], FRAME_HEADER + PAGE
        found += [frames[at + FRAME_HEADER : at + size] for at in range(0, len(frames), size)]
    return found


def readable(database: Path) -> int:
    """Pages that are not random to the last byte: what is encrypted cannot be made shorter."""
    return sum(len(zlib.compress(page)) < len(page) for page in pages(database))


def test_without_the_key_no_sqlite_tool_opens_the_database(
    marked: Instance, directory: Path
) -> None:
    """Neither a running daemon's, with all of its events in the log, nor a stopped one's."""
    database = marked.config.database
    for state in ("running", "killed", "stopped"):
        if state == "killed":
            marked.kill()
        if state == "stopped":
            marked.start()
            marked.stop()
        log = database.with_name(database.name + "-wal")
        assert log.exists() == (state != "stopped")
        if log.exists():
            assert log.stat().st_size > 10 * PAGE, "the events are in there"
        assert readable(database) == 0, state
        copy = directory / f"{state}.db"
        for suffix in ("", "-wal"):
            file = database.with_name(database.name + suffix)
            if file.exists():
                shutil.copy(file, copy.with_name(copy.name + suffix))
        for module in (sqlite3, sqlcipher3):
            connection = module.connect(copy)
            with pytest.raises(module.DatabaseError, match="not a database"):
                connection.execute("SELECT * FROM sqlite_master").fetchall()
            connection.close()


def test_a_plain_database_and_a_plain_log_would_be_found_readable(directory: Path) -> None:
    """Otherwise the test above would prove nothing."""
    database = directory / "plain.db"
    connection = sqlite3.connect(database)
    connection.execute(f"PRAGMA page_size = {PAGE}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE event (user TEXT)")
    connection.commit()
    in_log = readable(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert in_log > 0 and readable(database) > 0
    connection.close()


def test_a_wrong_key_opens_nothing(marked: Instance) -> None:
    marked.stop()
    connection = sqlcipher3.connect(f"file:{marked.config.database}?mode=ro", uri=True)
    connection.execute(f"PRAGMA key = \"x'{'00' * 32}'\"")
    with pytest.raises(sqlcipher3.DatabaseError):
        connection.execute("SELECT * FROM sqlite_master").fetchall()
    connection.close()


def test_database_and_key_are_for_their_owner_alone(marked: Instance) -> None:
    modes = {p.name: p.stat().st_mode & 0o777 for p in marked.directory.iterdir()}
    private = {"activity.db", "activity.db-wal", "activity.db-shm", "activity.db.lock"}
    private |= {"logd.key", "logd-signing.key"}
    assert {name: modes[name] for name in private} == dict.fromkeys(private, 0o600)
    assert marked.directory.stat().st_mode & 0o777 == 0o700


def test_a_client_process_has_neither_key_nor_database_open(marked: Instance) -> None:
    """What /proc shows of it: its outbox, its socket, and nothing else of the instance."""
    client = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfrom logd_client import Client\nfrom logd_wire.query import QueryClient\n"
            "c = Client(sys.argv[1])\nc.emit('page_view')\nassert c.flush(20)\n"
            "q = QueryClient(sys.argv[2])\nassert q.ask('summary').rows\n"
            "print('ready', flush=True)\nsys.stdin.read()\n",
            marked.socket,
            str(marked.config.query_socket),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        opened = {os.readlink(fd) for fd in Path(f"/proc/{client.pid}/fd").iterdir()}
        maps = Path(f"/proc/{client.pid}/maps").read_text()
        for path in (marked.config.database, marked.config.key_file):
            assert not any(name.startswith(str(path)) for name in opened)
            assert str(path) not in maps
        assert any(name.startswith(str(marked.config.outbox_directory)) for name in opened)
    finally:
        client.communicate(timeout=30)


def test_the_report_process_ends_with_its_daemon_however_that_ends(marked: Instance) -> None:
    def children(pid: int) -> list[int]:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    assert marked.daemon is not None
    (reporter,) = children(marked.daemon.popen.pid)
    assert marked.daemon.popen.pid != reporter
    marked.daemon.popen.send_signal(signal.SIGKILL)
    until(lambda: not Path(f"/proc/{reporter}/cmdline").exists(), "the report process ends")
