"""The time and result of the last `logd verify`, in a small file beside the database.

It also records what is proven, so that the next incremental run need not prove that again.

`logd status`, the metrics and the site show it. It is a reminder, not evidence: anyone who may
write there can change it, and only the tree proves anything.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from logd.atomic_file import read_regular, replace_file
from logd.config.settings import Config
from logd.errors import cannot_write

FILE_BYTES_MAX = 4096

WHOLE = "whole"
NOT_WHOLE = "not_whole"  # the trail was changed, or its end cut off
NOT_PROVEN = "not_proven"  # the trail is whole, but the anchors that would prove it are missing


@dataclass(frozen=True)
class Integrity:
    """The result of a `logd verify`.

    `whole` is False only for the answer NOT_WHOLE; `proven` is the state of `logd.audit.proven`,
    None after a run that found something.
    """

    at_ns: int
    whole: bool
    events: int
    batches: int
    head: str
    findings: int
    answer: str
    proven: dict[str, Any] | None = None


def path_of(database: Path) -> Path:
    """Returns the path of the file with the last result."""
    return database.with_name(database.name + ".verified")


def record_verification(config: Config, integrity: Integrity) -> None:
    """Writes the result to its file, atomically, for the database's owner. Raises a LogdError."""
    path = path_of(config.database)
    try:
        text = json.dumps(asdict(integrity)) + "\n"
        replace_file(path, text.encode("ascii"), config.database.stat())
    except OSError as error:
        raise cannot_write(path, error) from error


def read_verification(database: Path) -> Integrity | None:
    """Returns the last result; None if there is none, or its file cannot be read."""
    try:
        fields = json.loads(read_regular(path_of(database), FILE_BYTES_MAX))
        # A file of an earlier version has no `answer`.
        fields.setdefault("answer", WHOLE if fields["whole"] else NOT_WHOLE)
        return Integrity(**fields)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
