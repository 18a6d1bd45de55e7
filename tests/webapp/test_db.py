"""The site's own database: key, schema and connections."""

from __future__ import annotations

import gc
import os
import sqlite3
import stat
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeGuard
from unittest import mock

import click
import pytest
from flask import Flask
from sqlcipher3 import dbapi2 as sqlcipher

from tests.webapp.browser import Browser
from tests.webapp.conftest import MakeApp, database, fill
from tests.webapp.flask_apps import Clients
from webapp.classroom import wsgi
from webapp.classroom.store import db as db_module
from webapp.classroom.store.db import Database
from webapp.classroom.store.instance import Instance
from webapp.classroom.store.schema import MIGRATIONS


@pytest.fixture
def site(app: Flask) -> Instance:
    return database(app).instance


def test_a_fresh_directory_is_filled_and_its_secrets_are_private(site: Instance) -> None:
    assert stat.S_IMODE(site.directory.stat().st_mode) == 0o700
    for key in (site.database_key, site.secret_key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert site.database_key.read_text() != site.secret_key.read_text()
    assert not list(site.directory.glob(".*"))


def test_without_the_key_no_sqlite_tool_reads_the_file(app: Flask, site: Instance) -> None:
    database(app).close()
    plain = sqlite3.connect(site.database)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        plain.execute("SELECT * FROM users")
    plain.close()
    assert b"Noor" not in site.database.read_bytes()


def test_the_key_is_used_raw(app: Flask, site: Instance) -> None:
    """With a passphrase the number of derivation rounds would change the key."""
    connection = sqlcipher.connect(str(site.database))
    key = site.database_key.read_text().strip()
    connection.execute(f"PRAGMA key = \"x'{key}'\"")
    connection.execute("PRAGMA kdf_iter = 1")
    assert connection.execute("SELECT count(*) FROM users").fetchone()[0] == 4
    connection.close()


def test_the_site_s_database_has_its_pragmas(app: Flask) -> None:
    """A temporary file would store names and marks in plain text."""
    with database(app).transaction() as connection:
        found = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("temp_store", "foreign_keys", "journal_mode", "cipher_use_hmac")
        }
    assert found == {
        "temp_store": 2, "foreign_keys": 1, "journal_mode": "wal", "cipher_use_hmac": "1",
    }  # fmt: skip


def test_a_request_opens_no_database_after_the_first(student: Browser) -> None:
    with mock.patch.object(Database, "_open", side_effect=AssertionError("opened again")):
        for path in ("/courses/", "/courses/data", "/results"):
            assert student.get(path).status_code == 200


def message(make_app: MakeApp) -> str:
    """Returns the message that is printed when the site cannot start."""
    with pytest.raises(click.ClickException) as caught:
        make_app()
    return caught.value.format_message()


def test_a_wrong_key_is_reported_once(
    app: Flask, site: Instance, make_app: MakeApp, capfd: pytest.CaptureFixture[str]
) -> None:
    database(app).close()
    site.database_key.write_text("0" * 64)
    text = message(make_app)
    assert capfd.readouterr() == ("", "")
    assert str(site.database) in text
    assert "the key is wrong, or the file is damaged" in text


def test_a_damaged_file_is_reported(app: Flask, site: Instance, make_app: MakeApp) -> None:
    database(app).close()
    damaged = bytearray(site.database.read_bytes())
    damaged[100:200] = bytes(100)
    site.database.write_bytes(damaged)
    assert "the file is damaged" in message(make_app)


def test_a_missing_key_is_not_replaced_beside_a_database(site: Instance, make_app: MakeApp) -> None:
    site.database_key.unlink()
    assert f"The key file {site.database_key} is missing" in message(make_app)
    assert not site.database_key.exists()


@pytest.mark.parametrize("name", ["database_key", "secret_key"])
def test_a_key_that_others_can_read_is_refused(
    site: Instance, make_app: MakeApp, name: str
) -> None:
    path: Path = getattr(site, name)
    path.chmod(0o644)
    text = message(make_app)
    assert "is readable by other users (mode 0644)" in text
    assert f"chmod 600 {path}" in text


@pytest.mark.parametrize("content", ["", "x" * 64, "ab", "é" * 64])
def test_a_key_file_without_a_key_is_refused(
    site: Instance, make_app: MakeApp, content: str
) -> None:
    site.database_key.write_text(content, encoding="utf-8")
    assert str(site.database_key) in message(make_app)


def test_a_directory_that_is_a_file_is_refused(make_app: MakeApp, directory: Path) -> None:
    (directory / "site").write_text("not a directory")
    assert "cannot be used" in message(make_app)


def test_a_lost_session_secret_requires_only_a_new_login(site: Instance, make_app: MakeApp) -> None:
    site.secret_key.unlink()
    assert Browser(make_app()).log_in("student").status_code == 302


def test_a_database_of_a_newer_version_is_refused(
    app: Flask, site: Instance, make_app: MakeApp
) -> None:
    newer = len(MIGRATIONS) + 1
    with database(app).transaction() as connection:
        connection.execute("INSERT INTO migrations VALUES (?, 'from the future')", (newer,))
    assert f"has schema {newer}, newer than" in message(make_app)


def test_a_migration_that_fails_leaves_nothing_behind(
    app: Flask, site: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ("broken", "CREATE TABLE half (x) STRICT; CREATE TABLE users (x);")
    monkeypatch.setattr(db_module, "MIGRATIONS", (*MIGRATIONS, broken))
    db = Database(site)
    with pytest.raises(click.ClickException):
        db.migrate()
    names = {name for (name,) in db.connection().execute("SELECT name FROM sqlite_master")}
    assert "half" not in names
    (number,) = db.connection().execute("SELECT max(number) FROM migrations").fetchone()
    assert number == len(MIGRATIONS)


def test_workers_that_start_together_agree_on_keys_and_schema(directory: Path) -> None:
    start = threading.Barrier(4)

    def worker() -> tuple[str, str]:
        instance = Instance(directory / "new")
        start.wait()
        with instance.prepared():
            db = Database(instance)
            db.migrate()
            db.close()
        return instance.read_database_key(), instance.secret_key.read_text()

    with ThreadPoolExecutor(4) as pool:
        seen = {future.result() for future in [pool.submit(worker) for _ in range(4)]}
    assert len(seen) == 1


def test_a_failed_transaction_changes_nothing(app: Flask) -> None:
    db = database(app)
    with suppress(ZeroDivisionError), db.transaction() as connection:
        connection.execute("UPDATE users SET name = 'changed'")
        raise ZeroDivisionError
    row = db.connection().execute("SELECT count(*) FROM users WHERE name = 'changed'").fetchone()
    assert row[0] == 0


def test_a_forked_process_opens_its_own_connection(app: Flask) -> None:
    db = database(app)
    inherited = db.connection()
    child = os.fork()
    if child == 0:
        own = db.connection()
        fine = own is not inherited and own.execute("SELECT count(*) FROM users").fetchone()[0] == 4
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert db.connection() is inherited
    assert inherited.execute("SELECT count(*) FROM users").fetchone()[0] == 4


def test_two_sites_in_one_process_share_nothing(make_app: MakeApp, clients: Clients) -> None:
    one, two = make_app("one"), make_app("two")
    fill(one)
    first, second = Browser(one), Browser(two)
    assert first.log_in("student").status_code == 302
    assert second.log_in("student").status_code == 200
    logged = {client.socket_path.rsplit("/", 1)[1]: client.events for client in clients.made}
    assert "login" in {event.type for event in logged["one-log.sock"]}
    assert {event.type for event in logged["two-log.sock"]} == {"login_failed"}


def test_a_loaded_site_has_opened_nothing_before_its_first_request(
    make_app: MakeApp, clients: Clients
) -> None:
    """gunicorn forks after loading: workers must share neither a connection nor a socket."""
    gc.collect()  # closes now what earlier tests left open
    before = descriptors()
    app = make_app()
    assert descriptors() - before == set()
    assert clients.made == []
    fill(app)
    Browser(app).log_in("student")
    assert str(database(app).instance.database) in descriptors() - before
    assert clients.made != []


def descriptors() -> set[str]:
    """Returns the open files of this process."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own
            found.add(os.readlink(entry))
    return found


def test_a_site_that_cannot_start_prints_one_line_and_exits(
    site: Instance,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site.database_key.chmod(0o640)
    monkeypatch.setenv("CLASSROOM_DIR", str(site.directory))
    with pytest.raises(SystemExit) as ended:
        wsgi.application()
    assert ended.value.code == wsgi.EXIT_APP_NOT_LOADED
    assert capsys.readouterr().err.startswith("Error: The key file")


def test_the_site_never_opens_a_file_of_logd(
    make_app: MakeApp, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter's audit hook reports every file opened while a teacher uses the site."""
    logd = directory / "logd"
    logd.mkdir()
    (logd / "logd.key").write_text("not for the site")
    monkeypatch.setenv("LOGD_DIR", str(logd))
    with _files_opened() as opened:
        app = make_app()
        fill(app)
        teacher = Browser(app)
        teacher.log_in("teacher")
        teacher.get("/teacher/")
    assert str(database(app).instance.database_key) in opened
    assert not [path for path in opened if path.startswith(str(logd))]


@contextmanager
def _files_opened() -> Iterator[list[str]]:
    opened: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open":
            opened.append(os.fspath(arguments[0]) if _is_path(arguments[0]) else "")

    sys.addaudithook(hook)  # an audit hook cannot be removed, only disabled
    try:
        yield opened
    finally:
        watching = False


def _is_path(value: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(value, str | os.PathLike)
