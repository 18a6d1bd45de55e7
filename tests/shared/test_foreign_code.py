"""Code that is not the client's never runs while a thread holds the client's guard."""

from __future__ import annotations

import logging
import threading
import time
from collections import UserDict
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

from logd_client import Client, Outcome
from logd_client.producer import Producer
from logd_client.refusals import ClientRefusals
from tests.shared.client_scene import check_stats
from tests.support import client_parts as parts
from tests.support.instance import Instance, check_sums, until

THREADS = 8
STANDSTILL_S = 30.0  # far more than any call takes on a busy machine


class Emitting(logging.Handler):
    """Logs an event for each record, as an application's `error_logged` handler does."""

    def __init__(self) -> None:
        super().__init__()
        self.client: Client | None = None
        self.calls = self.under_the_guard = self.accepted = 0

    def emit(self, record: logging.LogRecord) -> None:
        client = self.client
        if client is not None:
            self.calls += 1
            self.under_the_guard += parts.guard(client).owner == get_ident()
            self.accepted += client.emit("error_logged", props={"text": record.getMessage()})


@pytest.fixture
def handler() -> Iterator[Emitting]:
    made = Emitting()
    loggers = [logging.getLogger(name) for name in ("logd.client", "application")]
    for logger in loggers:
        logger.addHandler(made)
        logger.propagate = False
    yield made
    made.client = None
    for logger in loggers:
        logger.removeHandler(made)
        logger.propagate = True


class Hostile(Exception):
    """What a signal handler of an application's might raise."""

    asked: list[str] = []

    def __str__(self) -> str:
        self.asked.append("__str__")
        return "words"

    __repr__ = __str__


def failing(*_: Any) -> int:
    raise Hostile


@pytest.mark.parametrize("call", [Client.emit, Client.emit_durable])
def test_an_error_in_the_client_is_logged_without_its_own_words(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, handler: Emitting, call: Callable[..., Any]
) -> None:
    Hostile.asked.clear()
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        with monkeypatch.context() as context:
            context.setattr(parts.session(client), "write", failing)
            assert not call(client, "page_view")
        assert Hostile.asked == []
        stats = client.stats()
    assert stats["refused_by_cause"] == {"internal_error": 1}
    assert stats["attempted"] == stats["accepted"] + stats["refused"] == 2


def test_every_line_that_a_client_logs_is_written_without_the_guard(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, handler: Emitting
) -> None:
    """Refusals, a missing outbox, a note that fails, an outbox that cannot be replaced."""
    rendezvous = Path(instance.socket + ".outboxes")
    hidden = rendezvous.rename(instance.directory / "hidden")
    with Client(instance.socket) as client:
        handler.client = client
        assert not client.emit("page_view")  # no outbox; undelivered
        assert not client.emit("Bad Type")
        hidden.rename(rendezvous)
        parts.producer(client).retry_outbox_after_s = 0.0
        assert client.emit("page_view")
        with monkeypatch.context() as context:
            context.setattr(parts.session(client), "write_note", failing)
            context.setattr(parts.producers(client), "replace_lost", failing)
            context.setattr(parts.producer(client), "_uid_here", -1)  # no longer intact
            parts.producer(client).sends = False
            assert client.emit_durable("page_view", timeout_s=0) is Outcome.UNKNOWN
        stats = client.stats()
    assert handler.calls >= 5
    assert handler.under_the_guard == 0
    assert stats["attempted"] == stats["accepted"] + stats["refused"]


def work(client: Client, go: threading.Barrier, stop: threading.Event) -> None:
    """What a thread of an application does, over and over: it logs, and emits."""
    log = logging.getLogger("application")
    go.wait()
    while not stop.is_set():
        log.error("something")
        client.emit("page_view", user="7")
        client.emit("Bad Type")
        stop.wait(0.005)  # so that the daemon, and the main thread, have a share of the machine


@pytest.mark.parametrize("seconds", [0.0, pytest.param(60.0, marks=pytest.mark.long(minutes=1.1))])
def test_a_logging_handler_that_emits_stops_no_thread_whatever_the_daemon_does(
    instance: Instance, handler: Emitting, seconds: float
) -> None:
    """In each round a client finds no outbox at first, then one; the daemon comes, and is killed.

    So the client logs from the middle of its calls, as other threads log and emit.
    """
    end_s = time.monotonic() + seconds
    rendezvous = Path(instance.socket + ".outboxes")
    sums = {"attempted": 0, "accepted": 0, "refused": 0}
    while not sums["attempted"] or time.monotonic() < end_s:
        hidden = rendezvous.rename(instance.directory / "hidden")
        client = handler.client = Client(instance.socket)
        go, stop = threading.Barrier(THREADS + 1), threading.Event()
        threads = [
            threading.Thread(target=work, args=(client, go, stop), daemon=True)
            for _ in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        go.wait()
        until(lambda: parts.current(client) is not None, "a producer")  # noqa: B023 - called in this round
        hidden.rename(rendezvous)
        parts.producer(client).retry_outbox_after_s = 0.0
        # Before the daemon is there: no datagram is accepted that is not in an outbox as well.
        until(lambda: client.stats()["accepted"] > 0, "an event in an outbox")  # noqa: B023 - called in this round
        instance.start()
        until(lambda: client.stats()["confirmed"] > 0, "an event on the disk")  # noqa: B023 - called in this round
        instance.kill()
        stop.set()
        for thread in threads:
            thread.join(STANDSTILL_S)
        assert not any(thread.is_alive() for thread in threads), "threads stand still"
        handler.client = None
        stats = client.stats()
        client.close()
        assert stats["attempted"] == stats["accepted"] + stats["refused"]
        for name in sums:
            sums[name] += stats[name]
    assert handler.calls > THREADS
    assert handler.under_the_guard == 0
    instance.start()
    check_sums(instance.settle(), **sums)


def test_a_refusal_in_a_signal_handler_while_an_outbox_is_made_is_reported(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new producer is the current one by then, and reports nothing yet."""
    report_all = ClientRefusals.report_all

    def interrupted(self: ClientRefusals, producer: Producer) -> None:
        assert client.emit("login") is False
        report_all(self, producer)

    monkeypatch.setattr(ClientRefusals, "report_all", interrupted)
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        assert parts.outbox(client).writer.refusals == {"reentered": 1}
        check_stats(client, accepted=1, refused_by_cause={"reentered": 1})


def test_an_emit_from_a_finaliser_inside_an_emit_is_refused(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbage collection may run anywhere, with any object's __del__."""

    class Emitting:
        def __del__(self) -> None:
            emitted.append(client.emit("login"))

    def collected(producer: Any, payload: bytes, awaited: bool) -> int:
        Emitting()
        return write(producer, payload, awaited)

    emitted: list[bool] = []
    with Client(instance.socket) as client:
        write = parts.session(client).write
        monkeypatch.setattr(parts.session(client), "write", collected)
        assert client.emit("page_view") is True
        assert emitted == [False]
        check_stats(client, accepted=1, refused_by_cause={"reentered": 1})


def test_values_that_emit_while_they_are_read_stop_nothing(instance: Instance) -> None:
    """The caller's code runs before the guard is taken; also in the middle of packing."""

    class Emitting(UserDict[str, int]):
        def __getitem__(self, key: str) -> int:
            assert client.emit("login", props={"n": 1}) is True
            return super().__getitem__(key)

    with Client(instance.socket) as client:
        assert client.emit("page_view", props=Emitting(a=1, b=2)) is True
        assert client.emit("page_view", props={"within": Emitting(a=1)}) is True
        check_stats(client, accepted=5)


def test_a_log_handler_that_emits_in_another_thread_does_not_stop_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the handler's lock and waits for the client; the client logs when it is left."""
    client = Client(tmp_path / "missing.sock")  # no outbox: which is logged
    inside, leave = threading.Event(), threading.Event()

    class Holding(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "application":
                inside.set()
                leave.wait(30)
                client.emit("logged")

    def make(*arguments: Any) -> Producer:
        leave.set()
        return made(*arguments)

    made = parts.producers(client).make
    monkeypatch.setattr(parts.producers(client), "make", make)
    handler = Holding()
    logging.getLogger().addHandler(handler)
    try:
        log = logging.getLogger("application").warning
        threads = [
            threading.Thread(target=target, args=("page_view",), daemon=True)
            for target in (log, client.emit)
        ]
        threads[0].start()
        assert inside.wait(30)
        threads[1].start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    finally:
        logging.getLogger().removeHandler(handler)
        client.close()
