"""The way through a file: the request writes a line, an importer stores the lines later."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from benchmarks.harness.event_database import EVENT_TYPE, USER, Database, Row, make_row, store

FILE = "events.jsonl"


class JsonLines:
    """One write to the end of a file for each event; nothing is flushed to the disk."""

    def __init__(self, directory: Path) -> None:
        # O_APPEND: the lines of several processes and threads do not run into each other.
        self._file = os.open(directory / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def log(self, event: str, _quiz: bool) -> bool:
        ts_ns, event_type, user, props = make_row(event)
        line = json.dumps({"ts_ns": ts_ns, "type": event_type, "user": user, "props": props})
        data = line.encode() + b"\n"
        return os.write(self._file, data) == len(data)


def import_lines(directory: Path) -> list[str]:
    """Stores all complete lines, in one transaction; the names of the events then stored."""
    rows: list[Row] = []
    with contextlib.suppress(FileNotFoundError), open(directory / FILE, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                event = json.loads(line)
                rows.append((event["ts_ns"], event["type"], event["user"], event["props"]))
    return imported(directory, rows)


def import_names(directory: Path, names: list[str]) -> list[str]:
    """Stores events of which nothing but the name is known."""
    return imported(directory, [(0, EVENT_TYPE, USER, json.dumps({"event": n})) for n in names])


def imported(directory: Path, rows: list[Row]) -> list[str]:
    """Stores the rows in a fresh database; what is in it then."""
    database = Database(directory, "raw", "wal")
    database.prepare()
    with contextlib.closing(database.open()) as connection:
        store(connection, rows)
    return database.stored()
