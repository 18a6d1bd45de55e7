"""The machine, the versions and the commit that figures come from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import sqlcipher3

from logd.ingest.outbox_directory import filesystem_type

PROJECT = Path(__file__).resolve().parents[2]
RESULTS = PROJECT / "benchmarks" / "results"
# For child processes: the modules of this checkout, wherever the benchmark was started.
PYTHONPATH = os.pathsep.join([str(PROJECT), str(PROJECT / "shared")])


@dataclass(frozen=True)
class Machine:
    """The conditions under which figures were measured."""

    cores: int
    cpu: str
    load: float  # load average of the minute before the run
    kernel: str
    python: str
    sqlcipher: str
    sqlite: str
    sqlcipher3: str
    flask: str
    gunicorn: str
    max_dgram_qlen: str
    file_system: str  # file system of the databases
    commit: str
    started: str

    def __str__(self) -> str:
        return (
            f"{self.cores} cores, {self.cpu} (load {self.load:.2f} at the start),"
            f" Linux {self.kernel}, databases on {self.file_system},"
            f" max_dgram_qlen {self.max_dgram_qlen}\n"
            f"Python {self.python}, SQLCipher {self.sqlcipher}, SQLite {self.sqlite},"
            f" sqlcipher3 {self.sqlcipher3}, Flask {self.flask}, gunicorn {self.gunicorn}\n"
            f"commit {self.commit}, {self.started}"
        )


def detect(directory: Path) -> Machine:
    """Describe this machine, with databases in `directory`."""
    connection = sqlcipher3.connect(":memory:")
    try:
        cipher = connection.execute("PRAGMA cipher_version").fetchone()[0]
    finally:
        connection.close()
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        cpu=_cpu(),
        load=os.getloadavg()[0],
        kernel=platform.release(),
        python=platform.python_version(),
        sqlcipher=cipher.split()[0],
        sqlite=sqlcipher3.sqlite_version,
        sqlcipher3=metadata.version("sqlcipher3"),
        flask=metadata.version("flask"),
        gunicorn=metadata.version("gunicorn"),
        max_dgram_qlen=_read("/proc/sys/net/unix/max_dgram_qlen"),
        file_system=filesystem_type(directory) or "an unknown file system",
        commit=_commit(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _cpu() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "unknown"


def _commit() -> str:
    """Return the commit, marked if tracked files of the measured code differ from it."""
    git = ["git", "-C", str(PROJECT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--"]
            + ["shared", "logd", "benchmarks/*.py"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} and changes" if changed else commit


def write_results(directory: Path, name: str, machine: Machine, body: Mapping[str, Any]) -> Path:
    """Write a part's results as JSON."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    path.write_text(json.dumps({"machine": asdict(machine), **body}, indent=1) + "\n")
    return path


def display_path(path: Path) -> str:
    """Return the path relative to the current directory, where possible."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
