"""The fork server of the tests: which process a thread that asks it gets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.fork_server import Fork

pytestmark = pytest.mark.processes

COMMANDS = [["-m", "logd", "--help"], ["-m", "logd", "no-such-command"]]


def exit_code(number: int) -> int:
    with Fork(COMMANDS[number % 2], {}) as fork:
        assert fork.stdout is not None
        assert fork.stderr is not None
        fork.stdout.read()
        fork.stderr.read()
        return fork.wait(60)


def test_threads_that_ask_at_once_get_their_own_process() -> None:
    """Otherwise one waits for, or kills, the process of another."""
    with ThreadPoolExecutor(12) as pool:
        codes = list(pool.map(exit_code, range(100)))
    assert codes == [0, 2] * 50
