"""`logd verify` beside everything that the product itself does never reports a changed trail."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from logd.audit import proven, verify_processes
from logd.errors import EXIT_NOT_WHOLE
from logd_client import Client
from tests.support.instance import Instance, Process, check_sums, until

DAY_NS = 86_400 * 10**9
COMMANDS = (
    ("verify",),
    ("verify", "--incremental"),
    ("verify", "--processes", "2"),
)


@pytest.mark.parametrize(
    ("runs", "held_s"),
    [(3, 0.6), pytest.param(200, 10.0, marks=pytest.mark.long(minutes=12))],
)
@pytest.mark.timeout(1800)
def test_beside_prune_backup_reports_and_a_reader_it_is_never_taken_for_tampering(
    runs: int, held_s: float, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proven, "EVENTS_PER_PART_MIN", 1000)
    monkeypatch.setattr(verify_processes, "EVENTS_PER_PROCESS_MIN", 1000)
    instance.configure(**{"retention.page_view": "50d"})
    instance.start()
    over = threading.Event()
    results: list[int] = []
    with (
        Client(instance.socket, outbox_bytes=16 * 2**20) as client,
        emitting(client, over),
        looping(over, lambda: instance_command(instance, "prune")),
        looping(over, lambda: instance_command(instance, "backup")),
        looping(over, lambda: instance_command(instance, "query", "--limit", "500")),
        looping(over, lambda: hold(instance, held_s, over)),
    ):
        try:
            for command in itertools.islice(itertools.cycle(COMMANDS), runs):
                code, said = instance_command(instance, *command)
                assert code != EXIT_NOT_WHOLE, said
                results.append(code)
        finally:
            over.set()
    assert results.count(0) > runs // 2  # and is not just never checked
    until(lambda: client.stats()["accepted"] > 0, "events were accepted")
    stats = client.stats()
    check_sums(
        instance.settle(),
        attempted=stats["accepted"] + stats["refused"],
        accepted=stats["accepted"],
        refused=stats["refused"],
    )
    instance.stop()
    assert instance_command(instance, "verify")[0] == 0


def instance_command(instance: Instance, *arguments: str) -> tuple[int, str]:
    process = Process("-m", "logd", *arguments, "--config", str(instance.config.path))
    code, out, errors = process.finish()
    return code, out + errors


def hold(instance: Instance, seconds: float, over: threading.Event) -> None:
    """A reader that holds back every checkpoint meanwhile."""
    with instance.database(read_only=True) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM event").fetchone()
        over.wait(seconds)
        connection.execute("ROLLBACK")
    over.wait(seconds / 4)


@contextlib.contextmanager
def looping(over: threading.Event, step: Callable[[], object]) -> Iterator[None]:
    def loop() -> None:
        while not over.is_set():
            step()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def emitting(client: Client, over: threading.Event) -> Iterator[None]:
    """Emits old events, which a prune removes, and new ones."""
    numbers = itertools.count()

    def some() -> None:
        now_ns = time.time_ns()
        for number in itertools.islice(numbers, 40):
            old = number % 2 * 60 * DAY_NS
            client.emit("page_view", user=str(number % 50), ts_ns=now_ns - old)
        over.wait(0.05)

    with looping(over, some):
        yield
    assert client.flush(60)
