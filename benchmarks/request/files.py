"""The way through a file: the request appends a line, an importer stores the lines later."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from benchmarks.harness.event_database import EVENT_TYPE, USER, Database, Row, make_row, store

FILE = "events.jsonl"


class JsonLines:
    """Appends one line to a file for each event, without a flush."""

    def __init__(self, directory: Path) -> None:
        # O_APPEND keeps the lines of several processes and threads apart.
        self._file = os.open(directory / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def log(self, event: str, _quiz: bool) -> bool:
        ts_ns, event_type, user, props = make_row(event)
        line = json.dumps({"ts_ns": ts_ns, "type": event_type, "user": user, "props": props})
        data = line.encode() + b"\n"
        return os.write(self._file, data) == len(data)


def import_lines(directory: Path) -> list[str]:
    """Store all complete lines in one transaction; return the names of the stored events."""
    rows: list[Row] = []
    with contextlib.suppress(FileNotFoundError), open(directory / FILE, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                event = json.loads(line)
                rows.append((event["ts_ns"], event["type"], event["user"], event["props"]))
    return imported(directory, rows)


def import_names(directory: Path, names: list[str]) -> list[str]:
    """Store events of which only the name is known; return the names of the stored events."""
    return imported(directory, [(0, EVENT_TYPE, USER, json.dumps({"event": n})) for n in names])


def imported(directory: Path, rows: list[Row]) -> list[str]:
    """Store the rows in a fresh database; return the names of the stored events."""
    database = Database(directory, "raw", "wal")
    database.prepare()
    with contextlib.closing(database.open()) as connection:
        store(connection, rows)
    return database.stored()
