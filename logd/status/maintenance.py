"""The state of maintenance: the last backup, prune and forget, and whether it failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from logd.storage.database import Connection
from logd.storage.job_table import FORGET
from logd.storage.last_runs import BACKUP, PRUNE, Run, read_runs

TASKS = (BACKUP, PRUNE, FORGET)
JOB_SCHEMA = 3


def job_troubles(connection: Connection, schema: int) -> dict[str, str]:
    """Returns why the newest job of each kind waits or has failed."""
    if schema < JOB_SCHEMA:
        return {}
    return dict(
        connection.execute(
            "SELECT kind, trouble FROM job WHERE trouble IS NOT NULL AND id IN"
            " (SELECT max(id) FROM job GROUP BY kind)"
        ).fetchall()
    )


def last_forget(connection: Connection, schema: int) -> Run | None:
    """Returns the last run of `forget` that has ended, by a command, the daemon or its start."""
    if schema < JOB_SCHEMA:
        return None
    ended_ns, good_ns = connection.execute(
        "SELECT max(finished_ns), max(iif(trouble IS NULL, finished_ns, NULL)) FROM job"
        " WHERE kind = ?",
        (FORGET,),
    ).fetchone()
    return None if ended_ns is None else Run(ended_ns, good_ns)


def maintenance_state(
    database: Path, forget: Run | None, troubles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Returns an entry for each task: its last end, its last success, and its problem."""
    runs = {**read_runs(database), **({} if forget is None else {FORGET: forget})}
    found = []
    for task in TASKS:
        run = runs.get(task)
        found.append(
            {
                "task": task,
                "at_ns": run and run.at_ns,
                "ok_ns": run and run.ok_ns,
                "problem": (run and run.problem) or troubles.get(task),
            }
        )
    return found
