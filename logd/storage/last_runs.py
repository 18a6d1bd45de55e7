"""The last runs of maintenance commands, in a small file beside the database.

`logd status` and the metrics show them, so that an administrator sees a failed run without reading
the log.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from logd.atomic_file import read_regular, replace_file
from logd.config.settings import Config

BACKUP = "backup"
PRUNE = "prune"

FILE_BYTES_MAX = 16_384
PROBLEM_CHARS_MAX = 1000


@dataclass(frozen=True)
class Run:
    """The last run of a command: its end, the end of the last good run, and why it failed."""

    at_ns: int
    ok_ns: int | None = None
    problem: str | None = None


def path_of(database: Path) -> Path:
    """Returns the path of the file with the last runs."""
    return database.with_name(database.name + ".runs")


@contextlib.contextmanager
def recorded(config: Config, command: str) -> Iterator[None]:
    """Records how the run of a command, in the `with` block, ends, and why it failed."""
    try:
        yield
    except Exception as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        _record(config, command, problem[:PROBLEM_CHARS_MAX])
        raise
    _record(config, command, None)


def read_runs(database: Path) -> Mapping[str, Run]:
    """Returns the last runs by command; empty if none was recorded or the file cannot be read."""
    try:
        found = json.loads(read_regular(path_of(database), FILE_BYTES_MAX))
        return {name: Run(**found[name]) for name in (BACKUP, PRUNE) if name in found}
    except (OSError, ValueError, TypeError):
        return {}


def _record(config: Config, command: str, problem: str | None) -> None:
    runs, now_ns = dict(read_runs(config.database)), time.time_ns()
    if problem is None:
        runs[command] = Run(now_ns, now_ns)
    else:
        runs[command] = replace(runs.get(command, Run(0)), at_ns=now_ns, problem=problem)
    text = json.dumps({name: asdict(run) for name, run in runs.items()}) + "\n"
    # Errors (a full disk, no permission) are ignored, since the command reports its own failure.
    with contextlib.suppress(OSError):
        replace_file(path_of(config.database), text.encode("ascii"), config.database.stat())
