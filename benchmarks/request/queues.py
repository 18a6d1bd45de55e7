"""The ways through a queue: to a thread of the web process, and to a child process of it.

Both hold 1,000 events and write up to ten in a transaction, as the earlier design did.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import select
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sqlcipher3

from benchmarks.harness.event_database import Database, Row, make_row, store

QUEUE_EVENTS_MAX = 1000
BATCH_MAX = 10
LOST_MAX = QUEUE_EVENTS_MAX + BATCH_MAX  # of one web process
DRAIN_TIMEOUT_S = 15.0
READY_TIMEOUT_S = 15.0

_WRITER = "writer-"

Store = Callable[[Any, Sequence[Row]], None]


class ThreadQueue:
    """A bounded queue in the process, and one thread that writes.

    Whether its thread kept its connection the notes do not tell, so there are both.
    """

    def __init__(self, database: Database, *, keep_connection: bool, store: Store = store) -> None:
        self.queue: queue.Queue[Row] = queue.Queue(QUEUE_EVENTS_MAX)
        # Opened before the first request: what is measured is a queue that is at work.
        kept = open_retrying(database) if keep_connection else None
        arguments = (self.queue, database, kept, store)
        threading.Thread(target=write, args=arguments, daemon=True).start()

    def log(self, event: str, _quiz: bool) -> bool:
        return _offered(self.queue.put_nowait, event)


class ProcessQueue:
    """The same with the writer in a child process, which outlives a killed web process."""

    def __init__(self, database: Database) -> None:
        context = multiprocessing.get_context("fork")
        self.queue: Any = context.Queue(QUEUE_EVENTS_MAX)
        # A pipe: an Event's `set` waits for whoever waits for it, for ever if that one was killed.
        ready, opened = context.Pipe(duplex=False)
        child = context.Process(
            target=_write_in_child, args=(self.queue, database, opened), daemon=True
        )
        child.start()
        opened.close()
        ready.poll(READY_TIMEOUT_S)

    def log(self, event: str, _quiz: bool) -> bool:
        return _offered(self.queue.put_nowait, event)


def _offered(put: Callable[[Row], None], event: str) -> bool:
    try:
        put(make_row(event))
    except queue.Full:
        return False
    return True


def write(source: Any, database: Database, kept: Any, store: Store = store) -> None:
    """Takes from the queue, up to ten at a time, and stores, over the connection that is kept or
    a new one each time; until nothing can come any more."""
    goes_on = True
    while goes_on:
        rows, goes_on = _take(source)
        if rows:
            _store_retrying(database, kept, rows, store)


def _take(source: Any) -> tuple[list[Row], bool]:
    """Up to ten events, and whether more can come; waits for the first."""
    rows: list[Row] = []
    try:
        rows.append(source.get())
        while len(rows) < BATCH_MAX:
            rows.append(source.get_nowait())
    except queue.Empty:
        return rows, True
    except (EOFError, OSError):  # the web process is gone, perhaps in the middle of a message
        return rows, False
    return rows, True


def open_retrying(database: Database) -> Any:
    """Again and again while the other web process's writer has the file locked."""
    while True:
        try:
            return database.open()
        except sqlcipher3.OperationalError:
            if not database.directory.is_dir():  # the benchmark was ended, and took it away
                raise
            continue


def _store_retrying(database: Database, kept: Any, rows: list[Row], store: Store) -> None:
    """Again and again while the file is locked: the other web process has a writer too."""
    while True:
        try:
            connection = kept or database.open()
            try:
                store(connection, rows)
            finally:
                if connection is not kept:
                    connection.close()
        except sqlcipher3.OperationalError:
            if not database.directory.is_dir():  # the benchmark was ended, and took it away
                raise
            continue
        return


def _write_in_child(source: Any, database: Database, opened: Any) -> None:
    (database.directory / f"{_WRITER}{os.getpid()}").touch()
    # Not in the web process's group, and without the server's handling of signals.
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # The queue's writing end came over the fork; while it is open here, the end never comes.
    source._writer.close()
    kept = open_retrying(database)
    opened.close()
    write(source, database, kept)


def writers(directory: Path) -> list[int]:
    """The child processes that were started for `directory`."""
    return [int(path.name.removeprefix(_WRITER)) for path in directory.glob(f"{_WRITER}*")]


def wait_for_writers(directory: Path) -> bool:
    """Waits until the children of killed web processes have written what had reached them.

    False when one did not come to its end, and was killed.
    """
    ended = True
    for pid in writers(directory):
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([process], [], [], DRAIN_TIMEOUT_S)[0]:
                ended = False
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [], DRAIN_TIMEOUT_S)
        finally:
            os.close(process)
    return ended
