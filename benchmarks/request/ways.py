"""The ways of logging that are compared, each used inside a site with one event per request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flask import Flask

from benchmarks.harness.event_database import (
    CIPHER_LABELS,
    CIPHERS,
    EVENT_TYPE,
    JOURNAL_LABELS,
    JOURNALS,
    PROPS,
    USER,
    Database,
    Synchronous,
)
from benchmarks.harness.processes import Instance
from benchmarks.request import access_log, queues
from benchmarks.request.files import JsonLines, import_lines, import_names
from flask_logd import ActivityLog

# Web processes and threads, as in `make run`.
WORKERS = 2
THREADS = 4
QUIZ_TYPE = "quiz_submitted"
# In the selective way one page in this many is a quiz.
QUIZ_EVERY = 10
QUERY_EVENTS_MAX = 10_000_000


class EventLogger(Protocol):
    """A way of logging inside a web process."""

    def log(self, event: str, quiz: bool, /) -> bool:
        """Log one event; this call is timed. False if it was refused."""


class Nothing:
    """No logging in the web process: the cost of the request itself."""

    def log(self, _event: str, _quiz: bool) -> bool:
        return True


class Logd:
    """The extension in the site, with a logd daemon."""

    def __init__(self, app: Flask, directory: Path, durable: frozenset[str]) -> None:
        app.config["ACTIVITY_LOG_SOCKET"] = str(Instance(directory).socket)
        self._activity = ActivityLog(app)
        self._durable = durable

    def log(self, event: str, quiz: bool) -> bool:
        event_type = QUIZ_TYPE if quiz else EVENT_TYPE
        durable = event_type in self._durable
        return bool(
            self._activity.log(event_type, user=USER, durable=durable, event=event, **PROPS)
        )


@dataclass(frozen=True)
class Way:
    """A row of the table: how the site logs, and how stored events are found afterwards.

    `lost_max` is how many accepted events `kill -9` of the web processes may lose: those in their
    memory. More is a wrong sum.
    """

    name: str
    label: str
    make: Callable[[Flask, Path], EventLogger]
    stored: Callable[[Path], list[str]] | None = None  # None: it does not log
    prepare: Callable[[Path], None] = lambda _directory: None
    lost_max: int = 0
    has_daemon: bool = False
    is_behind_nginx: bool = False
    quiet_requests_min: int = 50
    quiet_requests_max: int = 400
    load_s: float = 0.3


def _nothing(_app: Flask, _directory: Path) -> EventLogger:
    return Nothing()


def _synchronous(cipher: str, journal: str, keep_connection: bool) -> Way:
    def database(directory: Path) -> Database:
        return Database(directory, cipher, journal)

    kept = "kept" if keep_connection else "new"
    return Way(
        f"sync-{kept}-{cipher}-{journal}",
        f"{kept} connection, {CIPHER_LABELS[cipher]}, {JOURNAL_LABELS[journal]}",
        lambda _app, directory: Synchronous(database(directory), keep_connection=keep_connection),
        stored=lambda directory: database(directory).stored(),
        prepare=lambda directory: database(directory).prepare(),
        # There are many of these ways, and their calls take long.
        quiet_requests_min=2,
        quiet_requests_max=60,
        load_s=0.25,
    )


def _queue(name: str, label: str, make: Callable[[Database], EventLogger]) -> Way:
    return Way(
        name,
        label,
        lambda _app, directory: make(Database(directory)),
        stored=_stored_by_queue,
        prepare=lambda directory: Database(directory).prepare(),
        lost_max=WORKERS * queues.LOST_MAX,
    )


def _stored_by_queue(directory: Path) -> list[str]:
    queues.wait_for_writers(directory)
    return Database(directory).stored()


def _logd(name: str, label: str, *durable: str) -> Way:
    return Way(
        name,
        label,
        lambda app, directory: Logd(app, directory, frozenset(durable)),
        stored=_stored_by_logd,
        has_daemon=True,
    )


def _stored_by_logd(directory: Path) -> list[str]:
    instance = Instance(directory)
    lines = instance.command(
        *("query", "--config", str(instance.config)),
        *("--format", "jsonl", "--limit", str(QUERY_EVENTS_MAX)),
    )
    events = map(json.loads, lines.splitlines())
    return [e["props"]["event"] for e in events if e["type"] in (EVENT_TYPE, QUIZ_TYPE)]


def _ways() -> Iterator[Way]:
    yield Way("none", "no logging", _nothing)
    for keep_connection in (False, True):
        for cipher in CIPHERS:
            for journal in JOURNALS:
                yield _synchronous(cipher, journal, keep_connection)
    yield _queue(
        "queue-new",
        "queue to a thread, new connections",
        lambda database: queues.ThreadQueue(database, keep_connection=False),
    )
    yield _queue(
        "queue-kept",
        "queue to a thread, connection kept",
        lambda database: queues.ThreadQueue(database, keep_connection=True),
    )
    yield _queue("process", "queue to a child process", queues.ProcessQueue)
    yield Way(
        "jsonl",
        "JSON lines, imported later",
        lambda _app, directory: JsonLines(directory),
        stored=import_lines,
    )
    yield Way("nginx-none", "no logging, behind nginx", _nothing, is_behind_nginx=True)
    yield Way(
        "nginx",
        "access log of nginx, imported later",
        _nothing,
        stored=lambda directory: import_names(directory, access_log.answered(directory)),
        # Pages that the kill cut off are in the log as a bad gateway.
        lost_max=WORKERS * THREADS,
        is_behind_nginx=True,
    )
    yield _logd("logd", "logd")
    yield _logd("logd-durable", "logd, all durable", EVENT_TYPE, QUIZ_TYPE)
    yield _logd("logd-selective", f"logd, quizzes durable (1 in {QUIZ_EVERY})", QUIZ_TYPE)


WAYS = {way.name: way for way in _ways()}
