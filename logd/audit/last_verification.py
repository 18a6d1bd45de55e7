"""When the trail was last verified, and how that ended: a small file beside the database.

`logd verify` leaves it, `logd status` and the metrics show it. It is nothing to rely on against
somebody who may write there, only a reminder: the chain is what proves.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from logd.atomic_file import replace_file
from logd.config.settings import Config
from logd.errors import cannot_write

FILE_BYTES_MAX = 4096


@dataclass(frozen=True)
class Integrity:
    """How a `logd verify` ended."""

    at_ns: int
    whole: bool
    events: int
    batches: int
    head: str
    findings: int


def path_of(config: Config) -> Path:
    """Where it is kept."""
    return config.database.with_name(config.database.name + ".verified")


def note(config: Config, integrity: Integrity) -> None:
    """Keeps it, in one step; the file belongs to the database's owner. Raises LogdError kinds."""
    path = path_of(config)
    text = json.dumps(asdict(integrity)) + "\n"
    try:
        replace_file(path, text.encode(), config.database.stat())
    except OSError as error:
        raise cannot_write(path, error) from error


def last(config: Config) -> Integrity | None:
    """The last one kept; None when there is none that can be read."""
    try:
        with path_of(config).open("rb") as file:
            return Integrity(**json.loads(file.read(FILE_BYTES_MAX)))
    except (OSError, ValueError, TypeError):
        return None
