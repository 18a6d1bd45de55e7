"""Records that a command of the administrator read about a person, as an event `report_read`.

The event has the form of a report's reading (`logd.serve.access_events`), without a user: the
command line knows a uid, and no account. It is on disk, as a job, before the command prints
anything; a running daemon stores the event at its next poll of jobs, or the next one at its start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from logd.config.settings import Config
from logd.storage import job_table, opening
from logd_wire.schema import REPORT_READ


def record_command(
    config: Config, command: str, params: Mapping[str, Any], *, everyone: bool
) -> None:
    """Records the reading. Raises a LogdError; then nothing may be printed."""
    props = {
        "report": f"logd {command}",
        "params": dict(params),
        "everyone": everyone,
        "peer_uid": os.getuid(),
        "peer_pid": os.getpid(),
    }
    with opening.open_for_writing(config) as connection:
        event = {"type": REPORT_READ, "props": props}
        job_table.add_job(connection, job_table.RECORD, event, time.time_ns())
