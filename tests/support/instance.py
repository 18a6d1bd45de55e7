"""Helpers of tests with real processes: an instance, its daemon, emitters, and the sums."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import logd.cli
from logd.config import settings as configuration
from logd.config.settings import Config
from logd.maintenance import new_instance
from logd.render import json_value
from logd.reports.event_queries import event_page
from logd.status.collect import collect_status
from logd.storage import keyfile, opening
from logd.storage.database import Connection, connect
from logd.storage.store import Store
from logd_client.client import _clients
from tests.support import client_parts as parts
from tests.support import fork_server
from tests.support.counter_file import CounterFile

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
# A client gets no outbox here. (Removing the directory would not do: a daemon restores it.)
NO_DIRECTORY = "/nowhere/outboxes"
LOOK_INTERVAL_MIN_S = 0.001
LOOK_INTERVAL_MAX_S = 0.02


def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Waits for a condition; fails with `what` after the deadline."""
    end = time.monotonic() + deadline_s
    interval_s = LOOK_INTERVAL_MIN_S
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s:.0f} s: {what}"
        time.sleep(interval_s)
        # Poll less and less often: polling takes CPU time from the processes under test.
        interval_s = min(interval_s * 1.3, LOOK_INTERVAL_MAX_S)


def settled(status: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Waits until nothing is pending, and returns the status."""
    state: dict[str, Any] = {}

    def is_settled() -> bool:
        nonlocal state
        state = status()
        return bool(state["pending"] == 0)

    until(is_settled, "nothing is pending")
    return state


def short_directory() -> Path:
    """A new directory with a path short enough for a socket in it."""
    return Path(tempfile.mkdtemp(prefix="logd-", dir="/tmp"))


class Process:
    """A child process whose stderr is kept line by line. `prefix` is a command to run it under."""

    def __init__(
        self,
        *command: str,
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.lines: list[str] = []
        environment = {**os.environ, **(env or {})}
        if prefix or options or not fork_server.serves(command, env):
            self.popen = subprocess.Popen(
                [*prefix, sys.executable, *command],
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=environment,
                **options,
            )
        else:
            self.popen = fork_server.Fork(command, environment)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(line.rstrip("\n"))

    def says(self, text: str) -> bool:
        """Whether a line contains the text; fails if the process has ended without one."""
        if any(text in line for line in self.lines):
            return True
        if self.popen.poll() is not None:
            self._reader.join(5)
            if any(text in line for line in self.lines):
                return True
            raise AssertionError(
                f"ended with {self.popen.returncode} before it wrote {text!r}: {self.lines}"
            )
        return False

    def finish(self) -> tuple[int, str, str]:
        """Waits for its end; returns its exit code, standard output and standard error."""
        assert self.popen.stdout is not None
        out = self.popen.stdout.read()
        code = self.popen.wait(DEADLINE_S)
        self._reader.join(5)
        self.close()
        return code, out, "".join(f"{line}\n" for line in self.lines)

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Sends the signal, and waits for the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        code = self.popen.wait(DEADLINE_S)
        self._reader.join(5)
        return code

    def close(self) -> None:
        """Kills the process if it still runs, and closes its pipes."""
        self.end()
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if pipe is not None:
                pipe.close()


# Commands that run in the test's process, which saves starting another.
IN_THIS_PROCESS = {"status", "query", "losses", "verify", "quarantine", "person", "prove"}
IN_THIS_PROCESS |= {"backup", "restore", "rekey", "prune", "forget", "checkpoint", "genkey"}


def _is_alone() -> bool:
    """Whether this process has no live client.

    Opening a client's outbox and closing it again would drop this process's lock on it.
    """
    return not any(parts.current(client) is not None for client in _clients)


def _in_this_process(arguments: Sequence[str]) -> tuple[int, str, str]:
    done = CliRunner().invoke(logd.cli.main, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def _in_a_process(arguments: Sequence[str]) -> tuple[int, str, str]:
    return Process("-m", "logd", *arguments).finish()


class Instance:
    """A logd instance in a directory of its own, with at most one daemon at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        new_instance.init(directory)  # `logd init` without a process
        self._outboxes = self.config.outbox_directory  # a test may configure another
        self.daemon: Process | None = None

    @property
    def config(self) -> Config:
        return configuration.load(self.directory / "logd.toml")

    @property
    def socket(self) -> str:
        return str(self.directory / "logd.sock")

    def configure(self, **settings: Any) -> None:
        """Sets settings in the instance's logd.toml."""
        file = self.directory / "logd.toml"
        lines = file.read_text().splitlines()
        for name, value in settings.items():
            lines = [line for line in lines if not line.startswith(f"{name} =")]
            lines.append(f"{name} = {json.dumps(value)}")
        file.write_text("\n".join(lines) + "\n")

    def spawn(
        self, env: dict[str, str] | None = None, *, loads_reports: bool = False, **options: Any
    ) -> Process:
        """Starts the daemon without waiting for it.

        Its report process is loaded at once only if `loads_reports` is set, and otherwise when the
        first report is asked for.
        """
        run = ("logd", "run") if loads_reports else ("tests.support.daemon",)
        self.daemon = Process("-m", *run, "--config", str(self.config.path), env=env, **options)
        return self.daemon

    def start(self, env: dict[str, str] | None = None, **options: Any) -> Process:
        """Starts the daemon and waits until it is ready."""
        daemon = self.spawn(env, **options)
        until(lambda: daemon.says("logd: ready"), "logd is ready")
        return daemon

    def kill(self) -> None:
        """SIGKILL to the daemon."""
        assert self.daemon is not None
        self.daemon.close()

    def stop(self) -> int:
        """SIGTERM to the daemon; its exit code."""
        assert self.daemon is not None
        code = self.daemon.end(signal.SIGTERM)
        self.daemon.close()
        return code

    def cli(self, *arguments: str, config: bool = True, code: int = 0) -> str:
        """Runs a `logd` command, checks its exit code, and returns its output."""
        if config:
            arguments = (*arguments, "--config", str(self.config.path))
        run = _in_this_process if arguments[0] in IN_THIS_PROCESS and _is_alone() else _in_a_process
        exit_code, out, err = run(arguments)
        assert exit_code == code, out + err
        assert "Traceback" not in err
        return out + (err if code else "")

    def status(self) -> dict[str, Any]:
        """The status, as `logd status --json` prints it."""
        if _is_alone():
            return collect_status(self.config)
        state: dict[str, Any] = json.loads(self.cli("status", "--json"))
        return state

    def events(self, *filters: str) -> list[dict[str, Any]]:
        """Stored events, oldest first, as `logd query` prints them."""
        if filters:
            lines = self.cli("query", "--format", "jsonl", *filters).splitlines()
            return [json.loads(line) for line in lines]
        connection = opening.open_for_reading(self.config)
        try:
            rows: list[dict[str, Any]] = []
            page = None
            while page is None or page.next is not None:
                after_id = page.next if page else 0
                page = event_page(connection, after_id=after_id, limit=10_000)
                rows += [{**row, "props": json_value(row["props"])} for row in page.rows]
        finally:
            connection.close()
        return rows

    @contextlib.contextmanager
    def database(
        self, path: Path | None = None, *, read_only: bool = False
    ) -> Iterator[Connection]:
        """A connection of the test's own to the database, or to a copy of it."""
        key = keyfile.read(self.config.key_file)
        connection = connect(path or self.config.database, key, read_only=read_only)
        try:
            yield connection
        finally:
            connection.close()

    def open_store(self, quarantine_rows_max: int = 100) -> Store:
        """The store, as a daemon opens it; for a test without one, which closes it."""
        key = keyfile.read(self.config.key_file)
        return Store(self.config.database, key, 1, quarantine_rows_max)

    def settle(self) -> dict[str, Any]:
        """Waits until nothing is pending, and returns the status."""
        return settled(self.status)

    def close(self) -> None:
        """Kills the daemon and removes the outboxes."""
        if self.daemon is not None:
            self.daemon.close()
        shutil.rmtree(self._outboxes, ignore_errors=True)


def check_sums(
    status: dict[str, Any], *, attempted: int, accepted: int, refused: int = 0, killed: int = 0
) -> None:
    """Checks both sums. `killed` calls may have stored an event without returning.

    Internal events of logd are stored without having been emitted.
    """
    assert attempted == accepted + refused
    names = ("stored", "quarantined_events", "pending", "lost", "lost_claimed")
    accounted = sum(status[name] for name in names) - status["own"]
    assert accepted <= accounted <= accepted + killed, status


def check_streams(events: list[dict[str, Any]]) -> dict[str, int]:
    """Checks that each producer's events are stored once, in order, without a gap; counts them."""
    last: dict[str, int] = {}
    for event in events:
        before = last.get(event["producer"], 0)
        assert event["sequence"] == before + 1, event
        last[event["producer"]] = event["sequence"]
    return last


class Emitter:
    """A process that emits, with counters that survive it."""

    def __init__(self, instance: Instance, events: int, name: str = "e") -> None:
        self._counters = CounterFile()
        self.process = Process(
            "-m", "tests.support.emitter", instance.socket, self._counters.path, name, str(events)
        )

    @property
    def accepted(self) -> int:
        """Calls that returned True."""
        return self._counters.words()[0]

    @property
    def refused(self) -> int:
        """Calls that returned False (each is tried again, as a further attempt)."""
        return self._counters.words()[1]

    def finish(self) -> None:
        """Waits until it ends by itself."""
        code = self.process.popen.wait(DEADLINE_S)
        assert code == 0, self.process.lines

    def close(self) -> None:
        """Kills the process; the counters can still be read."""
        self.process.close()


@contextlib.contextmanager
def emitters(instance: Instance, count: int, events: int) -> Iterator[list[Emitter]]:
    """Runs `count` emitters at once, and kills them at the end."""
    running: list[Emitter] = []
    try:
        running += [Emitter(instance, events, f"e{n}") for n in range(count)]
        yield running
    finally:
        for emitter in running:
            emitter.close()
