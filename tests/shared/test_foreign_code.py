"""Code that is not the client's never runs while a thread holds the client's guard."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

from logd_client import Client, Outcome
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
        until(lambda: parts.current(client) is not None, "a producer")  # noqa: B023
        hidden.rename(rendezvous)
        parts.producer(client).retry_outbox_after_s = 0.0
        # Before the daemon is there: no datagram is accepted that is not in an outbox as well.
        until(lambda: client.stats()["accepted"] > 0, "an event in an outbox")  # noqa: B023
        instance.start()
        until(lambda: client.stats()["confirmed"] > 0, "an event on the disk")  # noqa: B023
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
