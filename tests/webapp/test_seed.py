"""The commands `seed` and `create-user`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from flask import Flask

from tests.webapp.browser import Browser
from tests.webapp.conftest import MakeApp, database
from webapp.demo import seed
from webapp.demo.school import DEMO_ACCOUNTS
from webapp.demo.visits import Event


class RecordingClient:
    """Stands in for the client: keeps events; refuses the next `refuse_next`."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.refuse_next = 0
        self.refused = 0
        self.stored = True
        self.closed = False

    def emit(
        self,
        event_type: str,
        *,
        user: str | None = None,
        props: Mapping[str, Any] | None = None,
        ts_ns: int | None = None,
    ) -> bool:
        if self.refuse_next:
            self.refuse_next -= 1
            self.refused += 1
            return False
        assert ts_ns is not None
        self.events.append((event_type, user, ts_ns, dict(props or {})))
        return True

    def flush(self, timeout_s: float) -> bool:
        return self.stored

    def stats(self) -> dict[str, Any]:
        return {
            "accepted": len(self.events),
            "refused": self.refused,
            "refused_by_cause": {"outbox_full": self.refused} if self.refused else {},
            "pending": 0 if self.stored else len(self.events),
        }

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> RecordingClient:
    client = RecordingClient()
    monkeypatch.setattr(seed, "open_client", lambda _path: client)
    monkeypatch.setattr(seed, "RETRY_INTERVAL_S", 0.0)
    return client


@pytest.fixture
def empty(make_app: MakeApp) -> Flask:
    return make_app()


def run(app: Flask, *args: str, text: str = "") -> tuple[int, str]:
    result = app.test_cli_runner().invoke(args=args, input=text)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_seed_stores_the_courses(empty: Flask) -> None:
    assert run(empty, "seed") == (0, "Stored 3 courses.\n")


def test_the_demo_accounts_are_printed_and_can_log_in(
    empty: Flask, played: RecordingClient
) -> None:
    code, output = run(empty, "seed", "--demo")
    assert code == 0
    for account in DEMO_ACCOUNTS:
        assert account.password in output
        assert Browser(empty).log_in(account.username, account.password).status_code == 302
    assert played.closed
    assert f"{len(played.events):,} events accepted, 0 of them not yet on disk" in output


def test_no_accounts_prints_no_passwords(empty: Flask, played: RecordingClient) -> None:
    code, output = run(empty, "seed", "--demo", "--no-accounts")
    assert code == 0
    assert "events accepted" in output
    for account in DEMO_ACCOUNTS:
        assert account.password not in output


def test_the_demo_student_has_work_and_results(empty: Flask, played: RecordingClient) -> None:
    run(empty, "seed", "--demo")
    student = Browser(empty)
    student.log_in("student", "demo-student")
    assert "/attempts/1" in student.get("/results").text
    assert "tasks done" in student.get("/courses/").text


def test_refused_events_are_logged_again(empty: Flask, played: RecordingClient) -> None:
    played.refuse_next = 25
    code, output = run(empty, "seed", "--demo")
    assert code == 0
    assert "25 calls refused and repeated (outbox_full: 25)" in output
    assert [event[2] for event in played.events] == sorted(event[2] for event in played.events)


def test_events_waiting_in_the_outbox_are_reported(empty: Flask, played: RecordingClient) -> None:
    played.stored = False
    code, output = run(empty, "seed", "--demo")
    assert code == 0
    assert "wait in the outbox; logd stores them when it runs" in output


def test_a_stalled_logd_ends_the_command_which_is_known_as_interrupted(
    empty: Flask, played: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed, "STALLED_AFTER_S", 0.0)
    played.refuse_next = 10**9
    code, output = run(empty, "seed", "--demo")
    assert code == 1
    assert "logd has stored no event" in output
    instance = database(empty).instance
    assert instance.seeding_marker.exists()
    assert not instance.seeded_marker.exists()
    assert "was interrupted" in run(empty, "seed", "--demo")[1]


def test_a_finished_demo_is_not_added_twice(empty: Flask, played: RecordingClient) -> None:
    run(empty, "seed", "--demo")
    instance = database(empty).instance
    assert instance.seeded_marker.exists()
    assert not instance.seeding_marker.exists()
    code, output = run(empty, "seed", "--demo")
    assert code == 1
    assert "already" in output


def test_the_demo_is_not_added_to_a_site_with_accounts(app: Flask, played: RecordingClient) -> None:
    code, output = run(app, "seed", "--demo")
    assert code == 1
    assert "already has accounts" in output
    assert not played.events


def test_the_demo_without_logd_fails_and_changes_nothing(empty: Flask) -> None:
    code, output = run(empty, "seed", "--demo")
    assert code == 1
    assert "logd init" in output
    assert not database(empty).instance.seeding_marker.exists()


@pytest.mark.parametrize("demo", [(), ("--demo",)])
def test_a_full_disk_is_reported_and_changes_nothing(
    empty: Flask, played: RecordingClient, demo: tuple[str, ...]
) -> None:
    connection = database(empty).connection()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    code, output = run(empty, "seed", *demo)
    assert code == 1
    assert "database or disk is full. Check the free space" in output
    assert connection.execute("SELECT count(*) FROM courses").fetchone()[0] == 0
    assert not played.events


def test_an_account_made_by_command_can_log_in(empty: Flask) -> None:
    code, output = run(
        empty,
        *("create-user", "ruth", "--name", "Ruth", "--role", "auditor"),
        text="a long password\na long password\n",
    )
    assert code == 0
    assert "Added auditor ruth" in output
    assert "a long password" not in output
    assert Browser(empty).log_in("ruth", "a long password").location == "/audit/"


@pytest.mark.parametrize(
    ("login", "password", "words"),
    [
        ("ruth", "short", "a password has 10 to"),
        ("123", "a long password", "not only digits"),
        ("x" * 65, "a long password", "1 to 64 characters"),
        ("STUDENT", "a long password", "already exists"),
    ],
)
def test_an_invalid_account_is_explained(app: Flask, login: str, password: str, words: str) -> None:
    code, output = run(
        app,
        *("create-user", login, "--name", "R", "--role", "student", "--password", password),
    )
    assert code != 0
    assert words in output
