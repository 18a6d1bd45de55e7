"""Measure how many events per second the earlier design's queue stores.

`python -m benchmarks.ingest.earlier_queue DIRECTORY SECONDS new|kept NORMAL|FULL` uses a new
connection for each transaction, as the notes have it, or one that is kept, and WAL with that
`synchronous`. With NORMAL a kept connection does not flush at a commit, so only FULL is as durable
as `logd`.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from benchmarks.harness.event_database import Database, store
from benchmarks.request import queues

MARK = "queue: "
# Seconds to wait when the queue is full: a busy loop would hold the interpreter's lock.
FULL_WAIT_S = 0.001
END_TIMEOUT_S = 30.0
JOURNALS = {"NORMAL": "wal", "FULL": "walfull"}


@dataclass(frozen=True)
class Queued:
    """The counts of one measurement. The rate is measured from the first to the last commit."""

    attempted: int
    accepted: int
    refused: int
    stored: int
    pending: int
    transactions: int
    events_s: float


class Commits:
    """Wraps the queue's store function and records each transaction."""

    def __init__(self, store: Callable[[Any, Sequence[Any]], None]) -> None:
        self._store = store
        self.events = 0
        self._marks: list[tuple[float, int]] = []

    def __call__(self, connection: Any, rows: Sequence[Any]) -> None:
        self._store(connection, rows)
        self._marks.append((time.monotonic(), len(rows)))
        self.events += len(rows)

    @property
    def count(self) -> int:
        return len(self._marks)

    def events_s(self) -> float:
        """Return events per second after the first commit; 0 without a second one."""
        if len(self._marks) < 2:
            return 0.0
        took_s = self._marks[-1][0] - self._marks[0][0]
        return sum(events for _, events in self._marks[1:]) / took_s


def earlier(
    directory: Path, keep: bool, synchronous: str
) -> tuple[Callable[[], bool], Queue[Any], Commits, Callable[[], int]]:
    """Make the queue; return how to log, the queue, its commits, and how to count stored events."""
    commits = Commits(store)
    database = Database(directory, "passphrase", JOURNALS[synchronous])
    database.prepare()
    made = queues.ThreadQueue(database, keep_connection=keep, store=commits)
    numbers = itertools.count()
    log = lambda: made.log(str(next(numbers)), False)  # noqa: E731 - binds the arguments of each call
    return log, made.queue, commits, lambda: len(database.stored())


def measure(directory: Path, seconds: float, keep: bool, synchronous: str) -> Queued:
    """Offer events for `seconds` after the first commit, then count what is still queued."""
    log, waiting, commits, count = earlier(directory, keep, synchronous)
    accepted = refused = 0
    # The clock starts at the first commit,
    # since the thread derives a key and opens the file before it.
    deadline_s, counting = time.monotonic() + END_TIMEOUT_S, False
    while time.monotonic() < deadline_s:
        if commits.count and not counting:
            deadline_s, counting = time.monotonic() + seconds, True
        if log():
            accepted += 1
        else:
            refused += 1
            time.sleep(FULL_WAIT_S)
    transactions, events_s = commits.count, commits.events_s()
    pending = _take_back(waiting)
    end_s = time.monotonic() + END_TIMEOUT_S
    while commits.events < accepted - pending and time.monotonic() < end_s:
        time.sleep(FULL_WAIT_S)
    return Queued(
        attempted=accepted + refused,
        accepted=accepted,
        refused=refused,
        stored=count(),
        pending=pending,
        transactions=transactions,
        events_s=events_s,
    )


def _take_back(waiting: Queue[Any]) -> int:
    taken = 0
    try:
        while True:
            waiting.get_nowait()
            taken += 1
    except Empty:
        return taken


def main(directory: str, seconds: str, connection: str, synchronous: str) -> None:
    """Run one measurement and print the result as one line."""
    queued = measure(Path(directory), float(seconds), connection == "kept", synchronous)
    print(MARK + json.dumps(asdict(queued)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
