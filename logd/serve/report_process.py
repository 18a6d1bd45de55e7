"""Starts the report process, and restarts it when it ends."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from typing import Protocol

from logd.config.settings import Config
from logd.log_limit import ThrottledLog

# A report process that ends within this time after its start
# (without a key file, for example) is restarted at growing intervals.
REPORTER_SETTLED_S = 10.0
REPORTER_PAUSE_MIN_S = 1.0
REPORTER_PAUSE_MAX_S = 60.0
REPORTER_STOP_TIMEOUT_S = 2.0
NEVER_S = float("inf")

_log = logging.getLogger("logd")


def restart_pause_s(pause_s: float, lived_s: float) -> float:
    """Returns the time between the start of a process that ran for `lived_s` and the next start."""
    if lived_s >= REPORTER_SETTLED_S:
        return REPORTER_PAUSE_MIN_S
    return min(max(2 * pause_s, REPORTER_PAUSE_MIN_S), REPORTER_PAUSE_MAX_S)


class Lifeline(Protocol):
    """The report process's standard input. The process ends when the daemon closes its end."""

    def open(self) -> socket.socket:
        """Creates a lifeline, and returns the report process's end."""

    def close(self) -> None:
        """Closes the daemon's end of the report process's input, which makes that process end."""


class ReportProcess:
    """The child process that answers reports; it is restarted at a bounded rate when it ends."""

    def __init__(self, config: Config, listener: socket.socket, lifeline: Lifeline) -> None:
        self._config = config
        self._listener = listener
        self._lifeline = lifeline
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._pause_s = 0.0  # seconds between two starts
        self._ending_s = NEVER_S  # when the process was told to end, for a restart
        self._throttled = ThrottledLog(_log)

    def start(self) -> None:
        """Starts the report process with the listening socket, and the lifeline as its stdin."""
        fd = self._listener.fileno()
        command = [
            sys.executable,
            "-m",
            "logd.serve.report_server",
            str(fd),
            str(self._config.path),
        ]
        self._started_s = time.monotonic()
        try:
            with self._lifeline.open() as theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                    command,
                    stdin=theirs.fileno(),
                    pass_fds=(fd,),
                    # The process has a group of its own, since only the daemon acts on Ctrl-C.
                    # It has no session of its own, since some kernels group
                    # processes by session, and niceness counts only within a group.
                    process_group=0,
                )
        except OSError as error:
            self._process = None
            self._throttled.warning("no report process now: %s", error.strerror)

    def replace_listener(self, listener: socket.socket) -> None:
        """Restarts the report process with `listener`: the former socket has lost its name."""
        self._listener.close()
        self._listener = listener
        self._end_present()

    def keep_running(self) -> None:
        """Restarts the report process if it has ended or failed to start, at a bounded rate."""
        now_s = time.monotonic()
        if self._process is not None and self._process.poll() is None:
            if now_s - self._ending_s >= REPORTER_STOP_TIMEOUT_S:
                self._process.kill()
            return
        if self._ending_s != NEVER_S:
            self._ending_s = NEVER_S
            self.start()
            return
        if self._process is not None:  # the process has just ended
            self._pause_s = restart_pause_s(self._pause_s, now_s - self._started_s)
            self._process = None
            self._throttled.warning(
                "the report process has ended: restarting it in %.0f s", self._pause_s
            )
        if now_s - self._started_s >= max(self._pause_s, REPORTER_PAUSE_MIN_S):
            self.start()

    def restart(self, config: Config) -> None:
        """Ends the report process without waiting; `keep_running` starts it with `config`."""
        self._config = config
        self._end_present()

    def _end_present(self) -> None:
        """Closes the lifeline; after the process has ended, `keep_running` starts a new one."""
        if self._process is not None:
            self._lifeline.close()
            self._ending_s = time.monotonic()

    def stop(self) -> None:
        """Closes the lifeline, and kills the process if it does not end by itself."""
        self._lifeline.close()
        if self._process is None:
            return
        try:
            self._process.wait(REPORTER_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
