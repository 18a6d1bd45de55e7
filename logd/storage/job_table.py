"""The table of jobs on stored events: their parameters, progress and outcome.

A job's progress is committed together with its work, so that after a crash the next process to open
the database resumes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from logd.storage.database import Connection

PRUNE = "prune"
FORGET = "forget"
RECORD = "record"  # a job that only stores an internal event

ASKED = "asked"
CLEAN = "clean"  # the events are erased, but remains of them are in the file
STOPPED = "stopped"  # the job has stopped, since the clock is not trusted; `trouble` has the reason


@dataclass
class Job:
    """A row of the table `job`.

    `done` of `total` is its progress for display; `outcome` has counts.
    """

    id: int
    kind: str
    params: dict[str, Any]
    asked_ns: int
    phase: str = ASKED
    position: int = 0
    done: int = 0
    total: int = 0
    outcome: dict[str, int] = field(default_factory=dict)
    trouble: str | None = None
    finished_ns: int | None = None

    def add(self, what: str, number: int) -> None:
        """Adds `number` to one count of the outcome."""
        self.outcome[what] = self.outcome.get(what, 0) + number

    def save(self, connection: Connection) -> None:
        """Writes the job's row, inside the caller's transaction or in one of its own."""
        params = bytearray(msgpack.packb(self.params)) if self.params else None
        connection.execute(
            "UPDATE job SET params = ?, phase = ?, position = ?, done = ?, total = ?, outcome = ?,"
            " trouble = ?, finished_ns = ? WHERE id = ?",
            (params, self.phase, self.position, self.done, self.total)
            + (bytearray(msgpack.packb(self.outcome)), self.trouble, self.finished_ns, self.id),
        )


def add_job(connection: Connection, kind: str, params: Mapping[str, Any], now_ns: int) -> int:
    """Adds a job, which the daemon finds at its next poll; returns its id."""
    (job_id,) = connection.execute(
        "INSERT INTO job (kind, params, asked_ns, phase, position, done, total, outcome)"
        " VALUES (?, ?, ?, ?, 0, 0, 0, x'80') RETURNING id",
        (kind, bytearray(msgpack.packb(params)), now_ns, ASKED),
    ).fetchone()
    return int(job_id)


def read_job(connection: Connection, job_id: int) -> Job | None:
    """Returns the job; None if it does not exist, for example after a restore."""
    return _one(connection, "id = ?", job_id)


def next_job(connection: Connection) -> Job | None:
    """Returns the next job: records first, vacuums last, so that one serves several forgets."""
    return _one(connection, "finished_ns IS NULL ORDER BY kind <> 'record', phase = 'clean', id")


def finish_cleaned(connection: Connection, now_ns: int) -> None:
    """Marks the jobs that waited for the vacuum as done, inside the caller's transaction."""
    connection.execute(
        "UPDATE job SET finished_ns = ?, done = total, trouble = NULL"
        " WHERE finished_ns IS NULL AND phase = ?",
        (now_ns, CLEAN),
    )


def _one(connection: Connection, which: str, *values: object) -> Job | None:
    row = connection.execute(
        "SELECT id, kind, params, asked_ns, phase, position, done, total, outcome, trouble,"  # noqa: S608 - no data in it
        f" finished_ns FROM job WHERE {which} LIMIT 1",
        values,
    ).fetchone()
    if row is None:
        return None
    job_id, kind, params, asked_ns, phase, position, done, total, outcome, *end = row
    unpacked = {} if params is None else msgpack.unpackb(params)
    return Job(
        job_id,
        kind,
        unpacked,
        asked_ns,
        phase,
        position,
        done,
        total,
        msgpack.unpackb(outcome),
        *end,
    )
