"""Processes under measurement: started, waited for, and always ended with the run."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.harness.machine import PYTHONPATH
from logd.config import settings as configuration
from webapp.run.process import Child, Events, Exited, Line, describe_exit

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


class Failed(Exception):
    """A process failed or did not answer; the text holds its last output."""


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far, without its children's."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()  # the name may contain anything (proc_pid_stat(5))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Running:
    """A running Python process of this project, started with `arguments`."""

    def __init__(self, name: str, arguments: Sequence[str], extra: Mapping[str, str]) -> None:
        # The process uses the modules of this checkout,
        # and no settings of the caller's environment.
        env = {**os.environ, "PYTHONPATH": PYTHONPATH, **extra}
        env.pop("GUNICORN_CMD_ARGS", None)
        self.name = name
        self._events: Events = queue.SimpleQueue()
        self._child = Child(name, [sys.executable, *arguments], self._events, env)
        self.pid = self._child.pid

    def wait_for_line(self, mark: str, timeout_s: float = READY_TIMEOUT_S) -> str:
        """Return the first line of output that contains `mark`. Raises Failed."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                raise Failed(f"{self.name}: no {mark!r} within {timeout_s:.0f} s") from None
            if isinstance(event, Line) and mark in event.text:
                return event.text
            if isinstance(event, Exited):
                output = "\n".join(self._child.last_lines)
                raise Failed(f"{self.name}: {describe_exit(event.code)}\n{output}")

    def cpu_s(self) -> float:
        """Return the CPU time of this process so far, without its children's."""
        return cpu_s(self.pid)

    def stop(self) -> list[str]:
        """Send SIGTERM and return the last lines of output. Raises Failed on an error."""
        code = self._child.stop(STOP_TIMEOUT_S)
        with contextlib.suppress(queue.Empty):
            while not isinstance(self._events.get(timeout=STOP_TIMEOUT_S), Exited):
                pass
        output = list(self._child.last_lines)
        if code != 0:
            raise Failed("\n".join([f"{self.name}: {describe_exit(code)}", *output]))
        return output

    def kill(self) -> None:
        """Kill the process if it still runs."""
        self._child.kill()


@contextlib.contextmanager
def running(
    name: str, arguments: Sequence[str], extra: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run a process for the length of a `with`; kill it at the end unless it was stopped."""
    process = Running(name, arguments, extra or {})
    try:
        yield process
    finally:
        process.kill()


@contextlib.contextmanager
def temporary_directory(parent: Path | None) -> Iterator[Path]:
    """Make a temporary directory with a short path: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="logd-bench-", dir=parent) as name:
        yield Path(name)


class Instance:
    """A logd instance made by `logd init` in `directory`; its outboxes are removed at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "logd.toml"
        self.socket = directory / "logd.sock"

    def __enter__(self) -> Instance:
        self.command("init", str(self.directory))
        return self

    def __exit__(self, *_: object) -> None:
        self.remove_outboxes()

    def remove_outboxes(self) -> None:
        """Remove the outboxes' directory, which the next daemon creates again."""
        if self.config.exists():
            outboxes = configuration.load(self.config).outbox_directory
            shutil.rmtree(outboxes, ignore_errors=True)

    def run_arguments(self) -> list[str]:
        """Return the arguments of `logd run`."""
        return ["-m", "logd", "run", "--config", str(self.config)]

    def status(self) -> dict[str, Any]:
        """Return the output of `logd status --json`."""
        state: dict[str, Any] = json.loads(
            self.command("status", "--config", str(self.config), "--json")
        )
        return state

    def settled_status(self, timeout_s: float) -> dict[str, Any]:
        """Return the status once nothing is pending, or after the time-out."""
        deadline_s = time.monotonic() + timeout_s
        while (state := self.status())["pending"] and time.monotonic() < deadline_s:
            pass  # starting `logd status` takes long enough to need no pause
        return state

    def verify(self) -> str:
        """Run `logd verify` and return its first line. Raises Failed if it finds a problem."""
        return self.command("verify", "--config", str(self.config)).splitlines()[0]

    def command(self, *arguments: str) -> str:
        """Run a logd command and return its output. Raises Failed."""
        done = subprocess.run(
            [sys.executable, "-m", "logd", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": PYTHONPATH},
        )
        if done.returncode != 0:
            output = (done.stdout + done.stderr).strip()
            raise Failed(f"logd {arguments[0]}: {describe_exit(done.returncode)}\n{output}")
        return done.stdout


def end_on_sigterm() -> None:
    """Make SIGTERM unwind the stack as Ctrl-C does, so that every `with` cleans up."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
