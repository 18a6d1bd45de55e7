"""Each accepted event is stored once where a process's identity changes under the client.

Web servers with the defaults that people run them with; forks by C code; user namespaces; and
descriptors that are closed and used again under the client.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logd_wire import liveness
from logd_wire.outbox.layout import WORD_WATCHED_UNTIL_NS
from tests.faults.neighbours import for_many_users
from tests.faults.odd_process import CHILDREN, DESCRIPTORS, REUSES
from tests.faults.servers import WORKERS, Server, gunicorn, needs_uwsgi, server_path, uwsgi
from tests.support.instance import DEADLINE_S, Instance, Process, check_streams, until
from tests.support.tally import Tally

EVENTS = [
    pytest.param(500, id="500"),
    pytest.param(20_000, id="20000", marks=pytest.mark.long(minutes=0.25)),
]
# Of one process: how many events it has tried, and the numbers of those that were refused.
Said = tuple[int, list[int]]


def check_each_is_stored_once_or_refused(
    instance: Instance, tally: Tally, said: dict[str, Said]
) -> list[dict[str, Any]]:
    """What each process was told is accepted is stored, in order; the rest is counted as refused.

    Each process names itself as the user, and numbers its events from 0.
    """
    attempted = sum(tried for tried, _ in said.values())
    refused = sum(len(numbers) for _, numbers in said.values())
    # What went by datagram alone is pending in no outbox.
    until(lambda: instance.status()["stored"] >= attempted - refused, "all of it is stored")
    status, events = instance.settle(), instance.events()
    stored: dict[str, list[int]] = defaultdict(list)
    for event in events:
        stored[event["user"]].append(event["props"]["number"])
    found = {user: (len(numbers), len(said[user][1])) for user, numbers in stored.items()}
    for user, (tried, not_taken) in said.items():
        expected = sorted(set(range(tried)) - set(not_taken))
        assert stored[user] == expected, (user, tried, found)
    tally.account(
        status, events, attempted=attempted, accepted=attempted - refused, refused=refused
    )
    assert (status["lost"], status["quarantined"], status["unknown_extent"]) == (0, 0, 0)
    check_streams(events)
    return events


# -- web servers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", EVENTS)
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(uwsgi, id="uWSGI", marks=needs_uwsgi),
        pytest.param(lambda path: uwsgi(path, "--master"), id="uWSGI --master", marks=needs_uwsgi),
        pytest.param(lambda path: gunicorn(path, "--preload"), id="gunicorn --preload"),
    ],
)
def test_each_worker_of_a_server_that_loads_the_app_and_then_forks_is_a_producer(
    instance: Instance, tally: Tally, command: Callable[[str], list[str]], count: int
) -> None:
    """The app logs an event while it is loaded, so there is a producer before the fork."""
    instance.start()
    path = server_path(instance)
    server = Server(instance, command(path), path, count)
    try:
        answers = server.answers()
        accepted, refused = server.boots
    finally:
        server.close()
    assert accepted + refused == 1
    said: dict[str, Said] = {"boot": (1, [0] * refused)}
    said |= {answer["worker"]: (count, answer["refused"]) for answer in answers}
    events = check_each_is_stored_once_or_refused(instance, tally, said)
    assert {answer["flushed"] for answer in answers} == {True}
    assert len({answer["stats"]["producer"] for answer in answers}) == WORKERS
    for answer in answers:
        stats = answer["stats"]
        assert stats["attempted"] == stats["accepted"] + stats["refused"]
    # A process whose ring was full continues as another producer; none is of two workers. uWSGI
    # without a master loads the app in what becomes a worker.
    workers: dict[str, set[str]] = defaultdict(set)
    for event in events:
        workers[event["producer"]] |= {event["user"]} - {"boot"}
    assert all(len(of_one) <= 1 for of_one in workers.values()), workers
    assert set().union(*workers.values()) == said.keys() - {"boot"}


# -- processes -----------------------------------------------------------------------------------


class Odd:
    """An `odd_process`; what its processes say of their events lies in `directory` at the end."""

    def __init__(self, instance: Instance, kind: str, count: int) -> None:
        self.directory = instance.directory / "left"
        self.directory.mkdir(exist_ok=True)
        self.directory.chmod(0o777)  # for processes of other users
        arguments = (kind, instance.socket, str(count), str(self.directory))
        self.process = Process("-m", "tests.faults.odd_process", *arguments, stdin=subprocess.PIPE)

    def expect(self, line: str) -> None:
        """Waits for its next line, which is this."""
        assert self.process.popen.stdout is not None
        found = self.process.popen.stdout.readline()
        assert found == line + "\n", (found, self.process.end(), self.process.lines)

    def go_on(self) -> None:
        """Lets it do what comes next."""
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.write("\n")
        self.process.popen.stdin.flush()

    def finish(self) -> None:
        """Waits for its own end."""
        code = self.process.popen.wait(2 * DEADLINE_S)
        self.process.close()
        if (skip := self.directory / "skip").exists():
            pytest.skip(skip.read_text())
        assert code == 0, (code, self.process.lines)

    def __enter__(self) -> Odd:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.popen.stdin is not None
        with contextlib.suppress(OSError):
            self.process.popen.stdin.close()
        self.process.close()


def left_in(instance: Instance) -> dict[str, dict[str, Any]]:
    """What the processes have left, by their names."""
    files = (instance.directory / "left").glob("*.json")
    return {path.stem: json.loads(path.read_text()) for path in files}


def said_by(left: dict[str, dict[str, Any]]) -> dict[str, Said]:
    """The same, as it is compared with what is stored; with the sum that each process holds."""
    for one in left.values():
        stats = one["stats"]
        assert stats["attempted"] == stats["accepted"] + stats["refused"] == one["tried"], stats
        assert stats["refused"] == len(one["refused"]), stats
    return {name: (one["tried"], one["refused"]) for name, one in left.items()}


@pytest.mark.parametrize("count", EVENTS)
def test_a_fork_that_python_does_not_know_of_makes_another_producer(
    instance: Instance, tally: Tally, count: int
) -> None:
    instance.start()
    with Odd(instance, "forks", count) as odd:
        odd.finish()
    left = left_in(instance)
    assert len(left) == CHILDREN + 1
    check_each_is_stored_once_or_refused(instance, tally, said_by(left))
    assert len({one["stats"]["producer"] for one in left.values()}) == CHILDREN + 1


@pytest.mark.parametrize("count", EVENTS)
@pytest.mark.parametrize("kind", ["mapped", "unmapped"])
def test_in_a_user_namespace_what_is_accepted_is_stored(
    instance: Instance, tally: Tally, kind: str, count: int
) -> None:
    """The uid that a process sees there is not the one that the kernel tells the daemon."""
    for_many_users(instance)
    instance.start()
    with Odd(instance, f"namespace {kind}", count) as odd:
        odd.finish()
    left = left_in(instance)
    check_each_is_stored_once_or_refused(instance, tally, said_by(left))
    stats = left["main"]["stats"]
    assert instance.status()["outboxes_unreadable"] == 0
    if stats["outbox"]["reason"] is None:
        assert stats["confirmed"] == stats["accepted"]


@pytest.mark.parametrize("count", EVENTS)
def test_descriptors_that_are_closed_under_a_client_cost_no_event_and_are_not_touched(
    instance: Instance, tally: Tally, count: int
) -> None:
    """A daemonizer closes all of them, and the application's own get the numbers."""
    instance.configure(commit_interval_ms=5, look_interval_ms=100)
    instance.start()
    with contextlib.ExitStack() as stack:
        odds = [stack.enter_context(Odd(instance, f"closes {reuse}", count)) for reuse in REUSES]
        for odd in odds:
            odd.expect("half")
        instance.kill()
        until(lambda: nobody_is_watched(instance), "no outbox is promised a look any more")
        for odd in odds:
            odd.go_on()
        for odd in odds:
            odd.expect("emitted")
        instance.start()
        for odd in odds:
            odd.go_on()
        for odd in odds:
            odd.expect("left")
        left = left_in(instance)
        held = [lock_holder(path) for path in odds[0].directory.glob("app-*")]
        for odd in odds:
            odd.go_on()
        for odd in odds:
            odd.finish()
    assert len(left) == 3 * len(REUSES)  # each with two children
    touched = {name: (one["changed"], one["strange"]) for name, one in left.items()}
    assert touched == dict.fromkeys(left, ([], {}))
    assert (len(held), set(held)) == (DESCRIPTORS, {odds[-1].process.popen.pid})
    check_each_is_stored_once_or_refused(instance, tally, said_by(left))


def nobody_is_watched(instance: Instance) -> bool:
    """Whether what the daemon has promised to look at by itself is over for all outboxes."""
    for path in Path(instance.config.outbox_directory).glob("*.outbox"):
        with open(path, "rb") as file:
            promised = os.pread(file.fileno(), 8, WORD_WATCHED_UNTIL_NS * 8)
        if int.from_bytes(promised, sys.byteorder) > time.monotonic_ns():
            return False
    return True


def lock_holder(path: Path) -> int | None:
    """The process that has a lock on that file."""
    with open(path, "rb") as file:
        return liveness.lock_holder(file.fileno())
