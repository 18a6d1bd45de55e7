"""An instance of logd in memory with a real daemon, for cases that kill it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import logd
import logd_wire
from logd.conformance.daemon_double import until
from logd.conformance.driver_protocol import PAGE
from logd.conformance.verdicts import Failed
from logd.maintenance import new_instance
from logd.reports.event_queries import event_page
from logd.status.collect import collect_status
from logd.storage import opening

DAEMON_S = 60.0
_SYSTEMD = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS"}
_READY = b"logd: ready"
_CODE = [str(Path(package.__file__ or "").parent.parent) for package in (logd, logd_wire)]
_PAGE_EVENTS = 10_000
_LOOK_INTERVAL_S = 0.02
_ACCOUNTED = ("stored", "quarantined_events", "pending", "lost", "lost_claimed")


class TemporaryDaemon:
    """Runs at most one daemon at a time. `close` removes the instance from memory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "instance"
        self.config = new_instance.init(self.directory)
        self._log = self.directory / "log"
        self._popen: subprocess.Popen[bytes] | None = None
        self.kills = 0

    @property
    def socket(self) -> str:
        """The path of the instance's datagram socket."""
        return str(self.config.socket)

    @property
    def pid(self) -> int:
        """The pid of the daemon."""
        assert self._popen is not None
        return self._popen.pid

    def start(self) -> None:
        """Starts the daemon unless it runs, and waits until it is ready."""
        if self._popen is not None and self._popen.poll() is None:
            return
        # Run the same code as this process,
        # not an installed package or one in the working directory.
        command = [sys.executable, "-P", "-m", "logd", "run", "--config", str(self.config.path)]
        # The daemon starts without systemd's variables,
        # since it must not notify this process's service manager.
        kept = {name: value for name, value in os.environ.items() if name not in _SYSTEMD}
        path = os.pathsep.join(filter(None, (*_CODE, kept.get("PYTHONPATH"))))
        with self._log.open("wb") as log:
            self._popen = popen = subprocess.Popen(  # noqa: S603 - ourselves
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**kept, "PYTHONPATH": path},
                start_new_session=True,
            )

        def ready() -> bool:
            if popen.poll() is not None:
                output = self._log.read_text(errors="replace").strip().splitlines()[-2:]
                raise Failed(
                    f"`logd run` ended with {popen.returncode}: {' | '.join(output)}", PAGE
                )
            return _READY in self._log.read_bytes()

        until(ready, "`logd run` is not ready", PAGE, DAEMON_S)

    def kill(self) -> None:
        """Kills the daemon, and waits for its end."""
        assert self._popen is not None
        self._popen.kill()
        self._popen.wait()
        self.kills += 1

    def settle(self, accepted: int) -> dict[str, Any]:
        """Returns the status once all accepted events are accounted for, or at the deadline."""
        end_s = time.monotonic() + DAEMON_S
        while True:
            status = collect_status(self.config)
            accounted = sum(status[name] for name in _ACCOUNTED) - status["own"]
            settled = status["pending"] == 0 and not self.outboxes() and accounted >= accepted
            if settled or time.monotonic() > end_s:
                return status
            time.sleep(_LOOK_INTERVAL_S)

    def outboxes(self) -> list[Path]:
        """Returns the files in the outboxes' directory that are outboxes."""
        return list(self.config.outbox_directory.glob("*.outbox"))

    def events(self) -> list[dict[str, Any]]:
        """Returns all stored events, oldest first."""
        with closing(opening.open_for_events(self.config)) as connection:
            rows: list[dict[str, Any]] = []
            after_id: int | None = 0
            while after_id is not None:
                page = event_page(connection, after_id=after_id, limit=_PAGE_EVENTS)
                rows, after_id = rows + page.rows, page.next
        return rows

    def close(self) -> None:
        """Ends the daemon and removes the outboxes; the caller removes the other files."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
        shutil.rmtree(self.config.outbox_directory, ignore_errors=True)
