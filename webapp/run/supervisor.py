"""The supervisor of `make run`: starts logd and the site, watches them, and stops them in order.

It waits for children and signals in one place, `_next_event`, which also handles the events that
always need the same action.
"""

from __future__ import annotations

import contextlib
import http
import json
import os
import queue
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterable

from webapp.run.messages import ready_text, totals_text
from webapp.run.plan import HOST, Plan, RunError
from webapp.run.preparation import remove_incomplete
from webapp.run.process import Child, Event, Events, Exited, Line, Signalled, describe_exit

LOGD_READY_TIMEOUT_S = 60.0
SITE_READY_TIMEOUT_S = 60.0
SITE_STOP_TIMEOUT_S = 10.0
LOGD_STOP_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 60.0
HTTP_TIMEOUT_S = 2.0
STATUS_BYTES = len("HTTP/1.1 200")
POLL_INTERVAL_S = 0.05
RESTARTS_MAX = 3
RESTARTS_WINDOW_S = 60.0

# Exit codes after which a restart would fail in the same way:
# usage, damaged data, or a file, key or setting that is missing or unsuitable.
_PERMANENT_EXIT_CODES = {
    os.EX_USAGE,
    os.EX_DATAERR,
    os.EX_UNAVAILABLE,
    os.EX_CANTCREAT,
    os.EX_NOPERM,
    os.EX_CONFIG,
}
_READY_MARK = "logd: ready"
# Logd's log line with the head of the trail, once a minute, is not printed.
_ANCHOR_MARK = "logd: anchor "

Print = Callable[[str], None]
Accounts = Callable[[], Iterable[tuple[str, str, str]]]


class Stopped(Exception):
    """The run received SIGINT (Ctrl-C), SIGTERM or SIGHUP."""


class Supervisor:
    """One run of logd and the site. Signals and children report to `events`."""

    def __init__(self, plan: Plan, events: Events, print_line: Print, accounts: Accounts) -> None:
        self._plan = plan
        self._events = events
        self._print = print_line
        self._accounts = accounts
        self._logd: Child | None = None
        self._logd_is_ready = False
        self._site: Child | None = None
        self._site_is_open = False
        self._seed: Child | None = None
        self._logd_was_ready = False
        self._restarts_s: list[float] = []

    def run(self) -> int:
        """Runs until a signal or a failure; returns the exit code, 0 after a signal."""
        exit_code = os.EX_OK
        try:
            self._make_instance()
            logd = self._start_logd()
            self._wait(lambda: self._logd_is_ready, LOGD_READY_TIMEOUT_S, logd)
            self._logd_was_ready = True
            self._load_history()
            site = self._start_site()
            self._wait(self._site_answers, SITE_READY_TIMEOUT_S, site)
            self._site_is_open = True
            self._print(ready_text(self._plan, self._accounts()))
            for line in site.last_lines:
                self._print_line_of(site, line)
            while True:
                self._next_event()
        except Stopped:
            pass
        except RunError as error:
            self._print(f"make run: {error}")
            exit_code = error.exit_code
        finally:
            self._stop()
        return exit_code

    # -- start -----------------------------------------------------------------------------------

    def _make_instance(self) -> None:
        if self._plan.incomplete:
            self._print("An earlier first run was interrupted: removing its files to start over.")
            remove_incomplete(self._plan)
        if not self._plan.config.exists():
            self._command("logd init", self._plan.logd_init)

    def _command(self, name: str, command: tuple[str, ...]) -> str:
        """Runs a short command; returns its output. Raises RunError if it fails."""
        try:
            done = subprocess.run(  # noqa: S603 - the plan's own commands
                command,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"`{name}` failed: {error}", os.EX_UNAVAILABLE) from error
        if done.returncode != 0:
            output = (done.stderr or done.stdout).strip()
            raise RunError(f"`{name}` failed: {output}", done.returncode)
        return done.stdout

    def _start(
        self, name: str, command: tuple[str, ...], env: dict[str, str], *, lines: bool = True
    ) -> Child:
        try:
            return Child(name, command, self._events, env, lines=lines)
        except OSError as error:
            raise RunError(
                f"{name} cannot be started ({command[0]}: {error.strerror}). `make setup` repairs "
                "the environment.",
                os.EX_UNAVAILABLE,
            ) from error

    def _start_logd(self) -> Child:
        self._logd_is_ready = False
        self._logd = self._start("logd", self._plan.logd_run, dict(os.environ))
        return self._logd

    def _load_history(self) -> None:
        if self._plan.has_history:
            return
        self._print("First run: loading 60 days of demo history through logd.")
        env = self._plan.site_environment(os.environ)
        # The child inherits stdout, since its progress bar needs the terminal.
        seed = self._seed = self._start("seed", self._plan.seed, env, lines=False)
        while True:
            event = self._next_event()
            if isinstance(event, Exited) and event.child is seed:
                self._seed = None
                if event.code != 0:
                    raise RunError(
                        f"the demo history could not be loaded ({describe_exit(event.code)}); "
                        "the next `make run` starts over.",
                        os.EX_UNAVAILABLE,
                    )
                return

    def _start_site(self) -> Child:
        env = self._plan.site_environment(os.environ)
        self._site = self._start("site", self._plan.site, env)
        return self._site

    def _site_answers(self) -> bool:
        """Returns whether the login page answers. Raises RunError if it answers with an error."""
        status = _status_of(self._plan.port, "/login")
        if status is None:
            return False
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            assert self._site is not None
            raise RunError(
                f"the site answers its login page with an error ({status})."
                + _last_lines(self._site),
                os.EX_SOFTWARE,
            )
        return True

    def _wait(self, holds: Callable[[], bool], timeout_s: float, child: Child) -> None:
        """Handles events until `holds()` is true. Raises RunError after the timeout."""
        deadline_s = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > deadline_s:
                raise RunError(
                    f"{child.name} was not ready within {timeout_s:.0f} seconds."
                    + _last_lines(child),
                    os.EX_UNAVAILABLE,
                )
            self._next_event(POLL_INTERVAL_S)

    # -- operation ------------------------------------------------------------------------------

    def _next_event(self, timeout_s: float | None = None) -> Event | None:
        """Waits for one event and handles it; returns None after the timeout.

        Raises Stopped, and RunError if a child that the run needs has ended.
        """
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        match event:
            case Signalled():
                raise Stopped
            case Line(child, text) if child is self._logd and _READY_MARK in text:
                self._logd_is_ready = True
                if self._restarts_s:
                    self._print("logd has restarted.")
            case Line(child, text) if child is self._logd and text.startswith(_ANCHOR_MARK):
                pass
            case Line(child, text) if self._is_up(child):
                self._print_line_of(child, text)
            case Exited(child, code) if child is self._site:
                self._site = None
                raise RunError(
                    f"the site ended unexpectedly ({describe_exit(code)})." + _last_lines(child),
                    os.EX_SOFTWARE,
                )
            case Exited(child, code) if child is self._logd:
                self._logd = None
                self._logd_ended(child, code)
        return event

    def _print_line_of(self, child: Child, line: str) -> None:
        named = line.startswith(f"{child.name}: ")  # a line of logd begins with its name already
        self._print(line if named else f"{child.name} | {line}")

    def _is_up(self, child: Child) -> bool:
        # Before that, lines are only kept, for the message if the start fails.
        return (child is self._site and self._site_is_open) or (
            child is self._logd and self._logd_is_ready
        )

    def _logd_ended(self, child: Child, code: int) -> None:
        if not self._logd_was_ready or code in _PERMANENT_EXIT_CODES:
            raise RunError(
                f"logd failed ({describe_exit(code)})." + _last_lines(child),
                code if code > 0 else os.EX_UNAVAILABLE,
            )
        now_s = time.monotonic()
        self._restarts_s = [s for s in self._restarts_s if now_s - s < RESTARTS_WINDOW_S]
        if len(self._restarts_s) >= RESTARTS_MAX:
            raise RunError(
                f"logd ended {RESTARTS_MAX + 1} times within {RESTARTS_WINDOW_S:.0f} seconds, the "
                f"last time with {describe_exit(code)}." + _last_lines(child),
                os.EX_UNAVAILABLE,
            )
        self._restarts_s.append(now_s)
        self._print(
            f"logd ended unexpectedly ({describe_exit(code)}); restarting it "
            f"({len(self._restarts_s)} of at most {RESTARTS_MAX} within a minute). "
            "Until then events wait in the outboxes."
        )
        # Nothing waits for the restart: the site works without logd, and its pages say so.
        self._start_logd()

    # -- stop ------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Stops the site first, so that logd receives its last events; each has a deadline."""
        if self._seed is not None:
            self._seed.stop(SITE_STOP_TIMEOUT_S)
            self._print("\nStopped while loading the history; the next `make run` starts over.")
        if self._site is not None:
            self._print("\nStopping the site, then logd.")
            self._site.stop(SITE_STOP_TIMEOUT_S)
        if self._logd is not None:
            code = self._logd.stop(LOGD_STOP_TIMEOUT_S)
            if code != 0:
                self._print(
                    f"logd did not stop cleanly ({describe_exit(code)})." + _last_lines(self._logd)
                )
        if self._logd_was_ready:
            self._print_totals()

    def _print_totals(self) -> None:
        try:
            status = json.loads(self._command("logd status", self._plan.logd_status))
        except (RunError, ValueError) as error:
            self._print(f"The totals are not known: {error}")
            return
        self._print(totals_text(status))


def _status_of(port: int, path: str) -> int | None:
    """Returns the HTTP status of a page; None if there is none within HTTP_TIMEOUT_S.

    http.client has a timeout for each read, so another server on that port that sends one byte at a
    time could delay Ctrl-C for hours.
    """
    deadline_s = time.monotonic() + HTTP_TIMEOUT_S
    answer = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((HOST, port), timeout=HTTP_TIMEOUT_S) as sock,
    ):
        sock.sendall(f"GET {path} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
        while len(answer) < STATUS_BYTES and (left_s := deadline_s - time.monotonic()) > 0:
            sock.settimeout(left_s)
            part = sock.recv(STATUS_BYTES - len(answer))
            if not part:
                break
            answer += part
    found = re.fullmatch(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(found[1]) if found else None


def _last_lines(child: Child) -> str:
    if not child.last_lines:
        return ""
    return "\n    ".join([" Its last lines:", *child.last_lines])
