"""The time and result of the last `logd verify`, in a small file beside the database.

It also has what is proven, so that the next incremental run need not prove it again.

`logd status` and the metrics show it. It is a reminder, not evidence: anyone who may write there
can change it, and only the chain proves anything.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from logd.atomic_file import replace_file
from logd.config.settings import Config
from logd.errors import cannot_write

FILE_BYTES_MAX = 4096


@dataclass(frozen=True)
class Integrity:
    """The result of a `logd verify`; `proven` is the state of `logd.audit.proven`, None after one
    that found something.
    """

    at_ns: int
    whole: bool
    events: int
    batches: int
    head: str
    findings: int
    proven: dict[str, Any] | None = None


def path_of(config: Config) -> Path:
    """The path of the file."""
    return config.database.with_name(config.database.name + ".verified")


def record_verification(config: Config, integrity: Integrity) -> None:
    """Writes the file atomically, for the database's owner. Raises LogdError kinds."""
    path = path_of(config)
    try:
        text = json.dumps(asdict(integrity)) + "\n"
        replace_file(path, text.encode("ascii"), config.database.stat())
    except OSError as error:
        raise cannot_write(path, error) from error


def read_verification(config: Config) -> Integrity | None:
    """Reads the file; None if there is none, or it cannot be read."""
    try:
        with path_of(config).open("rb") as file:
            return Integrity(**json.loads(file.read(FILE_BYTES_MAX)))
    except (OSError, ValueError, TypeError):
        return None
