"""The ways through a queue: to a thread of the web process, or to a child process.

Both queues hold 1,000 events and write up to ten in a transaction, as the earlier design did.
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
LOST_MAX = QUEUE_EVENTS_MAX + BATCH_MAX  # bound of the queue of one web process
DRAIN_TIMEOUT_S = 15.0
READY_TIMEOUT_S = 15.0

_WRITER = "writer-"

Store = Callable[[Any, Sequence[Row]], None]


class ThreadQueue:
    """A bounded queue in the process, and one thread that writes.

    The notes do not say whether the thread kept its connection, so both are measured.
    """

    def __init__(self, database: Database, *, keep_connection: bool, store: Store = store) -> None:
        self.queue: queue.Queue[Row] = queue.Queue(QUEUE_EVENTS_MAX)
        # Opened before the first request, so that only a running queue is measured.
        kept = open_retrying(database) if keep_connection else None
        arguments = (self.queue, database, kept, store)
        threading.Thread(target=write, args=arguments, daemon=True).start()

    def log(self, event: str, _quiz: bool) -> bool:
        return _offered(self.queue.put_nowait, event)


class ProcessQueue:
    """The same queue with the writer in a child process, which survives the web process."""

    def __init__(self, database: Database) -> None:
        context = multiprocessing.get_context("fork")
        self.queue: Any = context.Queue(QUEUE_EVENTS_MAX)
        # A pipe, since an Event's `set` would block forever if the waiting process was killed.
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
    """Store events from the queue, up to ten at a time, until no more can come.

    Uses the connection `kept`, or a new one each time.
    """
    has_more = True
    while has_more:
        rows, has_more = _take(source)
        if rows:
            _store_retrying(database, kept, rows, store)


def _take(source: Any) -> tuple[list[Row], bool]:
    """Wait for an event; return up to ten events, and whether more can come."""
    rows: list[Row] = []
    try:
        rows.append(source.get())
        while len(rows) < BATCH_MAX:
            rows.append(source.get_nowait())
    except queue.Empty:
        return rows, True
    except (EOFError, OSError):  # the web process died, perhaps while it wrote a message
        return rows, False
    return rows, True


def open_retrying(database: Database) -> Any:
    """Open the database, retrying while the other web process's writer has it locked."""
    while True:
        try:
            return database.open()
        except sqlcipher3.OperationalError:
            if not database.directory.is_dir():  # the benchmark was ended and has removed the file
                raise
            continue


def _store_retrying(database: Database, kept: Any, rows: list[Row], store: Store) -> None:
    """Store the rows, retrying while the other web process's writer has the file locked."""
    while True:
        try:
            connection = kept or database.open()
            try:
                store(connection, rows)
            finally:
                if connection is not kept:
                    connection.close()
        except sqlcipher3.OperationalError:
            if not database.directory.is_dir():  # the benchmark was ended and has removed the file
                raise
            continue
        return


def _write_in_child(source: Any, database: Database, opened: Any) -> None:
    (database.directory / f"{_WRITER}{os.getpid()}").touch()
    # Leave the web process's group, and reset the server's signal handlers.
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # The child inherits the queue's writing end; while that is open here,
    # reading never ends. The queue has no public way to close it.
    source._writer.close()
    kept = open_retrying(database)
    opened.close()
    write(source, database, kept)


def writers(directory: Path) -> list[int]:
    """Return the ids of the child processes started for `directory`."""
    return [int(path.name.removeprefix(_WRITER)) for path in directory.glob(f"{_WRITER}*")]


def wait_for_writers(directory: Path) -> bool:
    """Wait until the children of killed web processes have written what had reached them.

    Returns False if one did not finish and was killed.
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
