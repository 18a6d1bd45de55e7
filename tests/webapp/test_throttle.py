"""The login throttle: moving windows in which every attempt counts once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from webapp.classroom.model.throttle import LoginThrottle
from webapp.classroom.store.db import Database
from webapp.classroom.store.instance import Instance


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def db(directory: Path) -> Database:
    instance = Instance(directory / "site")
    with instance.prepared():
        db = Database(instance)
        db.migrate()
    return db


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(db: Database, clock: Clock) -> Callable[[], LoginThrottle]:
    return lambda: LoginThrottle.build(db, "3 per 1 minute", "5 per 1 minute", clock)


def test_the_wait_ends_as_the_window_moves(make: Callable[[], LoginThrottle], clock: Clock) -> None:
    for _ in range(3):
        assert make().take("noor", "192.0.2.1") == 0
        clock.now_s += 10
    assert make().take("noor", "192.0.2.1") == 30
    clock.now_s += 29
    assert make().take("noor", "192.0.2.1") == 1
    clock.now_s += 2
    assert make().take("noor", "192.0.2.1") == 0


def test_attempts_during_a_block_do_not_prolong_it(
    make: Callable[[], LoginThrottle], clock: Clock
) -> None:
    for _ in range(3):
        make().take("noor", "192.0.2.1")
    first = make().take("noor", "192.0.2.1")
    assert make().take("noor", "192.0.2.1") == first


def test_another_spelling_of_the_login_is_the_same_account(
    make: Callable[[], LoginThrottle],
) -> None:
    for login in ("noor", "Noor", "NOOR"):
        make().take(login, "192.0.2.1")
    assert make().take("nOOr", "192.0.2.1") > 0


def test_another_address_may_still_log_in_to_the_account(
    make: Callable[[], LoginThrottle],
) -> None:
    """Otherwise an attacker could block the account's owner."""
    for _ in range(4):
        make().take("noor", "192.0.2.1")
    assert make().take("noor", "192.0.2.2") == 0


def test_a_successful_login_resets_the_account_s_limit(make: Callable[[], LoginThrottle]) -> None:
    for _ in range(3):
        make().take("noor", "192.0.2.1")
    make().succeeded("noor", "192.0.2.1")
    assert make().take("noor", "192.0.2.1") == 0


def test_failures_of_an_address_add_up_over_accounts(
    make: Callable[[], LoginThrottle], clock: Clock
) -> None:
    for number in range(5):
        assert make().take(f"login-{number}", "192.0.2.1") == 0
        make().failed("192.0.2.1")
    assert make().take("one more", "192.0.2.1") == 60


def test_no_typed_text_is_stored(make: Callable[[], LoginThrottle], db: Database) -> None:
    make().take("perhaps a password", "192.0.2.1")
    keys = [key for (key,) in db.connection().execute("SELECT key FROM login_hits")]
    assert keys
    assert not any("perhaps" in key for key in keys)


def test_expired_hits_are_removed(
    make: Callable[[], LoginThrottle], clock: Clock, db: Database
) -> None:
    make().take("noor", "192.0.2.1")
    clock.now_s += 61
    make().take("emil", "192.0.2.1")
    assert db.connection().execute("SELECT count(*) FROM login_hits").fetchone()[0] == 1


@pytest.mark.parametrize("ahead_s", [2 * 365 * 86_400, 61])
def test_attempts_stored_by_a_clock_that_was_ahead_block_no_account(
    make: Callable[[], LoginThrottle], clock: Clock, ahead_s: int
) -> None:
    """They block neither the account nor the school's address."""
    clock.now_s += ahead_s
    for _ in range(3):
        make().take("noor", "192.0.2.1")
    for _ in range(5):
        make().failed("192.0.2.1")
    assert make().take("noor", "192.0.2.1") > 0
    clock.now_s -= ahead_s
    for _ in range(3):
        assert make().take("noor", "192.0.2.1") == 0
    assert 0 < make().take("noor", "192.0.2.1") <= 60


def test_the_first_refusal_of_each_window_is_news(
    make: Callable[[], LoginThrottle], clock: Clock
) -> None:
    for _ in range(3):
        for _ in range(3):
            assert make().take("noor", "192.0.2.1") == 0
        assert make().take("noor", "192.0.2.1") > 0
        assert make().is_news("noor", "192.0.2.1")
        assert not make().is_news("noor", "192.0.2.1")
        assert make().is_news("emil", "192.0.2.1")
        assert make().is_news("noor", "192.0.2.2")
        clock.now_s += 61


def test_of_a_blocked_address_one_refusal_is_news_whatever_the_account(
    make: Callable[[], LoginThrottle],
) -> None:
    for _ in range(5):
        make().failed("192.0.2.1")
    assert make().is_news("noor", "192.0.2.1")
    assert not any(make().is_news(f"login-{n}", "192.0.2.1") for n in range(20))


def test_after_a_login_the_next_refusal_is_news_again(make: Callable[[], LoginThrottle]) -> None:
    assert make().is_news("noor", "192.0.2.1")
    make().succeeded("noor", "192.0.2.1")
    assert make().is_news("noor", "192.0.2.1")
