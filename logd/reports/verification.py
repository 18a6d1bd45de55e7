"""Reports the result of the last `logd verify`, which is kept in a file beside the database."""

from __future__ import annotations

from pathlib import Path

from logd.reports.parameters import Parameters
from logd.storage.database import Connection
from logd.storage.last_verification import read_verification
from logd_wire.query import Answer


def verification(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the answer of the last `logd verify`, in one row; nil if there was none."""
    parameters.done()
    (_, _, database), *_ = connection.execute("PRAGMA database_list").fetchall()
    found = read_verification(Path(database))
    if found is None:
        return Answer([{"answer": None, "verified_ns": None, "findings": None}])
    return Answer(
        [{"answer": found.answer, "verified_ns": found.at_ns, "findings": found.findings}]
    )
