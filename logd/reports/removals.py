"""Reports when events were removed, and how many, by retention or by erasure of a person.

The persons who were erased are in no table, and are not named.
"""

from __future__ import annotations

import msgpack

from logd.reports import sql
from logd.reports.parameters import Parameters, page_bounds
from logd.storage.database import Connection
from logd.storage.job_table import FORGET, PRUNE
from logd_wire.query import Answer


def removals(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the runs of `logd prune` and `logd forget`, newest first."""
    before, limit = page_bounds(parameters)
    parameters.done()
    rows = sql.fetch_rows(
        connection,
        "SELECT id, kind, asked_ns, finished_ns, outcome, trouble AS problem FROM job"
        " WHERE kind IN (?, ?) AND (? IS NULL OR id < ?) ORDER BY id DESC LIMIT ?",
        [PRUNE, FORGET, before, before, limit + 1],
    )
    for row in rows:
        row["outcome"] = msgpack.unpackb(row["outcome"])
    more = len(rows) > limit
    return Answer(rows[:limit], rows[limit - 1]["id"] if more else None)
