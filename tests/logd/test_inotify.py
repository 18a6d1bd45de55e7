"""Closed files wake the daemon at a bounded rate, whatever they are and whoever closes them."""

from __future__ import annotations

import contextlib
import os
import selectors
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.ingest.inotify import Inotify
from logd.serve.closed_files import CLOSED_INTERVAL_S
from logd.serve.loop import EventLoop
from logd_wire.outbox.names import outbox_name
from tests.logd.stepped_daemon import new_daemon
from tests.support.instance import Instance
from tests.support.namespaces import needs_users

OUTBOX = outbox_name(1000, 7)
IN_CLOSE_WRITE, IN_Q_OVERFLOW = 0x08, 0x4000


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def close(path: Path) -> None:
    """Opens the file for writing and closes it."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def event(mask: int, name: bytes, watch: int = 1) -> bytes:
    padded = name + bytes(-len(name) % 16) if name else b""
    return struct.pack("iIII", watch, mask, 0, len(padded)) + padded


def test_only_outboxes_are_reported_each_once_in_the_order_they_were_closed(tmp_path: Path) -> None:
    inotify = Inotify(tmp_path)
    second = outbox_name(3, 1)
    for name in ("x", second, ".new-" + OUTBOX[:9], OUTBOX, second, OUTBOX + "x"):
        close(tmp_path / name)
    assert inotify.names() == [second, OUTBOX]
    assert inotify.names() == []
    inotify.close()


def test_what_is_known_is_reported_when_the_kernels_queue_was_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The overflow has no name: the next poll finds what is missing."""
    inotify = Inotify(tmp_path)
    data = event(IN_CLOSE_WRITE, OUTBOX.encode()) + event(IN_Q_OVERFLOW, b"", watch=-1)
    with monkeypatch.context() as context:
        context.setattr(os, "read", lambda _fd, _size: data)
        assert inotify.names() == [OUTBOX]
    inotify.close()


@needs_users
def test_the_owner_of_closed_files_that_are_no_outboxes_is_named(
    instance: Instance,
    daemon: EventLoop,
) -> None:
    directory = instance.config.outbox_directory
    for name, uid in (("stranger's", 65534), ("our own", 0)):
        close(directory / name)
        os.chown(directory / name, uid, -1)
    assert daemon.closed_files.names(daemon.wait(0)) == []
    (row,) = daemon.delivery.intake.ignored.senders(5)
    assert (row["uid"], row["pid"], row["closings"]) == (65534, None, 1)


@pytest.mark.parametrize("name", ["x", OUTBOX])
def test_a_file_closed_again_and_again_wakes_the_daemon_once_an_interval(
    instance: Instance,
    stack: contextlib.ExitStack,
    name: str,
) -> None:
    directory = instance.config.outbox_directory
    now_s = 1000.0
    loop = stack.enter_context(contextlib.closing(new_daemon(instance, lambda: now_s)))

    def wakes() -> bool:
        close(directory / name)
        ready = loop.wait(0)
        told = loop.closed_files.names(ready)
        assert told in ([], [name])
        return bool(ready)

    assert wakes()
    assert [wakes() for _ in range(20)] == [False] * 20
    now_s += CLOSED_INTERVAL_S
    assert wakes()
    assert not wakes()


def test_a_wait_ends_no_earlier_for_closed_files_than_they_may_wake_the_daemon(
    instance: Instance,
    stack: contextlib.ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was closed meanwhile is reported once the interval is over."""
    directory = instance.config.outbox_directory
    now_s = 1000.0
    loop = stack.enter_context(contextlib.closing(new_daemon(instance, lambda: now_s)))
    close(directory / OUTBOX)
    loop.closed_files.names(loop.wait(0))
    close(directory / OUTBOX)
    waits = []
    select = selectors.DefaultSelector.select

    def waiting(selector: selectors.DefaultSelector, timeout_s: float) -> object:
        nonlocal now_s
        waits.append(timeout_s)
        now_s += timeout_s
        return select(selector, 0)

    monkeypatch.setattr(selectors.DefaultSelector, "select", waiting)
    ready = loop.wait(0.5)
    assert loop.closed_files.names(ready) == [OUTBOX]
    assert waits == pytest.approx([CLOSED_INTERVAL_S, 0.5 - waits[0]])
