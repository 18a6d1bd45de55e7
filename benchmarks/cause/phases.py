"""One event over a new connection, phase by phase, in the cells of `benchmarks.cause.measure`.

Runs in a process of its own, so that only that process has the shim of `slow_flush`. Every round
goes through all cells and both disks, so that other load on the machine affects all of them.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import slow_flush
from benchmarks.harness.event_database import Database, insert, make_row


@dataclass(frozen=True)
class Cell:
    """One combination of conditions. With `elsewhere`, another connection keeps the file open."""

    flush_ms: int
    cipher: str
    journal: str
    elsewhere: bool = False

    @property
    def directory(self) -> str:
        """The directory of the database, which both disks share."""
        return f"{self.cipher}-{self.journal}{'-elsewhere' if self.elsewhere else ''}"


def cells(disks: Sequence[int]) -> list[Cell]:
    """Return all cells in the order of the table."""
    kinds = (("delete", False), ("wal", False), ("wal", True))
    return [
        Cell(flush_ms, cipher, journal, elsewhere)
        for flush_ms in disks
        for cipher in ("passphrase", "raw")
        for journal, elsewhere in kinds
    ]


@dataclass(frozen=True)
class Event:
    """One event in one cell: durations in nanoseconds, and flushes (-1: not counted)."""

    cell: int
    open_ns: int
    open_cpu_ns: int  # CPU time of the event, which other load does not lengthen
    insert_ns: int
    commit_ns: int
    close_ns: int
    flushes: int


def write(cell: Cell, number: int, place: Path, event: str) -> Event:
    """Write one event and measure each phase."""
    slow_flush.set_ms(cell.flush_ms)
    database = Database(place / cell.directory, cell.cipher, cell.journal)
    row = make_row(event)
    clock_ns = time.perf_counter_ns
    before = slow_flush.count()
    cpu_ns = time.thread_time_ns()
    marks = [clock_ns()]
    connection = database.open()
    marks.append(clock_ns())
    cpu_ns = time.thread_time_ns() - cpu_ns
    connection.execute("BEGIN IMMEDIATE")
    insert(connection, [row])
    marks.append(clock_ns())
    connection.execute("COMMIT")
    marks.append(clock_ns())
    connection.close()
    marks.append(clock_ns())
    after = slow_flush.count()
    flushes = -1 if before is None or after is None else after - before
    opening, inserting, committing, closing = (b - a for a, b in itertools.pairwise(marks))
    return Event(number, opening, cpu_ns, inserting, committing, closing, flushes)


def main(place: Path, disks: Sequence[int], rounds: int, most_s: float) -> None:
    """Print a line for each event, and at the end one with the stored events of each cell.

    Ends after `rounds` rounds, or with the round in which `most_s` seconds have passed.
    """
    slow_flush.set_ms(0)
    all_cells = cells(disks)
    kept_open: list[Any] = []
    databases: dict[str, Database] = {}
    for cell in all_cells:
        if cell.directory not in databases:
            database = Database(place / cell.directory, cell.cipher, cell.journal)
            database.directory.mkdir()
            database.prepare()
            databases[cell.directory] = database
            if cell.elsewhere:
                kept_open.append(database.open())
    end_s = time.monotonic() + most_s
    for turn in range(rounds + 1):
        for number, cell in enumerate(all_cells):
            event = write(cell, number, place, f"{number}-{turn}")
            if turn:  # the first round is a warm-up
                print(json.dumps(asdict(event)), flush=True)
        if turn and time.monotonic() > end_s:
            break
    slow_flush.set_ms(0)
    names = {name for database in databases.values() for name in database.stored()}
    stored = [0] * len(all_cells)
    for name in names:
        stored[int(name.partition("-")[0])] += 1
    print(json.dumps({"attempted": turn + 1, "stored": stored}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
