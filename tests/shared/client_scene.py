"""What several tests of a client need: sums, threads, child processes, the end of an outbox."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from logd_client import Client
from logd_client.durable import DurableEvent
from logd_client.outbox_file import OutboxFile
from logd_wire.outbox.layout import (
    WORD_CONFIRMED_POSITION,
    WORD_CONFIRMED_SEQUENCE,
    WORD_RETIRED,
    WORD_WATCHED_UNTIL_NS,
)
from logd_wire.outbox.names import SUFFIX
from logd_wire.rendezvous import RENDEZVOUS_SUFFIX
from tests.support import client_parts as parts
from tests.support.instance import ROOT, Instance
from tests.support.tally import Tally

# Long enough to differ from "at once" on any machine, short enough to fail within a test.
LONG_S = 60.0
# How a program of a child process begins.
CHILD = """
import ctypes, json, os, signal, socket, sys, threading
from logd_client import Client, Outcome
c = Client(sys.argv[1])
libc = ctypes.PyDLL(None)
"""


class Timeout(Exception):
    """What a handler of SIGALRM raises to end a request that takes too long."""


def raise_timeout(*_: object) -> Any:
    raise Timeout


def check_stats(client: Client, **expected: Any) -> dict[str, Any]:
    """The client's own sum, and the figures expected of it."""
    stats = client.stats()
    assert stats["attempted"] == stats["accepted"] + stats["refused"]
    assert stats["refused"] == sum(stats["refused_by_cause"].values())
    assert {name: stats[name] for name in expected} == expected
    return stats


def counts(stats: dict[str, Any]) -> dict[str, int]:
    """Of a client's statistics, what `check_sums` takes."""
    return {name: stats[name] for name in ("attempted", "accepted", "refused")}


def run_child(code: str, instance: Instance, *args: str) -> Any:
    """Runs code with a client `c` in a process of its own; what it prints, from JSON."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD + code, instance.socket, *args],
        cwd=ROOT, capture_output=True, text=True, timeout=LONG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def hold_waits(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Has each durable event wait until that is set, and be unknown then."""
    held = threading.Event()

    def wait(*_: object) -> bool:
        assert held.wait(LONG_S)
        return False

    monkeypatch.setattr(DurableEvent, "wait", wait)
    return held


@contextmanager
def in_threads(count: int, work: Callable[[int], None]) -> Iterator[list[threading.Thread]]:
    """Threads that are gone at the end."""
    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.join(LONG_S)
        assert not thread.is_alive(), "a thread still waits"


def retire_present(client: Client, *, removed: bool = True) -> OutboxFile:
    """Emits an event, and retires the outbox that the daemon has read it from."""
    assert client.emit("page_view")
    outbox = parts.outbox(client)
    parts.producer(client).sends = False  # it is watched: descriptors are not compared before
    retire(outbox, removed=removed)
    return outbox


def outbox_of(instance: Instance) -> Path:
    """The only outbox that there is."""
    (path,) = instance.config.outbox_directory.glob(f"*{SUFFIX}")
    return path


def confirm_all(outbox: OutboxFile) -> None:
    """What the daemon does when all that is written is on the disk."""
    parts.words(outbox)[WORD_CONFIRMED_SEQUENCE] = outbox.writer.written


def retire(outbox: OutboxFile, position: int | None = None, *, removed: bool = True) -> None:
    """What the daemon does at the end of a producer of which it has read one event, up to
    `position`: by default to the end.
    """
    words = parts.words(outbox)
    words[WORD_CONFIRMED_SEQUENCE] = 1
    words[WORD_CONFIRMED_POSITION] = outbox.writer.bytes_written if position is None else position
    words[WORD_WATCHED_UNTIL_NS] = 0
    words[WORD_RETIRED] = 1
    if removed:
        parts.path(outbox).unlink()


def without_outbox(instance: Instance) -> None:
    """Removes what leads clients to an outbox. A daemon that runs would put it back."""
    Path(instance.socket + RENDEZVOUS_SUFFIX).unlink()


def account(
    tally: Tally, instance: Instance, stats: dict[str, Any], *, kills: int = 0
) -> list[dict[str, Any]]:
    """Both sums, with what the client counted, once it is closed; the trail."""
    status = instance.settle()
    events = instance.events()
    tally.account(status, events, **counts(stats), kills=kills)
    return events


def notes(events: list[dict[str, Any]]) -> list[tuple[str, Any, Any]]:
    """What the trail records: each event's type, and which sequence and outcome it names."""
    return [
        (event["type"], event["props"].get("sequence"), event["props"].get("outcome"))
        for event in events
    ]
